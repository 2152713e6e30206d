"""The student: one compact convolutional network, told the noise, that predicts it in one step."""

from __future__ import annotations

import math
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stillscan.models.denoisers.denoiser import Estimate
from stillscan.models.engines.engine import Engine, Planes, Precision, Seen, TorchEngine
from stillscan.models.engines.one_thread_per_slice import SideBySide
from stillscan.models.engines.tiling import inside, spans
from stillscan.models.networks.precision import computes_bfloat16
from stillscan.models.networks.unet import PlainUNet
from stillscan.models.noise.profile import CORRELATION_LAGS, NoiseProfile

Image = Float[Tensor, "batch 1 height width"]
Correlation = Float[Tensor, "batch lag"]

LOCAL_SIZE = 15  # pixels
WIDE_SIZE = 7  # cells of 8 pixels
SQUASH = 8.0  # in sigma: the input is linear well below this, logarithmic above
LOG_VARIANCE_RANGE = (-10.0, 2.0)  # of the error, in sigma^2
CONVOLUTIONS = 2  # of 3 x 3, in a residual block
BOUND = 6.0  # in sigma: no pixel is changed by more, whatever the weights say


class StudentNetwork(nn.Module):
    """Predicts the noise of an image from the image, its noise level and its correlation.

    What the network sees is free of the image's scale: the difference from the local mean in units
    of the local sigma, squashed (asinh) so that strong edges do not cost bfloat16 its precision, on
    four half-resolution planes (pixel-unshuffle); the local mean against a wider one; the change of
    the noise level; the correlation coefficients at `CORRELATION_LAGS`. What it returns is
    bounded by `BOUND` sigma.

    Args:
        widths: channels at half resolution and below.
        middle_blocks: residual blocks at the coarsest resolution.
    """

    def __init__(self, widths: tuple[int, ...] = (48, 96, 192), middle_blocks: int = 2) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.middle_blocks = middle_blocks
        self.multiple = 2 ** len(widths)
        self.body = PlainUNet(4 + 2 + len(CORRELATION_LAGS), self.widths, middle_blocks)
        self.noise = nn.Conv2d(self.widths[0], 4, 3, padding=1)
        self.log_variance = nn.Sequential(
            nn.Conv2d(self.widths[0], 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1)
        )
        nn.init.zeros_(self.noise.weight)  # begins as the identity denoiser
        nn.init.zeros_(self.noise.bias)  # type: ignore[arg-type]

    def forward(self, image: Image, sigma: Image, correlation: Correlation) -> tuple[Image, Image]:
        """The noise in `image` in units of `sigma`, and the log variance of that estimate's error.

        The second output reads the features of the first but does not shape them: what it learns
        cannot cost the mean anything.

        Args:
            image: noisy image, any unit; height and width divisible by `multiple`.
            sigma: standard deviation of the noise at each pixel, same unit, above 0.
            correlation: of the noise at CORRELATION_LAGS.
        """
        return bounded(*self.planes(network_input(image, sigma, correlation)))

    def planes(self, seen: Seen) -> tuple[Planes, Planes]:
        """The four planes of the noise and of its log variance, before their bounds."""
        features = self.body(seen)
        return self.noise(features), self.log_variance(features.detach())

    @property
    def reach(self) -> int:
        """How far outputs depend on what is seen, in half-resolution pixels.

        Counted from the edge of the cell of the coarsest level in which they are: tiles meet there.
        """
        beyond = CONVOLUTIONS  # of the log variance
        for _ in self.widths[1:]:
            beyond = math.ceil((beyond + CONVOLUTIONS) / 2)
        beyond += CONVOLUTIONS * self.middle_blocks
        for _ in self.widths[1:]:
            beyond = 2 * beyond + CONVOLUTIONS
        return beyond + 1


def bounded(noise: Planes, log_variance: Planes) -> tuple[Image, Image]:
    """The planes at full resolution, within `BOUND` and `LOG_VARIANCE_RANGE`, float32."""
    full = F.pixel_shuffle(noise, 2).float()
    spread = F.pixel_shuffle(log_variance, 2).float()
    return BOUND * torch.tanh(full / BOUND), spread.clamp(*LOG_VARIANCE_RANGE)


def network_input(
    image: Image, sigma: Image, correlation: Correlation
) -> Float[Tensor, "batch channel half_height half_width"]:
    """What the network sees; float32 throughout, so that no bit of the image is rounded.

    Everything is local (no mean over the whole image), so a tile sees what the whole image sees.
    """
    local, local_sigma = box_mean(image, LOCAL_SIZE), box_mean(sigma, LOCAL_SIZE)
    detail = squash((image - local) / sigma)
    half = F.avg_pool2d(torch.cat([local, sigma, local_sigma], 1), 2)
    wide = box_mean(F.avg_pool2d(image, 8), WIDE_SIZE)
    wide = F.interpolate(wide, scale_factor=4, mode="bilinear")
    context = squash((half[:, :1] - wide) / half[:, 1:2])
    level = (half[:, 1:2] / half[:, 2:]).log()
    constants = correlation[:, :, None, None].expand(-1, -1, *half.shape[-2:])
    return torch.cat([F.pixel_unshuffle(detail, 2), context, level, constants], 1)


def squash(x: Tensor) -> Tensor:
    """Linear near 0, logarithmic beyond `SQUASH`: SQUASH * asinh(x / SQUASH), to 3e-6.

    By the logarithm: a fifth of the time of `torch.asinh`.
    """
    size = x.abs() / SQUASH
    return (SQUASH * (size + (size.square() + 1).sqrt()).log()).copysign(x)


