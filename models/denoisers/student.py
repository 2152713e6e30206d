"""The student network as a `Denoiser`: engine, tiles, padding."""

from __future__ import annotations

import math
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stillscan.models.denoisers.denoiser import Estimate
from stillscan.models.engines.engine import Engine, Precision, TorchEngine
from stillscan.models.engines.one_thread_per_slice import SideBySide
from stillscan.models.engines.tiling import inside, spans
from stillscan.models.networks.precision import computes_bfloat16
from stillscan.models.networks.student import (
    Image,
    Planes,
    Seen,
    StudentNetwork,
    bounded,
    network_input,
)
from stillscan.models.noise.profile import NoiseProfile


class StudentDenoiser:
    """A student network and the engine that computes its convolutions.

    On a CPU each slice is processed by itself, on one thread: the output of a layer is still in the
    cache for the next. A large image is cut into tiles of one shape that overlap as far as an
    output depends on the input, so that memory is bounded and there are no seams. The network's
    input is computed before the cut.

    Args:
        network: the student with its weights.
        device: torch device.
        precision: precision of torch's products; None: bfloat16 where the device computes it.
        engine: inference backend in place of torch.
        tile: largest side that is not cut, in half-resolution pixels; None: the engine's `piece`.
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
        """Device on which it computes."""
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
        """Denoise all slices in one batch; copies use pinned memory and are asynchronous."""
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
        """Compute the planes of the whole image, in tiles if it is large."""
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
    """Pad the image below and right: mirrored, or repeated if it is too small for that."""
    height, width = image.shape[-2:]
    down = math.ceil(height / multiple) * multiple - height
    right = math.ceil(width / multiple) * multiple - width
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, down), mode=mode) if down or right else image
