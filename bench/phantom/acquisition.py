"""Imaging of the head: spoiled gradient echo, coil array, finite k-space, thermal noise.

The signal of a tissue is that of a spoiled gradient echo in its steady state:

    S = PD sin(a) (1 - E1) / (1 - cos(a) E1) exp(-TE / T2*),   E1 = exp(-TR / T1)

at 3 T. The images of the coils are combined with their sensitivities as weights (Roemer et al.,
Magn Reson Med 16:192, 1990): signal and shading become the root of the sum of squares of the
sensitivities, and the noise is complex Gaussian of one deviation everywhere; its magnitude makes
the image Rician. Fewer phase-encoding steps than pixels are filled up with zeros and the corners of
k-space are damped, so the noise of neighbouring pixels is correlated, as it is on most scanners:
0.48 along the rows, 0.21 along the columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float32

from bench.phantom.brain import Head
from bench.phantom.canvas import Tissue
from bench.phantom.fields import Axis, Plane

# PD (of water), T1 ms, T2* ms at 3 T. T1 of white and grey matter and muscle: Stanisz et al., Magn
# Reson Med 54:507, 2005; fat: de Bazelaire et al., Radiology 230:652, 2004; deep grey nuclei lie
# between white and cortical grey in the order of Wansapura et al., J Magn Reson Imaging 9:531,
# 1999. Flowing blood is unsaturated in part: an effective T1. Fat: the share of lipid in the layer.
TISSUES = {
    Tissue.AIR: (0.00, 1000, 1),
    Tissue.FAT: (0.66, 380, 30),
    Tissue.SKIN: (0.70, 1000, 20),
    Tissue.BONE: (0.08, 800, 1),
    Tissue.MARROW: (0.65, 420, 15),
    Tissue.MUSCLE: (0.78, 1412, 25),
    Tissue.CSF: (1.00, 4300, 800),
    Tissue.GREY: (0.82, 1820, 55),
    Tissue.WHITE: (0.70, 1084, 50),
    Tissue.STRIATUM: (0.80, 1580, 48),
    Tissue.THALAMUS: (0.76, 1360, 50),
    Tissue.PALLIDUM: (0.74, 1260, 32),
    Tissue.CEREBELLAR_GREY: (0.82, 1750, 55),
    Tissue.VITREOUS: (1.00, 4300, 500),
    Tissue.BLOOD: (0.80, 800, 40),
    Tissue.LESION: (0.84, 2100, 70),
}


@dataclass(frozen=True)
class Protocol:
    """A clinical T1-weighted axial head protocol.

    Attributes:
        matrix: pixels of the image along both directions.
        phase_steps: lines of k-space that are measured (left-right); the rest is zero.
        spacing_mm: distance of slice centres; the slices are `thickness_mm` thick.
        first_mm: height of the lowest slice above the anterior commissure.
        behind_mm: how far the centre of the field of view lies behind the anterior commissure.
        white_signal: stored value of white matter in the middle of the head.
        white_snr: its signal-to-noise ratio there.
    """

    slices: int = 24
    matrix: int = 256
    phase_steps: int = 192
    field_of_view_mm: float = 240.0
    thickness_mm: float = 4.0
    spacing_mm: float = 4.5
    first_mm: float = -33.0
    behind_mm: float = 16.0
    repetition_ms: float = 250.0
    echo_ms: float = 2.5
    flip_degrees: float = 75.0
    white_signal: float = 900.0
    white_snr: float = 12.0

    @property
    def pixel_mm(self) -> float:
        """Distance of pixel centres."""
        return self.field_of_view_mm / self.matrix

    @property
    def noise(self) -> float:
        """Standard deviation of the noise in the real and in the imaginary part, stored values."""
        return self.white_signal / self.white_snr

    def signal(self) -> dict[Tissue, float]:
        """Return what each tissue gives, white matter being `white_signal`."""
        angle = np.radians(self.flip_degrees)

        def echo(density: float, t1: float, t2_star: float) -> float:
            e1 = np.exp(-self.repetition_ms / t1)
            steady = np.sin(angle) * (1 - e1) / (1 - np.cos(angle) * e1)
            return float(density * steady * np.exp(-self.echo_ms / t2_star))

        scale = self.white_signal / echo(*TISSUES[Tissue.WHITE])
        return {tissue: scale * echo(*values) for tissue, values in TISSUES.items()}


@dataclass(frozen=True)
class Image:
    """One slice: what the scanner shows, and what it would show without noise.

    Attributes:
        noisy: magnitude, stored values before rounding.
        truth: the same acquisition of the same head without noise.
        lesions: share of each pixel that is white matter lesion.
    """

    noisy: Plane
    truth: Plane
    lesions: Plane


OVERSAMPLING = 1.5  # of the painted head in the plane
LAYERS = 3  # through the thickness of a slice


def acquire(protocol: Protocol, seed: int) -> Iterator[Image]:
    """Draw a head and image it slice by slice; the same seed gives the same series."""
    anatomy, thermal = np.random.default_rng(seed).spawn(2)
    head = Head(anatomy)
    signal = protocol.signal()
    fine = round(protocol.matrix * OVERSAMPLING)
    y, x = _pixel_positions(protocol, fine)
    shading = _coil_shading(y, x, protocol.behind_mm)
    window = _k_space_window(protocol)
    for number in range(protocol.slices):
        middle = protocol.first_mm + number * protocol.spacing_mm
        painted, lesions = _thick_slice(head, middle, protocol, y, x, signal)
        measured = _measure(painted * shading, protocol.matrix)
        drawn = thermal.standard_normal((2, protocol.matrix, protocol.matrix))
        # unitary noise in the measured part of k-space has `noise` per component in the image
        share = np.sqrt((window**2).mean())
        noise = protocol.noise / share * (drawn[0] + 1j * drawn[1])
        truth = np.abs(_reconstruct(measured * window))
        noisy = np.abs(_reconstruct((measured + noise / protocol.matrix) * window))
        share_of_lesion = np.abs(_reconstruct(_measure(lesions, protocol.matrix)))
        yield Image(
            noisy.astype(np.float32), truth.astype(np.float32), share_of_lesion.astype(np.float32)
        )


def _pixel_positions(protocol: Protocol, pixels: int) -> tuple[Axis, Axis]:
    """Anterior position of rows and left position of columns; pixel `pixels / 2` is the centre."""
    offset = ((np.arange(pixels) - pixels / 2) * protocol.field_of_view_mm / pixels).astype(
        np.float32
    )
    return -offset - np.float32(protocol.behind_mm), offset


def _coil_shading(y: Axis, x: Axis, behind_mm: float) -> Plane:
    """Root of the sum of squares of eight loops around the head; 1 in the middle."""
    ahead, left = (y[:, None] + behind_mm) / 120, x[None, :] / 120
    squares = np.zeros((len(y), len(x)), np.float32)
    for angle in np.arange(8) * 2 * np.pi / 8 + 0.3:
        reach = (ahead - 1.15 * np.cos(angle)) ** 2 + (left - 1.05 * np.sin(angle)) ** 2
        squares += (1 + 0.15 * np.cos(angle - 1)) / (reach + 0.55) ** 1.5
    shading: Plane = np.sqrt(squares)
    return shading / shading[len(y) // 2, len(x) // 2]


def _thick_slice(
    head: Head, middle: float, protocol: Protocol, y: Axis, x: Axis, signal: dict[Tissue, float]
) -> tuple[Plane, Plane]:
    """Return the mean over the thickness: partial volume between slices."""
    rows, columns = (np.abs(y + 16) < 112).nonzero()[0], (np.abs(x) < 88).nonzero()[0]
    inner = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    image, lesions = np.zeros((2, len(y), len(x)), np.float32)
    for layer in range(LAYERS):
        level = middle + ((layer + 0.5) / LAYERS - 0.5) * protocol.thickness_mm
        plane, share = head.plane(level, y[inner[0]], x[inner[1]], signal)
        image[inner] += plane / LAYERS
        lesions[inner] += share / LAYERS
    return image, lesions


def _measure(image: Plane, matrix: int) -> Complex[np.ndarray, "row column"]:
    """Return the centre of k-space, as a scanner with `matrix` samples measures it."""
    k_space = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="forward"))
    start = (image.shape[0] - matrix) // 2
    return k_space[start : start + matrix, start : start + matrix]


def _k_space_window(protocol: Protocol) -> Float32[np.ndarray, "row column"]:
    """Apply the measured lines and an elliptical Fermi filter against ringing."""
    half = protocol.matrix / 2
    read = (np.arange(protocol.matrix) - half) / half
    phase = read * protocol.matrix / protocol.phase_steps
    fermi = 1 / (1 + np.exp((np.hypot(read[:, None], phase[None, :]) - 0.98) / 0.04))
    return (fermi * (np.abs(phase) < 1)[None, :]).astype(np.float32)


def _reconstruct(
    k_space: Complex[np.ndarray, "row column"],
) -> Complex[np.ndarray, "row column"]:
    image: Complex[np.ndarray, "row column"] = np.fft.fftshift(
        np.fft.ifft2(np.fft.ifftshift(k_space), norm="forward")
    )
    return image
