"""Writes a derived series: staged instance by instance, published whole or not at all (W1-W12).

    with SeriesWriter(volume, provenance, staging_folder, options) as writer:
        for block in denoised_blocks:
            writer.add(block)
        series = writer.finish()

The application moves `series.folder` into its output when all series are staged; `derive_series`
does so for one series. A writer that does not finish leaves no files behind.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from jaxtyping import Float32
from pydicom import Dataset

from stillscan.operators.dicom.attributes import text_of
from stillscan.operators.durable_files import sync
from stillscan.operators.errors import (
    ClippedPixelsError,
    IncompleteSeriesError,
    MeanMovedError,
    NothingChangedError,
)
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.volume import Volume, VolumeBlock
from stillscan.operators.writing.derived_file import DerivedInstance, put_range, write_file
from stillscan.operators.writing.derived_header import (
    OutputOptions,
    SeriesHeader,
    series_instance_uid,
)
from stillscan.operators.writing.pixel_encoding import syntax_for
from stillscan.operators.writing.provenance import Provenance
from stillscan.operators.writing.stored_values import (
    Change,
    PixelFormat,
    Stored,
    pixel_format,
    store_slice,
)

__all__ = [
    "DerivedSeries",
    "OutputOptions",
    "SeriesWriter",
    "derive_series",
]

MAX_CLIPPED_SHARE = 0.001  # W7
MAX_MEAN_SHIFT_HU = 2.0  # W12
MAX_MEAN_SHIFT_SHARE = 0.005  # W12, of the series' range of values


class Denoised(Protocol):
    """The part of a `DenoisedBlock` that `SeriesWriter` needs."""

    @property
    def block(self) -> VolumeBlock:
        """Return the block of the source series."""

    @property
    def pixels(self) -> Float32[np.ndarray, "slice row column"]:
        """Return the denoised values, in modality units."""


@dataclass(frozen=True)
class DerivedSeries:
    """A complete derived series on disk.

    Attributes:
        series_instance_uid: of the derived series, also the name of its folder unless the run
            gives another.
        series_number: None where the source has none.
        folder: with one file per instance, named by SOPInstanceUID.
        instances: number of instances: one for each of the volume.
        sop_instance_uids: of the instances, in the order of the volume.
        clipped_share: share of the pixels (without padding) clipped to the stored bits.
        changed_share: share of the pixels (without padding) that differ from the source.
        mean_shift: the largest |mean derived - mean source| of a slice, in modality units.
    """

    series_instance_uid: str
    series_number: int | None
    folder: Path
    instances: int
    sop_instance_uids: tuple[str, ...]
    clipped_share: float
    changed_share: float
    mean_shift: float

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the instances' files, in the order of the volume."""
        return tuple(self.folder / f"{uid}.dcm" for uid in self.sop_instance_uids)


def derive_series(
    blocks: Iterable[Denoised],
    volume: Volume,
    provenance: Provenance,
    folder: Path,
    options: OutputOptions | None = None,
) -> DerivedSeries:
    """Write the derived series of `volume` into `folder/<its SeriesInstanceUID>/`.

    Args:
        blocks: the denoised blocks of the volume, from its first slice to its last.
        volume: the source.
        provenance: what was done to it.
        folder: where the derived series is published.
        options: how derived series are marked.

    Raises:
        ResultError: if the derived series fails a check; `folder` is left as it was.
        OutputError: if it cannot be written; `folder` is left as it was.
    """
    with naming_output_faults("make a staging folder"):
        folder.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(prefix=".stillscan-", dir=folder)
    with staging, SeriesWriter(volume, provenance, Path(staging.name), options) as writer:
        for block in blocks:
            writer.add(block)
        series = writer.finish()
        published = folder / series.series_instance_uid
        with naming_output_faults("publish a series"):
            if volume.beside:  # other images of the series may be there
                published.mkdir(exist_ok=True)
                for file in series.files:
                    file.replace(published / file.name)
                sync(published)
            else:
                if published.exists():  # the same UID says that it has the same content
                    published.rename(Path(staging.name) / "replaced")
                series.folder.rename(published)
            sync(folder)
    return replace(series, folder=published)


