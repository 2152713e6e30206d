"""The graph of operators on real holoscan, with series of the factory."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from stillscan.app.pipeline.application import GraphStoppedError, derive_all
from stillscan.app.settings import OutputSection
from stillscan.models.denoisers.denoiser import Estimate, IdentityDenoiser
from stillscan.operators import volume as volume_module
from stillscan.operators.errors import DiskFullError, InputError
from stillscan.operators.graph.messages import Method, SeriesSource
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.report.outcome import Progress, SeriesOutcome
from stillscan.operators.volume import Volume, VolumeBlock
from stillscan.operators.writing.provenance import Provenance
from tests.series_factory import make_series

PROVENANCE = Provenance("0", "none", "none", "identity", 1.0, "none", "float32", "cpu")


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def one_slice_per_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_module, "BLOCK_PIXELS", 1)


@pytest.fixture
def derive(tmp_path: Path, decoder: Decoder) -> Callable[..., tuple[SeriesOutcome, ...]]:
    """Send the series of `tmp_path/in` through the graph into `tmp_path/staging`."""
    staging = tmp_path / "staging"
    staging.mkdir()

    def derive_with(
        denoiser: object = None,
        change: Callable[[SeriesSource], SeriesSource] = lambda source: source,
        watch: Callable[[Progress], None] = lambda progress: None,
    ) -> tuple[SeriesOutcome, ...]:
        found = find_series(tmp_path / "in", decoder, SelectionRules())
        sources = [
            SeriesSource(
                each.series_instance_uid,
                tuple(scanned.path for scanned in each.instances),
                partial(read_series, each, decoder),
            )
            for each in found.candidates
        ]
        method = Method(denoiser or IdentityDenoiser(), PROVENANCE)
        methods = {each.modality: method for each in found.candidates}
        return derive_all(
            [change(source) for source in sources], methods, staging, OutputSection(), watch
        )

    return derive_with


def staged(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "staging").iterdir())


class Raising:
    """A denoiser that fails at its n-th call."""

    def __init__(self, error: Exception, at: int = 1) -> None:
        self.error, self.at, self.calls = error, at, 0

    def denoise(self, image: torch.Tensor, noise: object) -> Estimate:
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return Estimate(image)


def test_every_series_has_its_own_outcome(tmp_path: Path, derive: Callable) -> None:
    make_series(tmp_path / "in", seed=1)
    make_series(tmp_path / "in", seed=2, modality="CT")
    outcomes = derive()
    assert [each.status for each in outcomes] == ["derived", "derived"]
    assert {each.modality for each in outcomes} == {"MR", "CT"}
    uids = sorted(each.derived.series_instance_uid for each in outcomes if each.derived)
    assert staged(tmp_path) == uids


@pytest.mark.usefixtures("one_slice_per_block")
def test_slices_of_all_blocks_are_staged_once(tmp_path: Path, derive: Callable) -> None:
    make_series(tmp_path / "in", slices=7)
    seen: list[int] = []
    (outcome,) = derive(watch=lambda progress: seen.append(progress.done))
    assert outcome.derived.instances == 7
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert len(list((tmp_path / "staging").rglob("*.dcm"))) == 7


@pytest.mark.usefixtures("one_slice_per_block")
def test_the_next_block_is_read_while_one_is_denoised(tmp_path: Path, derive: Callable) -> None:
    make_series(tmp_path / "in", slices=3)
    third_block_read = threading.Event()
    overlapped: list[bool] = []

    class Waiting:
        calls = 0

        def denoise(self, image: torch.Tensor, noise: object) -> Estimate:
            self.calls += 1
            if self.calls == 2 + 1:  # two calls plan the series
                overlapped.append(third_block_read.wait(timeout=20))
            return Estimate(image)

    def telling(source: SeriesSource) -> SeriesSource:
        return SeriesSource(
            source.series_instance_uid, source.files, lambda: telling_volume(source.read(), tell)
        )

    def tell(start: int) -> None:
        if start == 1:
            third_block_read.set()

    derive(Waiting(), change=telling)
    assert overlapped == [True]


def telling_volume(volume: Volume, tell: Callable[[int], None]) -> Volume:
    """A volume that says which block it is going to give."""

    class Telling(Volume):
        def blocks(self) -> Iterator[VolumeBlock]:
            for block in super().blocks():
                tell(block.start)
                yield block

    return Telling(**{each.name: getattr(volume, each.name) for each in fields(volume)})


@pytest.mark.usefixtures("one_slice_per_block")
def test_blocks_in_flight_are_few_however_long_the_series(tmp_path: Path, derive: Callable) -> None:
    make_series(tmp_path / "in", slices=24, rows=32, columns=32)
    given, taken, most = [0], [0], [0]

    def count(start: int) -> None:
        given[0] += 1
        most[0] = max(most[0], given[0] - taken[0])

    def done(progress: Progress) -> None:
        taken[0] = progress.done

    def telling(source: SeriesSource) -> SeriesSource:
        return SeriesSource(
            source.series_instance_uid, source.files, lambda: telling_volume(source.read(), count)
        )

    derive(change=telling, watch=done)
    assert given[0] == 24
    assert most[0] <= 6


def test_a_series_that_cannot_be_read_does_not_touch_the_others(
    tmp_path: Path, derive: Callable
) -> None:
    make_series(tmp_path / "in", seed=1)
    make_series(tmp_path / "in", seed=2)
    first_file = min((tmp_path / "in").iterdir())

    def failing(source: SeriesSource) -> SeriesSource:
        def read() -> Volume:
            raise InputError("made for the test")

        return (
            SeriesSource(source.series_instance_uid, source.files, read)
            if first_file in source.files
            else source
        )

    outcomes = derive(change=failing)
    assert sorted(each.status for each in outcomes) == ["derived", "refused"]
    (refused,) = (each for each in outcomes if each.status == "refused")
    assert refused.message == f"{first_file.name} and 3 more: made for the test"
    assert len(staged(tmp_path)) == 1


@pytest.mark.usefixtures("one_slice_per_block")
def test_a_file_that_vanishes_while_it_is_read_refuses_its_series_alone(
    tmp_path: Path, derive: Callable
) -> None:
    make_series(tmp_path / "in", seed=1, slices=12)
    make_series(tmp_path / "in", seed=2)
    last = tmp_path / "in" / "MR_1_0011.dcm"  # no slice of the sample that the plan reads

    def vanish(progress: Progress) -> None:
        last.unlink(missing_ok=True)

    class Vanishing(Raising):
        def denoise(self, image: torch.Tensor, noise: object) -> Estimate:
            last.unlink(missing_ok=True)
            return Estimate(image)

    outcomes = derive(Vanishing(ValueError()), watch=vanish)
    assert sorted(each.status for each in outcomes) == ["derived", "refused"]
    assert len(staged(tmp_path)) == 1


@pytest.mark.usefixtures("one_slice_per_block")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("CUDA error"), "model-fault"),
        (MemoryError(), "out-of-memory"),
        (torch.OutOfMemoryError("20 GiB"), "out-of-memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out-of-memory"),
        (RuntimeError("allocator.cpp:79: std::bad_alloc"), "out-of-memory"),
    ],
)
def test_a_network_that_fails_refuses_the_series_alone(
    tmp_path: Path, derive: Callable, error: Exception, reason: str
) -> None:
    make_series(tmp_path / "in", seed=1, slices=4)
    make_series(tmp_path / "in", seed=2, slices=4)
    outcomes = derive(Raising(error, at=2 + 3))  # two calls plan the series
    assert [each.status for each in outcomes] == ["refused", "derived"]
    assert outcomes[0].reason == reason
    assert "slices 3 to 3 of 4 (64x64)" in outcomes[0].message
    assert len(staged(tmp_path)) == 1


@pytest.mark.usefixtures("one_slice_per_block")
def test_a_series_that_two_stages_give_up_has_one_outcome(
    tmp_path: Path, derive: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate runs out of memory on the first block while the network does so on the second."""
    make_series(tmp_path / "in", slices=4)
    network_failed = threading.Event()

    class Failing:
        calls = 0

        def denoise(self, image: torch.Tensor, noise: object) -> Estimate:
            self.calls += 1
            if self.calls == 2 + 2:  # two calls plan the series
                network_failed.set()
                raise MemoryError
            return Estimate(image)

    def failing(*arguments: object) -> None:
        assert network_failed.wait(timeout=20)
        raise MemoryError

    monkeypatch.setattr("stillscan.operators.graph.stages.judge_block", failing)
    (outcome,) = derive(Failing())
    assert (outcome.status, outcome.reason) == ("refused", "out-of-memory")
    assert staged(tmp_path) == []


