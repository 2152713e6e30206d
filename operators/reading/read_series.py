"""Finds the series of a folder, and opens a series as a volume whose pixels are read in blocks.

with Decoder() as decoder:
    catalogue = find_series(folder, decoder, SelectionRules())
    for candidate in catalogue.candidates:
        volume = read_series(candidate, decoder)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom import Dataset

from stillscan.operators.errors import (
    EmptyFileError,
    FileChangedError,
    InputError,
    InvalidAttributeError,
    InvalidUidError,
    MissingUidError,
    NotDicomError,
)
from stillscan.operators.geometry import Plane
from stillscan.operators.internal_fault import InternalFaultError, setting_aside
from stillscan.operators.mosaic import Mosaic
from stillscan.operators.reading.consistency import (
    require_one_matrix,
    require_one_patient,
    require_one_photometric,
    require_one_pixel_format,
    require_one_series,
    require_one_study,
    without_duplicates,
)
from stillscan.operators.reading.decoder import DecodedFrame, Decoder, Scanned
from stillscan.operators.reading.file_names import shown
from stillscan.operators.reading.image_kinds import mentioned_in
from stillscan.operators.reading.input_files import input_files
from stillscan.operators.reading.records import (
    FrameAttributes,
    Identification,
    ImageAttributes,
    Instance,
    SeriesName,
)
from stillscan.operators.reading.selection import (
    RADIOGRAPHS,
    NotSelected,
    SelectionRules,
    name_of_uid,
    why_not_an_image_to_denoise,
    why_not_by_header,
    why_not_selected,
)
from stillscan.operators.reading.slice_order import PlacedSlice, in_space
from stillscan.operators.reading.unused_bits import without_unused_bits
from stillscan.operators.volume import Place, SliceHeader, Timing, Volume

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
NOTHING_HELD: tuple[Path | None, Dataset] = (None, Dataset())
NO_INPUT = (EmptyFileError, NotDicomError)
NAMELESS = (MissingUidError, InvalidUidError)
LeftOut = tuple[Scanned, NotSelected]


@dataclass(frozen=True)
class Candidate:
    """A selected, consistent series (one patient, one matrix, one unit), or one radiograph of it.

    Attributes:
        instances: without duplicates, in the order of their paths.
        warnings: warnings about duplicates that were left out.
        beside: SOPInstanceUIDs of the other images of the series, if each is a separate candidate
            (radiographs).
        left_out: description of the images of the series that are not denoised; "" for none.
        correction: how often its patient or order had been corrected before.
    """

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    why: str
    instances: tuple[Instance, ...]
    sibling_series_numbers: frozenset[int]
    warnings: tuple[str, ...] = ()
    beside: frozenset[str] = frozenset()
    left_out: str = ""
    correction: int = 0

    @property
    def sop_instance_uid(self) -> str:
        """SOPInstanceUID of the radiograph; "" if the candidate is a whole series."""
        return self.instances[0].known.sop_instance_uid if self.beside else ""

    @property
    def name(self) -> SeriesName:
        """What the header calls the series."""
        return self.instances[0].known.name

    @property
    def slices(self) -> int:
        """Number of images (frames)."""
        return sum(len(instance.frames) for instance in self.instances)


@dataclass(frozen=True)
class Refusal:
    """A series, one radiograph of it, or files without a series, that will not be processed.

    Attributes:
        series_instance_uid: None if the files do not contain it.
        reason: a stable code.
        message: names the first file concerned; without patient data.
        by_rules: the selection rules exclude it; nothing is wrong with it.
        name: what the header calls the series; None if it cannot be read.
        sop_instance_uid: of the radiograph; "" if it is a whole series.
    """

    series_instance_uid: str | None
    files: tuple[Path, ...]
    reason: str
    message: str
    by_rules: bool = False
    modality: str = ""
    sop_instance_uid: str = ""
    name: SeriesName | None = None


@dataclass(frozen=True)
class Catalogue:
    """The contents of a folder.

    Attributes:
        candidates: series to read.
        refused: series that are not selected, or cannot be processed.
        skipped: files that are not images (other formats, indexes, reports), and images of a
            candidate's series that are not denoised.
    """

    candidates: tuple[Candidate, ...]
    refused: tuple[Refusal, ...]
    skipped: tuple[Refusal, ...]


def find_series(source: Path, decoder: Decoder, rules: SelectionRules) -> Catalogue:
    """Read the header of every file under a folder and group the files into series.

    Series are independent: a fault of one does not affect the others.
    """
    found = input_files(source)
    refused = [_refused_file(path, error) for path, error in found.passed_over]
    skipped: list[Refusal] = []
    series: dict[str, list[Scanned]] = defaultdict(list)
    for scanned in decoder.scan(found.files):
        not_an_image = _why_skipped(scanned)
        if not_an_image is not None:
            skipped.append(_skipped_file(scanned.path, not_an_image))
        elif scanned.known is None:
            assert scanned.fault is not None
            refused.append(_refused_file(scanned.path, scanned.fault))
        elif isinstance(scanned.fault, NAMELESS):
            series[str(scanned.path)].append(scanned)  # of no series: it stands alone
        else:
            series[scanned.known.series_instance_uid].append(scanned)
    numbers = _series_numbers(series.values())
    candidates: list[Candidate] = []
    for instances in series.values():
        found_here, left_out = _candidates_and_refusals(instances, rules, numbers, decoder)
        chosen = [each for each in found_here if isinstance(each, Candidate)]
        candidates += chosen
        refused += [each for each in found_here if isinstance(each, Refusal)]
        told = {path for each in found_here if isinstance(each, Refusal) for path in each.files}
        skipped += [_skipped_file(one.path, why) for one, why in left_out if one.path not in told]
    return Catalogue(tuple(candidates), tuple(refused), tuple(skipped))


def read_series(candidate: Candidate, decoder: Decoder) -> Volume:
    """Open the instances of one series as a volume; pixels are read when they are needed.

    Returns:
        The volume, with slices ordered by stack, repetition and position along the slice normal;
        every frame of every instance once.
    """
    placed, unusual = in_space(candidate.instances)
    cleared: set[SliceHeader] = set()
    first = candidate.instances[0]
    mosaic = _mosaic(candidate.instances)
    slices = [_slice_header(each) for each in placed]
    if mosaic is not None:
        slices = [tile for each in slices for tile in _tiles(each, mosaic)]
    return Volume(
        study_instance_uid=candidate.study_instance_uid,
        series_instance_uid=candidate.series_instance_uid,
        sop_class_uid=first.known.sop_class_uid,
        modality=candidate.modality,
        rows=mosaic.rows if mosaic else first.image.rows,
        columns=mosaic.columns if mosaic else first.image.columns,
        unit=first.frames[0].unit or "1",
        slices=tuple(slices),
        reader=SeriesReader(decoder, candidate.instances, cleared, mosaic),
        mosaic=mosaic,
        cleared=cleared,
        sibling_series_numbers=candidate.sibling_series_numbers,
        beside=candidate.beside,
        left_out=candidate.left_out,
        correction=candidate.correction,
        warnings=(
            *candidate.warnings,
            *unusual,
            *_warnings_of_description(first.known),
            *_warnings_of_mosaic(candidate.instances, mosaic),
        ),
    )


def _warnings_of_description(known: Identification) -> Iterator[str]:
    """Warn if only the description suggests that the series is a quantitative map."""
    word = mentioned_in(known.series_description)
    if word and known.modality in ("MR", "CT", "PT"):
        yield f"SeriesDescription contains {word}: check whether this is a quantitative map"


def _mosaic(instances: Sequence[Instance]) -> Mosaic | None:
    """Layout of the tiles; None if the images are not mosaics, or of different layouts."""
    known, image = instances[0].known, instances[0].image
    if any(each.known.tiles != known.tiles or each.image.frames > 1 for each in instances):
        return None
    square = "MOSAIC" in map(str.upper, known.image_type)
    return Mosaic.of(known.tiles, image.rows, image.columns, square=square)


def _warnings_of_mosaic(instances: Sequence[Instance], mosaic: Mosaic | None) -> Iterator[str]:
    if mosaic is None and any(each.known.tiles for each in instances):
        yield (
            "the images are mosaics whose tiles do not fit into Rows and Columns, or differ from "
            "image to image: each image was denoised as one slice"
        )


def _tiles(picture: SliceHeader, mosaic: Mosaic) -> Iterator[SliceHeader]:
    """The slices of a mosaic; standard attributes do not contain their positions."""
    plane = Plane(spacing_mm=picture.plane.spacing_mm, thickness_mm=picture.plane.thickness_mm)
    for tile in range(mosaic.tiles):
        place = None if picture.place is None else (*picture.place, tile)
        yield replace(
            picture, frame=tile, frames=mosaic.tiles, position=None, place=place, plane=plane
        )


class SeriesReader:
    """Reads slices of one series through the decoder and checks that the files are unchanged."""

    def __init__(
        self,
        decoder: Decoder,
        instances: Iterable[Instance],
        cleared: set[SliceHeader],
        mosaic: Mosaic | None,
    ) -> None:
        """`instances` are those whose slices can be read; other arguments as in `Volume`."""
        self._decoder = decoder
        self._mosaic = mosaic
        self._cleared = cleared
        self._instances = {instance.path: instance for instance in instances}
        self._held = NOTHING_HELD  # the header of the last file, if it has more frames

    def read(self, slices: Sequence[SliceHeader]) -> tuple[list[Dataset], np.ndarray]:
        """Headers (without pixel data) and stored values [slice, row, column] of these slices.

        Raises:
            InputError: if a slice cannot be decoded, or its file was changed.
        """
        image = self._instances[slices[0].path].image
        wanted = [(each.path, 0 if self._mosaic else each.frame) for each in slices]
        path, header = self._held
        once = list(dict.fromkeys(wanted))
        frames = dict(
            zip(once, self._decoder.read(once, image.frame_bytes, held=path), strict=True)
        )
        headers: list[Dataset] = []
        rows, columns = self._shape(image)
        stored = np.empty((len(slices), rows, columns), image.dtype)
        before = None
        for slice_, key, values in zip(slices, wanted, stored, strict=True):
            frame = frames[key]
            _require_unchanged(frame, slice_)
            if frame.header and key != before:
                header = frame.dataset()
            before = key
            headers.append(header)
            picture = np.frombuffer(frame.stored, image.dtype).reshape(image.rows, image.columns)
            values[...] = self._slice_of(picture, slice_)
            if without_unused_bits(values, self._instances[slice_.path], slice_):
                self._cleared.add(slice_)
        self._held = (slices[-1].path, header) if slices[-1].frames > 1 else NOTHING_HELD
        return headers, stored

    def _shape(self, image: ImageAttributes) -> tuple[int, int]:
        mosaic = self._mosaic
        return (mosaic.rows, mosaic.columns) if mosaic else (image.rows, image.columns)

    def _slice_of(self, picture: np.ndarray, slice_: SliceHeader) -> np.ndarray:
        if self._mosaic is None:
            return picture
        if not self._mosaic.is_empty_beyond(picture):
            raise InvalidAttributeError(
                f"{shown(slice_.path)}: the mosaic holds more than the {self._mosaic.tiles} slices "
                "that its header states"
            )
        return self._mosaic.tile(picture, slice_.frame)


def _require_unchanged(frame: DecodedFrame, slice_: SliceHeader) -> None:
    if frame.sop_instance_uid != slice_.sop_instance_uid:
        raise FileChangedError(
            f"{shown(slice_.path)} was changed: it no longer contains the instance "
            f"{slice_.sop_instance_uid}"
        )


def _slice_header(placed: PlacedSlice) -> SliceHeader:
    known, frame = placed.instance.known, placed.attributes
    return SliceHeader(
        path=placed.instance.path,
        frame=placed.frame,
        sop_instance_uid=known.sop_instance_uid,
        instance_number=known.instance_number,
        position=placed.position,
        slope=frame.slope,
        intercept=frame.intercept,
        padding=frame.padding,
        frames=placed.instance.image.frames,
        place=_place(frame),
        plane=_plane(frame),
        timing=Timing(*frame.timing),
    )


def _plane(frame: FrameAttributes) -> Plane:
    spacing_mm, thickness_mm = frame.spacing or (1.0, 1.0), frame.thickness or 1.0
    if frame.position is None or frame.orientation is None:
        return Plane(spacing_mm=spacing_mm, thickness_mm=thickness_mm)
    return Plane(frame.position, *frame.orientation, spacing_mm, thickness_mm)


def _place(frame: FrameAttributes) -> Place | None:
    """Position in micrometres and direction cosines in thousandths, as whole numbers."""
    if frame.position is None or frame.orientation is None:
        return None
    numbers = (*frame.position, *frame.orientation[0], *frame.orientation[1])
    return tuple(round(1000 * number) for number in numbers)


def _why_skipped(scanned: Scanned) -> NotSelected | None:
    """Why a file is not an image; None for images, also for damaged ones."""
    if scanned.path.name.upper() == "DICOMDIR":
        return NotSelected("dicomdir", "is an index of a medium")
    known = scanned.known
    if known is None:
        fault = scanned.fault
        return NotSelected(fault.reason, str(fault)) if isinstance(fault, NO_INPUT) else None
    if known.sop_class_uid == MEDIA_STORAGE_DIRECTORY:
        return NotSelected("dicomdir", "is an index of a medium")
    name = name_of_uid(known.sop_class_uid)
    if known.sop_class_uid and "Image Storage" not in name:
        return NotSelected("not-an-image", f"contains no image: SOPClassUID is {name}")
    return None


def _candidates_and_refusals(
    instances: Sequence[Scanned],
    rules: SelectionRules,
    numbers: Mapping[str, frozenset[int]],
    decoder: Decoder,
) -> tuple[list[Candidate | Refusal], list[LeftOut]]:
    """Candidates and refusals of a series or its radiographs, and the images left out."""
    try:
        with setting_aside():
            left_out = [(each, why) for each in instances if (why := _why_left_out(each, rules))]
            return _sorted_out(instances, left_out, numbers, decoder), left_out
    except InternalFaultError as error:
        fault = _refused_series(instances, instances[0], error.reason, str(error))
        return [fault], []


def _why_left_out(scanned: Scanned, rules: SelectionRules) -> NotSelected | None:
    """Why an image of a series is not denoised; checked before its faults."""
    known, instance = scanned.known, scanned.instance
    if known is None:
        return None
    kind = why_not_an_image_to_denoise(known, rules)
    if kind is not None:
        return kind
    return why_not_selected(instance, rules) if instance else why_not_by_header(known, rules)


def _sorted_out(
    instances: Sequence[Scanned],
    left_out: Sequence[LeftOut],
    numbers: Mapping[str, frozenset[int]],
    decoder: Decoder,
) -> list[Candidate | Refusal]:
    """The series as a candidate without the images left out, or its refusal; or radiographs."""
    if len(left_out) == len(instances):
        first, why = left_out[0]
        return [_refused_series(instances, first, why.reason, why.message, by_rules=True)]
    others = {scanned.path for scanned, _ in left_out}
    kept = [scanned for scanned in instances if scanned.path not in others]
    reasons = ", ".join(sorted({why.reason for _, why in left_out}))
    words = f"left out: {len(left_out)} of {len(instances)} images ({reasons})" if left_out else ""
    alone = all(each.known is not None and each.known.modality in RADIOGRAPHS for each in kept)
    for scanned in kept:
        fault = scanned.fault
        if fault is not None and not alone:
            return [_refused_series(instances, scanned, fault.reason, str(fault))]
    try:
        require_one_patient([each for one in instances if (each := one.instance) is not None])
        if alone:
            return _each_alone(kept, words, numbers, decoder)
        sound = [each for scanned in kept if (each := scanned.instance) is not None]
        require_one_series(sound)
        require_one_matrix(sound)
        require_one_photometric(sound)
        require_one_pixel_format(sound)
        once, copies = without_duplicates(sound, decoder)
    except InputError as error:
        return [_refused_series(instances, kept[0], error.reason, str(error))]
    return [_candidate(once, numbers, copies, words)]


def _each_alone(
    kept: Sequence[Scanned], left_out: str, numbers: Mapping[str, frozenset[int]], decoder: Decoder
) -> list[Candidate | Refusal]:
    """Each radiograph of a series as a separate candidate, or its refusal.

    Raises:
        InputError: if they belong to several studies, so that one derived series is impossible.
    """
    require_one_study([each for one in kept if (each := one.instance) is not None])
    alone = len(kept) > 1
    refused: list[Refusal] = []
    chosen: dict[str, Candidate] = {}
    by_uid: dict[str, list[Scanned]] = defaultdict(list)
    for scanned in kept:
        fault, known = scanned.fault, scanned.known
        assert known is not None, "only a file of a series comes here"
        if fault is None:
            by_uid[known.sop_instance_uid].append(scanned)
        else:
            refused.append(
                _refused_series([scanned], scanned, fault.reason, str(fault), alone=alone)
            )
    for uid, same in by_uid.items():
        try:
            sound = [each for one in same if (each := one.instance) is not None]
            once, copies = without_duplicates(sound, decoder)
            chosen[uid] = _candidate(once, numbers, copies, left_out)
        except InputError as error:
            refused.append(_refused_series(same, same[0], error.reason, str(error), alone=alone))
    others = frozenset(chosen)
    return [*(replace(each, beside=others - {uid}) for uid, each in chosen.items()), *refused]


def _refused_series(
    instances: Sequence[Scanned],
    first: Scanned,
    reason: str,
    message: str,
    *,
    by_rules: bool = False,
    alone: bool = False,
) -> Refusal:
    known = first.known
    assert known is not None
    nameless = isinstance(first.fault, NAMELESS)
    return Refusal(
        series_instance_uid=None if nameless else known.series_instance_uid,
        files=tuple(scanned.path for scanned in instances),
        reason=reason,
        message=f"{shown(first.path)}: {message}",
        by_rules=by_rules,
        modality=known.modality,
        sop_instance_uid=known.sop_instance_uid if alone else "",
        name=known.name,
    )


def _refused_file(path: Path, error: InputError) -> Refusal:
    return Refusal(None, (path,), error.reason, f"{shown(path)}: {error}")


def _skipped_file(path: Path, why: NotSelected) -> Refusal:
    return Refusal(None, (path,), why.reason, f"{shown(path)}: {why.message}", by_rules=True)


def _candidate(
    instances: Sequence[Instance],
    numbers: Mapping[str, frozenset[int]],
    copies: Sequence[str],
    left_out: str,
) -> Candidate:
    known, image = instances[0].known, instances[0].image
    return Candidate(
        study_instance_uid=known.study_instance_uid,
        series_instance_uid=known.series_instance_uid,
        modality=known.modality,
        why=f"{name_of_uid(known.sop_class_uid)} of {image.rows} x {image.columns}",
        instances=tuple(instances),
        sibling_series_numbers=numbers[known.study_instance_uid],
        warnings=(*copies, *([left_out] if left_out else [])),
        left_out=left_out,
    )


def _series_numbers(series: Iterable[Sequence[Scanned]]) -> dict[str, frozenset[int]]:
    """SeriesNumber of all series of each study."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for instances in series:
        for scanned in instances:
            known = scanned.known
            if known is not None and known.series_number is not None:
                numbers[known.study_instance_uid].add(known.series_number)
    return defaultdict(frozenset, {uid: frozenset(found) for uid, found in numbers.items()})
