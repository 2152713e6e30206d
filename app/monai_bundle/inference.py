"""Classes of `configs/inference.yaml`: a dataset of slices with their noise, and an evaluator.

Series are found, scaled and measured by the functions of the application. The results are the
network's own estimate: gate and strength belong to `stillscan denoise`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stillscan.app.datasets.noisy_folder import find_sources
from stillscan.app.datasets.noisy_series import Padding, Pixels, SeriesSource
from stillscan.app.monai_bundle.results import save_result
from stillscan.models.noise.noise_free import exact_places
from stillscan.models.noise.profile import NoiseProfile
from stillscan.models.one_tensor import input_planes
from stillscan.operators.denoising.intensity import Scaling, without_padding
from stillscan.operators.denoising.plan import measure_noise, sample_of
from stillscan.operators.denoising.repeats import acquired_again
from stillscan.operators.errors import InputError, NothingToDoError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.volume import unit_of

log = logging.getLogger("stillscan")

Inferer = Callable[[Tensor, nn.Module], Tensor]


@dataclass(frozen=True)
class MeasuredSeries:
    """A series with its scaling and noise profile."""

    source: SeriesSource
    scaling: Scaling
    noise: NoiseProfile


class SeriesDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """The slices of every series of a folder as inputs of `OneTensorStudent`.

    An item has `image` (the channels, padded to the network's multiple), `series` and `slice`. A
    series that cannot be used is logged and left out.

    Args:
        folder: folder with DICOM, NIfTI, PNG or npz files.
        modality: modality of files that do not state it.
        multiple: divisor of height and width after padding.

    Raises:
        NothingToDoError: if there is no usable series.
    """

    def __init__(self, folder: str | Path, modality: str = "", multiple: int = 8) -> None:
        self.multiple = multiple
        self._decoder = Decoder()
        sources, refused, _ = find_sources(
            Path(folder), self._decoder, SelectionRules(), modality or ""
        )
        for each in refused:
            log.warning("not used (%s): %s", each.reason, each.message)
        self.series = tuple(_measured(sources))
        if not self.series:
            self.close()
            raise NothingToDoError(f"{folder} contains no series that can be denoised")
        self._slices = [
            (number, index)
            for number, series in enumerate(self.series)
            for index in range(len(series.source.sizes))
        ]
        self._open: tuple[int, list[tuple[Pixels, Padding]]] = (-1, [])

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self._slices)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return one slice."""
        which, index = self._slices[number]
        series = self.series[which]
        pixels, padding = self.pixels(which, index)
        image = torch.from_numpy(series.scaling.to_network(without_padding(pixels, padding)))
        planes = input_planes(image, series.noise, self.multiple)
        return {"image": planes, "series": which, "slice": index}

    def pixels(self, which: int, index: int) -> tuple[Pixels, Padding]:
        """Return a slice in modality units; its series is read once."""
        if self._open[0] != which:
            source = self.series[which].source
            self._open = (which, list(source.read(range(len(source.sizes)))))
        return self._open[1][index]

    def close(self) -> None:
        """Stop the process that reads DICOM."""
        self._decoder.close()


@dataclass
class SeriesEvaluator:
    """Runs the network over a dataset and writes each series when it is complete.

    Args:
        dataset: the slices.
        network: the network of `configs/inference.yaml`.
        inferer: applies the network to a slice, whole or in windows.
        device: torch device of the network.
        output_dir: folder for one file per series, float32, in the unit of the input.
        save_spread: also write the standard deviation of the error.
    """

    dataset: SeriesDataset
    network: nn.Module
    inferer: Inferer
    device: torch.device | str
    output_dir: str | Path
    save_spread: bool = False

    def run(self) -> list[Path]:
        """Denoise every series and return the files that were written."""
        written: list[Path] = []
        means: list[Pixels] = []
        spreads: list[Pixels] = []
        for number in range(len(self.dataset)):
            item = self.dataset[number]
            series = self.dataset.series[item["series"]]
            mean, spread = self.denoise(item)
            means.append(mean)
            spreads.append(spread)
            if len(means) == len(series.source.sizes):
                written += save_result(series.source, means, Path(self.output_dir), "denoised")
                if self.save_spread:
                    written += save_result(series.source, spreads, Path(self.output_dir), "spread")
                log.info("%d slices written to %s", len(means), written[-1])
                means, spreads = [], []
        return written

    @torch.inference_mode()
    def denoise(self, item: dict[str, Any]) -> tuple[Pixels, Pixels]:
        """Estimate one slice and the standard deviation of its error, in the unit of the input."""
        scaling = self.dataset.series[item["series"]].scaling
        pixels, padding = self.dataset.pixels(item["series"], item["slice"])
        rows, columns = pixels.shape
        planes = item["image"][None].to(self.device)
        estimate = self.inferer(planes, self.network)[0].float().cpu()
        mean, spread = estimate[:, :rows, :columns].numpy()
        before = scaling.to_network(without_padding(pixels, padding))
        exact = padding | exact_places(torch.from_numpy(before)).numpy()
        unit = np.float32(1 / scaling.gain)
        quiet = np.where(exact, pixels, pixels + (mean - before) * unit)
        return quiet.astype(np.float32), np.where(exact, 0, spread * unit).astype(np.float32)


def _measured(sources: list[SeriesSource]) -> Iterator[MeasuredSeries]:
    """Yield the series with scaling and noise from the application's sample of slices."""
    for source in sources:
        indices = sample_of(len(source.sizes))
        again = acquired_again(source.places or [None] * len(source.sizes), indices)
        try:
            found = list(source.read(indices))
            others = iter(list(source.read([index for index in again if index is not None])))
            scaling, noise = measure_noise(
                unit_of(source.modality),
                [pixels for pixels, _ in found],
                [mask for _, mask in found],
                [None if index is None else next(others) for index in again],
            )
        except InputError as error:
            log.warning("not used (%s): %s: %s", error.reason, source.name, error)
            continue
        yield MeasuredSeries(source, scaling, noise)
