"""The operators for other graphs, among the SDK's own operators and objects."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, Image, IOType, Operator
from monai.deploy.core.domain.dicom_series_selection import SelectedSeries, StudySelectedSeries
from monai.deploy.operators import (
    DICOMDataLoaderOperator,
    DICOMSeriesToVolumeOperator,
    IOMapping,
    MonaiBundleInferenceOperator,
)

import stillscan
from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.operators import DenoiseSeriesOperator, DerivedSeriesWriterOperator
from stillscan.operators.errors import InputError
from tests.series_factory import make_series

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = ("study_selected_series_list", "image", "series_outcomes")
LOCALIZER = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


class Emit(Operator):
    def __init__(self, fragment: Any, *args: Any, port: str, message: Any, **kwargs: Any) -> None:
        self.port, self.message = port, message
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec):
        spec.output(self.port)

    def compute(self, op_input, op_output, context):
        op_output.emit(self.message, self.port)


class Collect(Operator):
    def __init__(self, fragment: Any, port: str, found: dict[str, Any]) -> None:
        self.port, self.found = port, found
        super().__init__(fragment, name=f"collect_{port}")

    def setup(self, spec):
        spec.input(self.port)

    def compute(self, op_input, op_output, context):
        self.found[self.port] = op_input.receive(self.port)


class Graph(Application):
    """A message into the operator under test; what it emits, and what is written of it."""

    def __init__(self, port: str | None, message: Any, output: Path, **options: Any) -> None:
        self._given = port, message, output, options
        self.found: dict[str, Any] = {}
        super().__init__([sys.executable, "test"])

    def compose(self):
        port, message, output, options = self._given
        denoise = DenoiseSeriesOperator(self, device="cpu", name="denoise", **options)
        if port is None:
            self.add_operator(denoise)
        else:
            once = CountCondition(self, 1)
            source = Emit(self, once, port=port, message=message, name="source")
            self.add_flow(source, denoise, {(port, port)})
        for name in OUTPUTS:
            self.add_flow(denoise, Collect(self, name, self.found), {(name, name)})
        writer = DerivedSeriesWriterOperator(self, output_folder=output, name="writer")
        self.add_flow(denoise, writer, {(OUTPUTS[0], OUTPUTS[0])})


def run(port: str | None, message: Any, output: Path, **options: Any) -> dict[str, Any]:
    graph = Graph(port, message, output, **options)
    graph.run()
    return graph.found


def selected(folder: Path, name: str = "") -> list[StudySelectedSeries]:
    """All series of a folder, in memory: the data sets do not know where they came from."""
    loader = DICOMDataLoaderOperator(Application([sys.executable]), input_folder=folder)
    studies = []
    for study in loader.load_data_to_studies(folder):
        found = StudySelectedSeries(study)
        for series in study.get_all_series():
            for instance in series.get_sop_instances():
                instance.get_native_sop_instance().filename = None
            found.add_selected_series(SelectedSeries(name, series))
        studies.append(found)
    shutil.rmtree(folder)
    return studies


def datasets(studies: list[StudySelectedSeries]) -> list[pydicom.Dataset]:
    return [
        instance.get_native_sop_instance()
        for study in studies
        for each in study.selected_series
        for instance in each.series.get_sop_instances()
    ]


def files(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.glob("2.25.*/*.dcm"))]


def values(found: list[pydicom.Dataset]) -> dict[str, bytes]:
    return {each.SOPInstanceUID: each.PixelData for each in found}


def test_selected_series_in_memory_are_denoised_and_written(tmp_path):
    make_series(tmp_path / "in", modality="CT", slices=5)
    expected = stillscan.denoise(tmp_path / "in", strength=0.6, device="cpu")
    found = run(OUTPUTS[0], selected(tmp_path / "in", "liver"), tmp_path / "out", strength=0.6)
    (study,) = found[OUTPUTS[0]]
    (series,) = study.selected_series
    assert series.selection_name == "liver"
    assert series.series.Modality == "CT"
    assert values(datasets([study])) == values(expected.image)
    assert {path.parent.name for path in (tmp_path / "out").glob("*/*.dcm")} == {
        series.series.SeriesInstanceUID
    }
    assert values(files(tmp_path / "out")) == values(expected.image)
    (outcome,) = found["series_outcomes"]
    assert outcome.status == "derived"
    assert outcome.provenance.strength == 0.6
    volume = found["image"].asnumpy()
    assert volume.shape == (5, 64, 64)
    first = DICOMSeriesToVolumeOperator(Application([sys.executable])).convert_to_image([study])
    assert np.array_equal(volume, first.asnumpy())


def test_an_image_is_denoised_as_its_series_is(tmp_path):
    make_series(tmp_path / "in", modality="CT", slices=5)
    expected = stillscan.denoise(tmp_path / "in", device="cpu")
    to_volume = DICOMSeriesToVolumeOperator(Application([sys.executable]))
    image = to_volume.convert_to_image(selected(tmp_path / "in"))
    before = image.asnumpy().copy()
    found = run("image", image, tmp_path / "out")
    assert set(found) == {"image", "series_outcomes"}
    assert isinstance(found["image"], Image)
    assert found["image"].metadata() == image.metadata()
    assert np.array_equal(image.asnumpy(), before)
    stored = np.stack([each.pixel_array for each in expected.image]) - 1024.0
    assert np.abs(found["image"].asnumpy() - stored).max() <= 0.501


def test_a_refused_series_is_passed_on_and_not_written(tmp_path):
    make_series(tmp_path / "in/a", slices=3)
    make_series(tmp_path / "in/b", slices=2, seed=1, ImageType=LOCALIZER)
    studies = selected(tmp_path / "in")
    found = run(OUTPUTS[0], studies, tmp_path / "out")
    assert len(datasets(found[OUTPUTS[0]])) == 5
    outcomes = {each.status: each.reason for each in found["series_outcomes"]}
    assert outcomes == {"derived": "", "not-selected": "localizer"}
    assert len(files(tmp_path / "out")) == 3
    (gone,) = run(OUTPUTS[0], studies, tmp_path / "more", keep_refused=False)[OUTPUTS[0]]
    assert len(datasets([gone])) == 3


def test_a_graph_goes_on_where_nothing_can_be_derived(tmp_path):
    make_series(tmp_path / "in", slices=2, ImageType=LOCALIZER)
    studies = selected(tmp_path / "in")
    found = run(OUTPUTS[0], studies, tmp_path / "out")
    assert values(datasets(found[OUTPUTS[0]])) == values(datasets(studies))
    assert [each.reason for each in found["series_outcomes"]] == ["localizer"]
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_keeps_the_echoes_that_the_sdks_loader_drops(tmp_path):
    make_series(
        tmp_path / "in",
        slices=6,
        ImagePositionPatient=lambda index: [-100.0, -100.0, 5.0 * (index % 3)],
        EchoTime=lambda index: 10 + 20 * (index // 3),
    )
    found = run(None, None, tmp_path / "out", input_folder=tmp_path / "in")
    assert len(datasets(found[OUTPUTS[0]])) == 6
    assert len(files(tmp_path / "out")) == 6
    assert len(datasets(selected(tmp_path / "in"))) == 3


def test_an_empty_selection_is_passed_on(tmp_path):
    found = run(OUTPUTS[0], [], tmp_path / "out")
    assert found == {OUTPUTS[0]: [], "series_outcomes": []}


def test_what_concerns_every_series_ends_the_graph(tmp_path):
    make_series(tmp_path / "in", slices=2)
    with pytest.raises(stillscan.StillscanError, match="strength") as caught:
        run(OUTPUTS[0], selected(tmp_path / "in"), tmp_path / "out", strength=3)
    assert not isinstance(caught.value, InputError)


def test_other_names_are_not_there():
    with pytest.raises(AttributeError):
        stillscan.operators.NoSuchOperator  # noqa: B018


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A segmentation by a threshold, in TorchScript."""

    class Bright(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return (image > 0).float()

    torch.jit.script(Bright()).save(tmp_path / "model.ts")
    return tmp_path / "model.ts"


@pytest.mark.slow
def test_the_example_denoises_then_segments(model, tmp_path):
    """In a folder with an `app.py` of its own, with the SDK's real operators."""
    example = tmp_path / "example"
    shutil.copytree(ROOT / "examples/denoise_then_segment", example)
    assert len((example / "app.py").read_text().splitlines()) <= 40
    make_series(tmp_path / "in", modality="CT", slices=5, columns=72)
    out = tmp_path / "out"
    command = [sys.executable, example, "-i", tmp_path / "in", "-o", out, "-m", model]
    done = subprocess.run(command, capture_output=True, text=True, cwd=example, check=False)
    assert done.returncode == 0, done.stderr
    derived = sorted(files(out), key=lambda each: each.ImagePositionPatient[2])
    expected = stillscan.denoise(tmp_path / "in", strength="medium")
    assert values(derived) == values(expected.image)
    (path,) = out.glob("*.dcm")
    segmentation = pydicom.dcmread(path)
    assert segmentation.SOPClassUID.name == "Segmentation Storage"
    series = segmentation.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == derived[0].SeriesInstanceUID
    frames = segmentation.PerFrameFunctionalGroupsSequence
    places = [each.PlanePositionSequence[0].ImagePositionPatient[2] for each in frames]
    bright = [each.pixel_array > 1024 for each in derived]
    assert 0.1 < np.mean(bright) < 0.9
    assert np.array_equal(segmentation.pixel_array[np.argsort(places)].astype(bool), bright)


class BundleGraph(Application):
    """A message into the SDK's own bundle operator, and what it emits."""

    def __init__(self, image: Image) -> None:
        self.image, self.found = image, {}
        super().__init__([sys.executable, "test"])

    def compose(self):
        source = Emit(self, CountCondition(self, 1), port="image", message=self.image, name="s")
        bundle = MonaiBundleInferenceOperator(
            self,
            app_context=Application.init_app_context([sys.executable]),
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", np.ndarray, IOType.IN_MEMORY)],
            bundle_path=DEFAULT_BUNDLES / "ct",
            name="bundle",
        )
        self.add_flow(source, bundle, {("image", "image")})
        self.add_flow(bundle, Collect(self, "pred", self.found), {("pred", "pred")})


def test_the_bundle_in_the_sdks_own_operator_gives_the_pixels_of_the_command_line(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # the SDK takes a folder `models` of where it runs for its models
    make_series(tmp_path / "in", modality="CT", slices=5, rows=64, columns=48)
    settings = stillscan.load_settings()
    exact = replace(settings.denoise, engine="torch", precision="float32", device="cpu")
    settings = replace(settings, denoise=exact)
    expected = stillscan.denoise(tmp_path / "in", settings=settings)
    to_volume = DICOMSeriesToVolumeOperator(Application([sys.executable]))
    image = to_volume.convert_to_image(selected(tmp_path / "in"))
    graph = BundleGraph(image)
    graph.run()
    (found,) = graph.found["pred"]  # one channel [column, row, slice]
    assert found.dtype == np.float32
    stored = np.stack([each.pixel_array for each in expected.image]) - 1024.0
    assert np.abs(found.transpose(2, 1, 0) - stored).max() <= 0.501
    assert np.abs(found.transpose(2, 1, 0) - image.asnumpy()).std() > 5