def box_mean(image: Image, size: int) -> Image:
    """Mean over a square of `size` (odd) pixels; only pixels inside the image are counted."""
    height, width = image.shape[-2:]
    lines = (torch.ones(length, device=image.device) for length in (height, width))
    rows, columns = (running_sum(line, size, 0) for line in lines)
    return running_sum(running_sum(image, size, -2), size, -1) / (rows[:, None] * columns)


def running_sum(values: Float[Tensor, "*shape"], size: int, axis: int) -> Float[Tensor, "*shape"]:
    """Sum of the `size` (odd) values around each along one axis, zero beyond the ends.

    By doubling: sums of 1, 2, 4, 8 neighbours make up any `size` in a few passes over memory. Only
    neighbours are added, so that the sum of a part of an image is that of the whole, to the bit.
    """
    length, reach = values.shape[axis], size // 2
    ends = list(values.shape)
    ends[axis] = reach
    zeros = values.new_zeros(ends)
    run, width, start = torch.cat([zeros, values, zeros], axis), 1, 0
    total = None
    while width <= size:
        if size & width:
            part = run.narrow(axis, start, length)
            total = part if total is None else total + part
            start += width
        if 2 * width <= size:
            shorter = run.shape[axis] - width
            run = run.narrow(axis, 0, shorter) + run.narrow(axis, width, shorter)
        width *= 2
    assert total is not None, "a size of at least 1"
    return total


class StudentDenoiser:
    """A student and the engine that runs its convolutions.

    On a CPU each slice goes through by itself, on one thread: what a layer makes of it still lies
    in the cache for the next. A large image is cut into tiles of one shape that overlap by all
    that an output depends on, so that memory is bounded and there is no seam. What the network
    sees is computed before the cut.

    Args:
        network: with its weights.
        device: of torch.
        precision: of torch's products; None: bfloat16 where the device computes it.
        engine: in place of torch.
        tile: the largest side that is not cut, in half-resolution pixels; None: as the engine says.
    """

    def __init__(
        self,
        network: StudentNetwork,
        device: torch.device | str = "cpu",
        precision: torch.dtype | None = None,
        engine: Engine | None = None,
        tile: int | None = None,
    ) -> None:
        if precision is None:
            precision = torch.bfloat16 if computes_bfloat16(device) else torch.float32
        name: Precision = "float32" if precision == torch.float32 else "bfloat16"
        self.network = network
        self.engine: Engine = engine or TorchEngine(network, device, name)
        self._tile = tile or self.engine.piece
        self._side_by_side = SideBySide(1 if self.device.type == "cuda" else None)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.engine.device

    @torch.inference_mode()
    def denoise(self, image: Image, noise: NoiseProfile) -> Estimate:
        """Estimate the clean image; `noise` is in the image's own unit."""
        if self.device.type == "cuda":
            return self._denoised_on_gpu(image, noise)
        mean, spread = torch.empty_like(image), torch.empty_like(image)

        @torch.inference_mode()
        def denoise_one(index: int) -> None:
            one = slice(index, index + 1)
            mean[one], spread[one] = self._denoised(image[one], noise)

        self._side_by_side.map(denoise_one, range(len(image)))
        return Estimate(mean=mean, spread=spread)

    def _denoised_on_gpu(self, image: Image, noise: NoiseProfile) -> Estimate:
        """All slices in one batch; copies go through pinned memory and wait for nobody."""
        there = image.pin_memory().to(self.device, non_blocking=True)
        results = self._denoised(there, noise)
        mean, spread = (torch.empty_like(image).pin_memory() for _ in results)
        for here, result in zip((mean, spread), results, strict=True):
            here.copy_(result, non_blocking=True)
        torch.cuda.current_stream(self.device).synchronize()
        return Estimate(mean=mean, spread=spread)

    def _denoised(self, image: Image, noise: NoiseProfile) -> tuple[Image, Image]:
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, self.network.multiple)
        sigma = noise.sigma_map(padded)
        correlation = noise.correlation().to(image.device).expand(len(image), -1)
        residual, log_variance = bounded(*self._planes(network_input(padded, sigma, correlation)))
        mean = padded - sigma * residual
        spread = sigma * (0.5 * log_variance).exp()
        return mean[..., :height, :width], spread[..., :height, :width]

    def _planes(self, seen: Seen) -> tuple[Planes, Planes]:
        """The engine's planes of the whole image, tile by tile where it is large."""
        height, width = seen.shape[-2:]
        if max(height, width) <= self._tile:
            return self.engine.run(seen)
        multiple = self.network.multiple // 2
        overlap = multiple * math.ceil(self.network.reach / multiple)
        shape = (len(seen), 4, height, width)
        whole = seen.new_empty(shape), seen.new_empty(shape)

        @torch.inference_mode()
        def run_tile(place: tuple[tuple[slice, slice], tuple[slice, slice]]) -> None:
            (rows, inner_rows), (columns, inner_columns) = place
            tile = self.engine.run(seen[..., rows, columns])
            y, x = inside(inner_rows, rows), inside(inner_columns, columns)
            for plane, part in zip(whole, tile, strict=True):
                plane[..., inner_rows, inner_columns] = part[..., y, x]

        down = spans(height, self._tile, overlap, multiple)
        places = list(product(down, list(spans(width, self._tile, overlap, multiple))))
        self._side_by_side.map(run_tile, places)
        return whole


def pad_to_multiple(
    image: Image, multiple: int
) -> Float[Tensor, "batch 1 padded_height padded_width"]:
    """Continue the image below and right: mirrored, or repeated where it is too small."""
    height, width = image.shape[-2:]
    down = math.ceil(height / multiple) * multiple - height
    right = math.ceil(width / multiple) * multiple - width
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, down), mode=mode) if down or right else image
