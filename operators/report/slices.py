"""All slices of a series for its page: encoded while the series is denoised, in a thread.

Each slice is one line of text elements: the stored values of the original and of the derived image,
then the maps, each predicted from its neighbours, deflated and written in base 85. The page decodes
them itself (templates/viewer.js).
"""

from __future__ import annotations

import math
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch

from stillscan.models.noise.estimation import remaining_share
from stillscan.operators.report.display import Display, display_of, thumbnail

if TYPE_CHECKING:
    from stillscan.operators.denoising.denoise_series import DenoisedBlock
    from stillscan.operators.denoising.plan import Plan

LIMIT_MB = 40.0
MAP_SIDE = 128  # pixels: a map is reduced to about this
REACH = 3.0  # times the noise: the range of what was put back
DIGITS = np.frombuffer(
    b"!#$%()*+,-./0123456789:;=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~",
    np.uint8,
)[:85]


@dataclass
class SliceTexts:
    """The encoded slices of a series.

    Attributes:
        lines: file with one line per slice.
        factor: every side was divided by this to keep the page below its size limit.
        slices: for each slice what a reader needs beside its line: label, rescale, ranges, noise.
        display: window, aspect and presets, of the middle slice.
        thumbnail: PNG of the derived middle slice.
        signal: mean signal of the bright half of the images, modality units; None if not measured.
        volumes: number of volumes of a series with repeated positions, 1 for others.
        shape: rows and columns of the encoded slices.
        full: rows and columns of the images.
        unsigned: whether the stored values are.
    """

    lines: IO[bytes]
    factor: int = 1
    slices: list[dict[str, Any]] = field(default_factory=list)
    display: Display | None = None
    thumbnail: bytes = b""
    volumes: int = 1
    shape: tuple[int, int] = (0, 0)
    full: tuple[int, int] = (0, 0)
    unsigned: bool = True

    @property
    def signal(self) -> float | None:
        """Return the mean over the slices, None if no slice has a signal."""
        found = [each["signal"] for each in self.slices if each["signal"] is not None]
        return float(np.mean(found)) if found else None