def test_pixels_that_are_no_numbers_refuse_the_series(tmp_path: Path, derive: Callable) -> None:
    class NotFinite:
        def denoise(self, image: torch.Tensor, noise: object) -> Estimate:
            spoiled = image.clone()
            spoiled[-1, 0, 5, 5] = np.nan
            return Estimate(spoiled)

    make_series(tmp_path / "in")
    (outcome,) = derive(NotFinite())
    assert outcome.status == "refused"
    assert "finite" in outcome.reason + outcome.message
    assert staged(tmp_path) == []


def test_a_result_that_the_gate_does_not_let_pass_refuses_the_series(
    tmp_path: Path, derive: Callable
) -> None:
    class Flattening:
        def denoise(self, image: torch.Tensor, noise: object) -> Estimate:
            return Estimate(image.mean((-2, -1), keepdim=True).expand_as(image))

    make_series(tmp_path / "in")
    (outcome,) = derive(Flattening())
    assert (outcome.status, outcome.reason) == ("refused", "quality-gate")
    assert "more-change-than-noise" in outcome.message
    assert staged(tmp_path) == []


def test_a_bug_sets_its_series_aside_and_the_others_go_on(tmp_path: Path, derive: Callable) -> None:
    make_series(tmp_path / "in", seed=1)
    make_series(tmp_path / "in", seed=2)
    first, second = derive(Raising(TypeError("of a patient")))
    assert (first.status, first.reason) == ("refused", "internal-fault")
    assert "TypeError at tests/app/test_graph.py:" in first.message
    assert "patient" not in first.message
    assert second.status == "derived"
    assert staged(tmp_path) == [second.derived.series_instance_uid]


def test_a_full_disk_ends_the_run(
    tmp_path: Path, derive: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    make_series(tmp_path / "in")
    monkeypatch.setattr("stillscan.operators.durable_files.os.fsync", full)
    with pytest.raises(DiskFullError):
        derive()
    assert staged(tmp_path) == []


def test_a_graph_that_is_stopped_early_is_not_taken_for_done(
    tmp_path: Path, derive: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_series(tmp_path / "in")
    monkeypatch.setattr("stillscan.app.pipeline.application.DenoiseApp.run", lambda self: None)
    with pytest.raises(GraphStoppedError, match="0 of 1 series"):
        derive()
