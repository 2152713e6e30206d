"""Maps and measurements beside a derived series: true, valid, of the same patient, named once."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset, Sequence

from bench.robustness.headers.tree import HeaderTree
from stillscan.operators.denoising.gate import Verdict
from stillscan.operators.dicom.attributes import put
from stillscan.operators.volume import Volume, VolumeBlock
from stillscan.operators.writing.companions.companions import (
    NO_ERROR_ESTIMATE,
    NO_PLACE,
    ObjectNotMadeError,
    ObjectOptions,
    SeriesObject,
    SeriesObjects,
)
from stillscan.operators.writing.companions.measurement_report import Measured
from stillscan.operators.writing.companions.parametric_maps import sources_of, stacks
from stillscan.operators.writing.derived_header import OutputOptions, series_instance_uid
from tests.derived import STUDENT, blocks_of, real_volumes, volumes_in
from tests.enhanced_factory import ENHANCED, make_enhanced
from tests.operators.test_validators import errors_of
from tests.series_factory import make_series

Tool = Callable[[str], str]

ALL = ObjectOptions(uncertainty_map=True, noise_map=True, measurements=True)
MEASURED = Measured(
    12.5, 4.25, Verdict("accept with clamp", ("clamped",), {"residual_deviation": 0.9}), {}
)
KINDS = {
    "MR": lambda folder: make_series(folder, modality="MR"),
    "CT": lambda folder: make_series(folder, modality="CT"),
    "PT": lambda folder: make_series(folder, modality="PT"),
    **ENHANCED,
}


@dataclass(frozen=True)
class WithMaps:
    block: VolumeBlock
    spread: np.ndarray | None
    sigma: np.ndarray | None


def with_maps(block: VolumeBlock) -> WithMaps:
    """Maps that tell every pixel of every slice from the others."""
    number = np.arange(block.start, block.stop, dtype=np.float32)[:, None, None]
    spread = 1 + number + np.linspace(0, 0.5, block.pixels[0].size).reshape(block.pixels[0].shape)
    return WithMaps(block, spread.astype(np.float32), (2 * spread).astype(np.float32))


@dataclass(frozen=True)
class Made:
    volume: Volume
    objects: tuple[SeriesObject, ...]
    files: dict[str, list[Path]]
    warnings: list[str]

    def datasets(self, kind: str) -> list[Dataset]:
        return [pydicom.dcmread(file) for file in self.files[kind]]


def objects_of(
    volume: Volume,
    folder: Path,
    options: ObjectOptions = ALL,
    maps: Callable[[VolumeBlock], WithMaps] = with_maps,
    blocks: int | None = None,
) -> Made:
    folder.mkdir(exist_ok=True)
    uid = series_instance_uid(volume, STUDENT, OutputOptions())
    objects = SeriesObjects(volume, uid, STUDENT, folder, options, 100)
    for block in blocks_of(volume)[:blocks]:
        objects.add(maps(block))
    made = objects.finish(MEASURED, ("2.25.4712", "2.25.4713"))
    files = {each.kind: sorted((folder / each.series_instance_uid).iterdir()) for each in made}
    return Made(volume, made, files, objects.warnings)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_show_the_values_of_each_slice_where_it_lies(kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / "source")
    (volume,) = volumes_in(tmp_path / "source")
    made = objects_of(volume, tmp_path / "objects")
    assert {each.kind for each in made.objects} == {"uncertainty", "noise", "measurements"}
    wanted = [with_maps(block) for block in blocks_of(volume)]
    spread = np.concatenate([each.spread for each in wanted if each.spread is not None])
    for name, factor in (("uncertainty", 1), ("noise", 2)):
        seen = set()
        for dataset in made.datasets(name):
            pixels = dataset.pixel_array.reshape(-1, volume.rows, volume.columns)
            for frame, values in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
                (origin,) = frame.DerivationImageSequence[0].SourceImageSequence
                index = slice_index(volume, origin)
                assert np.array_equal(values, factor * spread[index])
                z = float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
                assert z == pytest.approx(volume.slices[index].position)
                seen.add(index)
        assert seen == set(range(len(volume.slices)))


def slice_index(volume: Volume, origin: Dataset) -> int:
    """The slice that an item of SourceImageSequence names."""
    frame = origin.get("ReferencedFrameNumber", 1) - 1
    named = (origin.ReferencedSOPInstanceUID, frame)
    assert origin.ReferencedSOPClassUID == volume.sop_class_uid
    return [(each.sop_instance_uid, each.frame) for each in volume.slices].index(named)


def test_repeated_positions_do_not_share_an_instance(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "source", modality="MR", frames=2, instances=3)
    (volume,) = volumes_in(tmp_path / "source")
    made = objects_of(volume, tmp_path / "objects")
    assert sum(int(each.NumberOfFrames) for each in made.datasets("noise")) == 6
    for dataset in made.datasets("noise"):
        places = [
            tuple(frame.PlanePositionSequence[0].ImagePositionPatient)
            for frame in dataset.PerFrameFunctionalGroupsSequence
        ]
        assert len(places) == len(set(places))


def test_cosines_that_differ_in_the_sixth_digit_share_an_instance(tmp_path: Path) -> None:
    make_series(
        tmp_path / "source",
        ImageOrientationPatient=lambda index: ["1", "0", "0", "0", f"{1 - index * 1e-6:.7f}", "0"],
    )
    (volume,) = volumes_in(tmp_path / "source")
    (block,) = volume.blocks()
    assert len(stacks(sources_of(block))) == 1


def test_what_cannot_be_made_refuses_its_series_without_a_value(tmp_path: Path) -> None:
    for file in make_series(tmp_path / "source"):
        dataset = pydicom.dcmread(file)
        put(dataset, "SliceThickness", b"canary")
        dataset.save_as(file)
    (volume,) = volumes_in(tmp_path / "source")
    with pytest.raises(ObjectNotMadeError) as caught:
        objects_of(volume, tmp_path / "objects")
    assert str(caught.value) == "uncertainty: ValueError"


def test_objects_are_of_the_same_patient_and_study_byte_for_byte(tmp_path: Path) -> None:
    (file, *_) = make_series(
        tmp_path / "source",
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎",
    )
    source = pydicom.dcmread(file)
    (volume,) = volumes_in(tmp_path / "source")
    made = objects_of(volume, tmp_path / "objects")
    for kind in made.files:
        for dataset in made.datasets(kind):
            for keyword in ("SpecificCharacterSet", "PatientName", "PatientID", "StudyDate"):
                tag = source[keyword].tag
                again = pydicom.dcmread(file)
                assert dataset.get_item(tag).value == again.get_item(tag).value
            assert dataset.StudyInstanceUID == source.StudyInstanceUID
            assert dataset.SeriesInstanceUID != source.SeriesInstanceUID


@pytest.mark.parametrize(
    ("terms", "kept"),
    [
        (b"zlib_codec\\undefined\\cp037\\utf-8-sig", ["", "", "", ""]),
        (b"base64_codec\\GB18030\\ISO 2022 IR 58 ", ["", "GB18030", "ISO 2022 IR 58"]),
        (b"idna", ""),
        (b"\\".join([b"ISO_IR 999"] * 20_000), [""] * 8),  # too long for a CS: its VR is UN
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of broken text
def test_a_codec_of_python_is_no_character_set_of_an_object(
    tmp_path: Path, terms: bytes, kept: list[str] | str
) -> None:
    name = b"\xd7\xff^\x1b$B"
    (file,) = make_series(tmp_path / "source", slices=1)
    tree = HeaderTree.of(file)
    tree.put("SpecificCharacterSet", terms, "CS" if len(terms) < 2**16 else "UN")
    tree.put("PatientName", name)
    file.write_bytes(tree.content())
    (volume,) = volumes_in(tmp_path / "source")
    made = objects_of(volume, tmp_path / "objects")
    assert set(made.files) == {"uncertainty", "noise", "measurements"}
    for kind in made.files:
        (dataset,) = made.datasets(kind)
        assert dataset.get_item("PatientName").value == name
        assert (dataset.SpecificCharacterSet or "") == kept


def test_the_same_everything_makes_the_same_objects(tmp_path: Path) -> None:
    make_series(tmp_path / "source")
    (volume,) = volumes_in(tmp_path / "source")
    first, second = (objects_of(volume, tmp_path / name) for name in ("one", "two"))
    for kind, files in first.files.items():
        for one, two in zip(files, second.files[kind], strict=True):
            assert one.name == two.name
            assert one.read_bytes() == two.read_bytes()


def test_what_is_not_asked_for_is_not_made(tmp_path: Path) -> None:
    make_series(tmp_path / "source")
    (volume,) = volumes_in(tmp_path / "source")
    assert objects_of(volume, tmp_path / "none", ObjectOptions()).objects == ()
    assert list((tmp_path / "none").iterdir()) == []
    only = objects_of(volume, tmp_path / "one", ObjectOptions(noise_map=True))
    assert [each.kind for each in only.objects] == ["noise"]


@pytest.mark.slow
def test_highdicom_is_not_imported_until_an_object_is_made() -> None:
    program = "import sys, stillscan.operators.graph.stages; sys.exit('highdicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


def test_series_numbers_follow_the_derived_one_and_are_free(tmp_path: Path) -> None:
    make_series(tmp_path / "source", SeriesNumber=3)
    (volume,) = volumes_in(tmp_path / "source")
    made = objects_of(volume, tmp_path / "objects")
    numbers = [int(made.datasets(kind)[0].SeriesNumber) for kind in made.files]
    assert numbers == [302, 303, 304]


def test_a_denoiser_without_an_error_has_no_uncertainty_map(tmp_path: Path) -> None:
    make_series(tmp_path / "source")
    (volume,) = volumes_in(tmp_path / "source")
    made = objects_of(
        volume, tmp_path / "objects", maps=lambda block: WithMaps(block, None, block.pixels)
    )
    assert {each.kind for each in made.objects} == {"noise", "measurements"}
    assert made.warnings == [NO_ERROR_ESTIMATE]


def test_a_radiograph_has_measurements_but_no_map(tmp_path: Path) -> None:
    make_series(tmp_path / "source", modality="DX")
    (volume,) = volumes_in(tmp_path / "source")
    made = objects_of(volume, tmp_path / "objects")
    assert [each.kind for each in made.objects] == ["measurements"]
    assert made.warnings == [NO_PLACE]


def test_the_report_says_what_was_measured_and_what_made_it(tmp_path: Path) -> None:
    make_series(tmp_path / "source", modality="CT")
    (volume,) = volumes_in(tmp_path / "source")
    (report,) = objects_of(volume, tmp_path / "objects").datasets("measurements")
    items = list(walk(report))
    numbers = {
        code_value(item.ConceptNameCodeSequence): (
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for item in items
        if item.ValueType == "NUM"
    }
    assert numbers["NOISE_BEFORE"] == (12.5, "[hnsf'U]")
    assert numbers["NOISE_AFTER"] == (4.25, "[hnsf'U]")
    assert numbers["RESIDUAL_DEVIATION"] == (0.9, "1")
    codes = {code_value(item.ConceptCodeSequence) for item in items if item.ValueType == "CODE"}
    assert {"CLAMPED", "clamped"} <= codes
    texts = {item.TextValue for item in items if item.ValueType == "TEXT"}
    assert {f"model_sha256={STUDENT.model_sha256}", "bundle=mr", "mode=student"} <= texts
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.SeriesInstanceUID == series_instance_uid(volume, STUDENT, OutputOptions())
    assert len(evidence.ReferencedSOPSequence) == 2


def code_value(sequence: Sequence) -> str:
    (code,) = sequence
    return code.get("CodeValue") or code.LongCodeValue


def walk(item: Dataset) -> list[Dataset]:
    """All content items below this one."""
    below = [each for child in item.get("ContentSequence", []) for each in walk(child)]
    return [item, *below]


def test_files_and_their_names_are_on_the_disk_when_a_series_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[Path] = set()

    def fsync(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr("stillscan.operators.durable_files.os.fsync", fsync)
    make_series(tmp_path / "source", modality="CT", slices=3)
    (volume,) = volumes_in(tmp_path / "source")
    made = objects_of(volume, tmp_path / "objects")
    folders = {tmp_path / "objects" / each.series_instance_uid for each in made.objects}
    assert len(folders) == 3
    assert synced == folders | {file for files in made.files.values() for file in files}


def test_discarded_objects_leave_nothing(tmp_path: Path) -> None:
    make_series(tmp_path / "source")
    (volume,) = volumes_in(tmp_path / "source")
    staging = tmp_path / "staging"
    staging.mkdir()
    objects = SeriesObjects(volume, "2.25.4711", STUDENT, staging, ALL, 100)
    objects.add(with_maps(blocks_of(volume)[0]))
    assert list(staging.iterdir()) != []
    objects.discard()
    assert list(staging.iterdir()) == []


@pytest.mark.tools
@pytest.mark.parametrize("kind", KINDS)
def test_objects_have_no_errors(kind: str, tool: Tool, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / "source")
    (volume,) = volumes_in(tmp_path / "source")
    for files in objects_of(volume, tmp_path / "objects").files.values():
        for file in files:
            assert not errors_of(tool("dciodvfy"), [file]), file


@pytest.mark.slow
@pytest.mark.tools
@pytest.mark.data
def test_objects_of_real_series_have_no_new_errors_and_warn_of_nobody(
    stillscan_data: Path, tool: Tool, tmp_path: Path
) -> None:
    checked = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what pydicom warns of holds values
        for name, volume in real_volumes(stillscan_data, tmp_path):
            made = objects_of(volume, tmp_path / f"objects {checked}", blocks=1)
            known = set(errors_of(tool("dciodvfy"), [volume.slices[0].path]))
            for files in made.files.values():
                for file in files[:1]:
                    assert not set(errors_of(tool("dciodvfy"), [file])) - known, name
                    checked += 1
    assert checked >= 30