class SliceEncoder:
    """Encodes the blocks of a series in a thread, so that the network need not wait for it."""

    def __init__(self, staging: Path, plan: Plan, limit_mb: float = LIMIT_MB) -> None:
        """Write below `staging`; a larger page than `limit_mb` is reduced in size."""
        self._plan = plan
        self._limit = limit_mb * 1e6
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None
        self._made = SliceTexts(TemporaryFile(dir=staging))  # noqa: SIM115 - closed by the caller

    def add(self, denoised: DenoisedBlock, stored: list[np.ndarray]) -> None:
        """Encode the next block and the stored values that were derived from it."""
        self._wait()
        self._pending = self._thread.submit(self._encode, denoised, stored)

    def finish(self) -> SliceTexts:
        """Return the slices of the complete series."""
        self._wait()
        self._thread.shutdown()
        return self._made

    def discard(self) -> None:
        """Remove what was encoded."""
        self._thread.shutdown(cancel_futures=True)
        self._made.lines.close()

    def _wait(self) -> None:
        """At most one block waits, so that memory does not grow with the series."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _encode(self, denoised: DenoisedBlock, stored: list[np.ndarray]) -> None:
        block, made = denoised.block, self._made
        if block.start == 0:
            made.volumes = volumes_of([each.place for each in block.volume.slices])
            bytes_of_slice = len(_pair(block.stored[0], stored[0], 1)[0])
            every = bytes_of_slice * len(block.volume.slices)
            made.factor = max(1, math.ceil(math.sqrt(every / self._limit)))
            made.full = rows, columns = stored[0].shape
            made.unsigned = stored[0].dtype.kind == "u"
            made.shape = max(1, rows // made.factor), max(1, columns // made.factor)
        for at, after in enumerate(stored):
            line, facts = self._slice(denoised, at, after)
            made.lines.write(line + b"\n")
            made.slices.append(facts)
        middle = len(block.volume.slices) // 2 - block.start
        if 0 <= middle < len(stored):
            made.display = display_of(denoised, middle)
            made.thumbnail = thumbnail(made.display, denoised.pixels[middle], block.padding[middle])

    def _slice(
        self, denoised: DenoisedBlock, at: int, after: np.ndarray
    ) -> tuple[bytes, dict[str, Any]]:
        block, factor = denoised.block, self._made.factor
        source, valid = block.volume.slices[block.start + at], ~block.padding[at]
        line, planes = _pair(block.stored[at], after, factor)
        sigma = None if denoised.sigma is None else denoised.sigma[at]
        maps: list[bytes] = [b"", b"", b""]
        top_sigma = top_spread = 0.0
        side = max(factor, math.ceil(max(after.shape) / MAP_SIDE))
        if sigma is not None:
            maps[0], top_sigma = _map(sigma, side)
            if denoised.spread is not None:
                maps[1], top_spread = _map(denoised.spread[at], side)
            if denoised.put_back is not None and (put := denoised.put_back[at]).any():
                share = np.clip(reduced(put / sigma, factor) / REACH, -1, 1)
                maps[2] = encoded(np.rint(share * 127 + 128).astype(np.uint8), 1)
        real = block.pixels[at][valid]
        bright = valid & (block.pixels[at] >= real.mean()) if real.size else valid
        before = None
        if denoised.noise_before is not None and sigma is not None and real.size:
            before = float(np.median(sigma[bright]))
        facts = {
            "position": source.position,
            "slope": source.slope,
            "intercept": source.intercept,
            "planes": planes,
            "sigma": top_sigma,
            "spread": top_spread,
            "map": side,
            "noise": [before, self._noise_after(denoised, at, before)],
            "signal": float(block.pixels[at][bright].mean()) if real.size else None,
        }
        return b" ".join([line, *maps]), facts

    def _noise_after(self, denoised: DenoisedBlock, at: int, before: float | None) -> float | None:
        if before is None or not np.isfinite(denoised.pixels[at]).all():
            return None
        scaling, block = self._plan.scaling, denoised.block
        share = remaining_share(
            torch.from_numpy(scaling.to_network(block.pixels[at])),
            torch.from_numpy(scaling.to_network(denoised.pixels[at])),
            self._plan.noise,
            torch.from_numpy(~block.padding[at]),
        )
        return before * share


def volumes_of(places: list[Any]) -> int:
    """Return how often a series repeats the same positions in the same order; 1 if it does not."""
    once = len(set(places))
    if None in places or once == len(places) or len(places) % once:
        return 1
    again = all(place == places[index % once] for index, place in enumerate(places))
    return len(places) // once if again else 1


def reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the means of squares of `factor` x `factor` pixels; incomplete ones are left out."""
    if factor == 1:
        return image
    rows, columns = (max(1, side // factor) for side in image.shape)
    squares = image[: rows * factor, : columns * factor]
    return squares.reshape(rows, -1, columns, squares.shape[1] // columns).mean((1, 3))


def encoded(image: np.ndarray, planes: int) -> bytes:
    """Encode whole numbers of up to 32 bits without loss.

    Each pixel is predicted from its neighbours to the left (a), above (b) and between them (c), as
    in JPEG-LS (ITU-T T.87, A.4.1): the middle one of a, b and a + b - c. The differences are made
    positive, and their bytes written from the highest plane to the lowest.
    """
    return base85(zlib_of(_bytes_of(_differences(image), planes)))


def zlib_of(content: bytes) -> bytes:
    """Deflate; of the strategies, run lengths are the smallest and fastest for such differences."""
    deflate = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return deflate.compress(content) + deflate.flush()


def base85(content: bytes) -> bytes:
    """Write 4 bytes as 5 characters; before them, how many bytes were added to fill the last 4."""
    added = -len(content) % 4
    padded = content + b"\0" * added
    rest = np.frombuffer(padded, ">u4").astype(np.uint32)
    digits = np.empty((len(rest), 5), np.uint8)
    for place in range(4, -1, -1):
        rest, digits[:, place] = np.divmod(rest, np.uint32(85))
    return b"%d" % added + DIGITS[digits].tobytes()


def _pair(before: np.ndarray, after: np.ndarray, factor: int) -> tuple[bytes, int]:
    """Encode the original and the derived slice; and how many bytes a pixel has."""
    both = [
        _differences(np.rint(reduced(each, factor)).astype(np.int64) if factor > 1 else each)
        for each in (before, after)
    ]
    planes = max(1, math.ceil(int(max(each.max() for each in both)).bit_length() / 8))
    return b" ".join(base85(zlib_of(_bytes_of(each, planes))) for each in both), planes


def _differences(image: np.ndarray) -> np.ndarray:
    values = image.astype(np.int32)  # 32 unsigned bits wrap around, and back again in the page
    a, b, c = (np.zeros_like(values) for _ in range(3))
    a[:, 1:], b[1:], c[1:, 1:] = values[:, :-1], values[:-1], values[:-1, :-1]
    difference = values - np.clip(a + b - c, np.minimum(a, b), np.maximum(a, b))
    return ((difference << 1) ^ (difference >> 31)).view(np.uint32)


def _bytes_of(differences: np.ndarray, planes: int) -> bytes:
    shifts = range(8 * (planes - 1), -8, -8)
    return b"".join((differences >> shift & 255).astype(np.uint8).tobytes() for shift in shifts)


def _map(values: np.ndarray, side: int) -> tuple[bytes, float]:
    """Encode a map in 64 steps up to its highest value, which is returned too."""
    small = reduced(values, side)
    top = float(small.max())
    if not (math.isfinite(top) and top > 0):
        return b"", 0.0
    return encoded(np.rint(small / top * 63).astype(np.uint8), 1), top