class SeriesWriter:
    """Writes a derived series into a staging folder, block by block.

    Paths are made of new UIDs only, never of text from the source. `discard` removes everything, as
    does any error in `add` or `finish`, and leaving the `with` before `finish`.
    """

    def __init__(
        self,
        volume: Volume,
        provenance: Provenance,
        staging_folder: Path,
        options: OutputOptions | None = None,
        header: SeriesHeader | None = None,
    ) -> None:
        """Create the folder of the series in `staging_folder`; an image alone may find it there.

        Args:
            volume: the source.
            provenance: what was done to it.
            staging_folder: where the folder of the series is made.
            options: how derived series are marked.
            header: of the image before, which gives what images of one derived series share.

        Raises:
            OutputError: if the folder cannot be created.
        """
        self._volume = volume
        self._provenance = provenance
        self._options = options or OutputOptions()
        self.series_instance_uid = series_instance_uid(volume, provenance, self._options)
        self.folder = staging_folder / self.series_instance_uid
        same = header is not None and header.series_instance_uid == self.series_instance_uid
        self.header = header if same else None
        self._written: list[str] = []  # SOPInstanceUIDs
        self._instance: DerivedInstance | None = None  # some of its frames have been added
        self._tiles: list[Stored] = []  # of a mosaic that is not complete
        self._changes: list[Change] = []
        self._syncing: list[Future[None]] = []
        self._disk = ThreadPoolExecutor(max_workers=1)  # syncs files meanwhile
        self._finished = False
        with naming_output_faults("make the folder of a series"):
            self.folder.mkdir(exist_ok=bool(volume.beside))

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Discard a series that was not finished."""
        if not self._finished:
            self.discard()

    def add(self, denoised: Denoised) -> list[Stored]:
        """Derive and write the images of the next block; return their stored values.

        Raises:
            ResultError: if a pixel is not a number.
            OutputError: if an image cannot be written.
        """
        with self._discarding_on_error():
            block = denoised.block
            if block.start != len(self._changes):
                raise IncompleteSeriesError(
                    f"slice {block.start + 1} came where slice {len(self._changes) + 1} was "
                    "expected; a derived series has all slices of its source, in order"
                )
            if self.header is None:
                self.header = SeriesHeader(
                    block.headers[0], self._volume, self._provenance, self._options
                )
            return [
                self._add_slice(self.header, block, denoised.pixels[index], index)
                for index in range(len(block.headers))
            ]

    def finish(self) -> DerivedSeries:
        """Check the series as a whole and wait until it is on the disk.

        Raises:
            ResultError: if the series fails a check: a slice is missing, more than 0.1 % of the
                pixels were clipped, a mean moved, or nothing was changed.
            OutputError: if the file system reports an error.
        """
        with self._discarding_on_error():
            self._require_all_slices()
            self._require_few_clipped()
            self._require_steady_mean()
            self._require_change()
            with naming_output_faults("write a series"):
                for synced in self._syncing:
                    synced.result()
                sync(self.folder)
        self._disk.shutdown()
        self._finished = True
        assert self.header is not None, "a series with all its slices has a header"
        return DerivedSeries(
            series_instance_uid=self.series_instance_uid,
            series_number=self.header.series_number,
            folder=self.folder,
            instances=len(self._written),
            sop_instance_uids=tuple(self._written),
            clipped_share=self._share(each.clipped for each in self._changes),
            changed_share=self._share(each.changed for each in self._changes),
            mean_shift=max(abs(each.mean_shift) for each in self._changes),
        )

    def discard(self) -> None:
        """Remove everything that this writer has written."""
        if self._instance is not None:
            self._instance.close()
        self._disk.shutdown(cancel_futures=True)
        if self._volume.beside:
            for uid in self._written:
                (self.folder / f"{uid}.dcm").unlink(missing_ok=True)
            with suppress(OSError):  # an image of the series that was derived before is in it
                self.folder.rmdir()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _add_slice(
        self,
        header: SeriesHeader,
        block: VolumeBlock,
        pixels: Float32[np.ndarray, "row column"],
        index: int,
    ) -> Stored:
        source = self._volume.slices[block.start + index]
        layout = pixel_format(block.headers[index], source.padding)
        stored, change = store_slice(
            block.stored[index],
            block.pixels[index],
            pixels,
            block.padding[index],
            source.slope,
            source.intercept,
            layout,
        )
        self._changes.append(change)
        frame, image, mosaic = source.frame, stored, self._volume.mosaic
        if mosaic is not None:
            self._tiles.append(stored)
            if len(self._tiles) < mosaic.tiles:
                return stored
            frame, image, self._tiles = 0, mosaic.join(self._tiles), []
        with naming_output_faults("write an image"):
            if self._instance is None:
                self._instance = self._new_instance(block, index, layout)
            self._instance.add(frame, image)
            if self._instance.is_complete:
                self._write(self._instance, header.derive(block.headers[index]), layout)
                self._instance = None
        return stored

    def _new_instance(self, block: VolumeBlock, index: int, layout: PixelFormat) -> DerivedInstance:
        """Return an empty instance for the slice `index`, its first."""
        first = block.start + index
        frames = 1 if self._volume.mosaic else self._volume.slices[first].frames
        slices = self._volume.slices[first : first + frames]
        layouts = [replace(layout, padding=each.padding) for each in slices]
        syntax = syntax_for(self._options.transfer_syntax, layouts)
        return DerivedInstance(frames, self.folder, syntax, layout)

    def _write(self, instance: DerivedInstance, derived: Dataset, layout: PixelFormat) -> None:
        put_range(derived, *instance.range, layout)
        uid = text_of(derived, "SOPInstanceUID")
        file = self.folder / f"{uid}.dcm"
        write_file(file, instance.part10(derived, self._provenance.version))
        instance.close()
        self._syncing.append(self._disk.submit(sync, file))
        self._written.append(uid)

    def _require_all_slices(self) -> None:
        derived, slices = len(self._changes), len(self._volume.slices)
        if derived != slices or derived == 0 or self._instance is not None or self._tiles:
            raise IncompleteSeriesError(
                f"{derived} of {slices} slices were derived; all are needed"
            )

    def _require_few_clipped(self) -> None:
        clipped = self._share(each.clipped for each in self._changes)
        if clipped > MAX_CLIPPED_SHARE:
            raise ClippedPixelsError(
                f"{clipped:.2%} of the denoised pixels do not fit into the stored bits of the "
                f"source; at most {MAX_CLIPPED_SHARE:.1%} may be clipped"
            )

    def _require_steady_mean(self) -> None:
        limit, unit = self._mean_shift_limit()
        for number, change in enumerate(self._changes, start=1):
            if abs(change.mean_shift) > limit:
                raise MeanMovedError(
                    f"the mean of slice {number} moved by {change.mean_shift:.4g}; "
                    f"at most {limit:.4g} ({unit}) is allowed"
                )

    def _mean_shift_limit(self) -> tuple[float, str]:
        if self._volume.unit == "HU":
            return MAX_MEAN_SHIFT_HU, "2 HU"
        real = [each for each in self._changes if each.real]
        low = min((each.low for each in real), default=0.0)
        high = max((each.high for each in real), default=0.0)
        return MAX_MEAN_SHIFT_SHARE * (high - low), f"{MAX_MEAN_SHIFT_SHARE:.1%} of the range"

    def _require_change(self) -> None:
        if not self._provenance.is_control and not any(each.changed for each in self._changes):
            raise NothingChangedError(
                "no stored value differs from the source; a copy may not be labelled as denoised"
            )

    def _share(self, pixels: Iterable[int]) -> float:
        """Return a number of pixels as a share of all pixels without padding."""
        return sum(pixels) / max(sum(each.real for each in self._changes), 1)

    @contextmanager
    def _discarding_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.discard()
            raise
