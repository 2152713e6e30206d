"""A run of all stages: same weights however often it is killed, on one process or two."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stillscan.app.datasets.noisy_folder import read_noisy_folder, split
from stillscan.app.training.console import work_of
from stillscan.app.training.errors import DivergedError
from stillscan.app.training.profiles import PROFILES
from stillscan.app.training.ranks import Ranks
from stillscan.app.training.run import (
    NOISY,
    RECORRUPTED,
    SECOND_ROUND,
    SRDS,
    STAGES,
    Run,
    middle,
    passes,
    thinned,
)
from stillscan.models.bundle import METADATA, WEIGHTS
from stillscan.models.denoisers.denoiser import IdentityDenoiser
from stillscan.models.networks.conditional_diffusion import PAPER
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.training.stages import StagePlan
from stillscan.models.training.teacher_choice import choose
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.selection import SelectionRules
from tests.app.training.tiny_training import TINY, noisy_stack, request_for, train_tiny

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 900  # a machine may be busy
ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with two series."""
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "a.npz", a=noisy_stack(5), b=noisy_stack(3, seed=1))
    return folder


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """The bundle of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken") / "bundle"
    train_tiny(request_for(data, folder))
    return folder


@pytest.fixture(scope="module")
def images(data):
    with Decoder() as decoder:
        folder = read_noisy_folder(data, decoder, SelectionRules())
    return split(folder.series, seed=0)


@pytest.fixture
def run_in(images):
    """`run_in(folder)` is a tiny run whose files lie there."""
    training, held_out = images
    return lambda folder, **changes: replace(
        Run(folder, TINY, training, held_out, radius=0, seed=3, ranks=ALONE), **changes
    )


def finished(run):
    """What a run ends with, and how far it said it was."""
    stages, seen = run.train(), []
    while True:
        try:
            seen.append(next(stages))
        except StopIteration as end:
            return end.value, seen


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    """What `finished` gives of a tiny run."""
    training, held_out = images
    folder = tmp_path_factory.mktemp("run")
    return finished(Run(folder, TINY, training, held_out, radius=0, seed=3, ranks=ALONE))


def assert_same_weights(network, other):
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.slow
def test_all_stages_run_in_their_order_and_end_where_they_said(undisturbed):
    trained, seen = undisturbed
    assert list(dict.fromkeys(each.stage for each in seen)) == list(STAGES)
    for stage in STAGES:
        last = [each for each in seen if each.stage == stage][-1]
        assert last.done == last.total
    names = [line["name"] for line in trained.figures["candidates"]]
    assert names[0] == NOISY
    assert trained.teacher == trained.best
    assert trained.teacher in names
    assert np.isfinite(trained.figures["student"]["behind_teacher_db"])


@pytest.mark.slow
def test_a_run_that_is_left_anywhere_goes_on_as_if_it_was_not(undisturbed, run_in, tmp_path):
    unbroken, _ = undisturbed
    chance = random.Random(0)
    interruptions = 0
    while True:
        stages = run_in(tmp_path).train()
        try:
            for _ in range(chance.randint(1, 30)):
                next(stages)
        except StopIteration as end:
            resumed = end.value
            break
        interruptions += 1
    assert interruptions >= 3
    assert resumed.figures == unbroken.figures
    for network in ("blind_spot", "diffusion", "one_step", "student"):
        assert_same_weights(getattr(resumed, network), getattr(unbroken, network))


@pytest.mark.slow
def test_another_seed_trains_other_weights(undisturbed, run_in, tmp_path):
    one, _ = undisturbed
    other, _ = finished(run_in(tmp_path, seed=4))
    assert not torch.equal(next(one.student.parameters()), next(other.student.parameters()))


@pytest.mark.slow
def test_processes_that_were_killed_are_resumed_with_the_same_weights(data, unbroken, tmp_path):
    program = [sys.executable, "-m", "tests.app.training.tiny_training"]
    command = [*program, str(data), str(tmp_path / "killed")]
    for name in ("diffusion.pt", "labels", "student.pt"):
        place = tmp_path / "killed" / ".training" / name
        assert not place.exists()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + PATIENCE_S
            while not place.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    break
                time.sleep(0.001)
            time.sleep(random.random() * 0.02)
            process.send_signal(signal.SIGKILL)
        assert place.exists()
        command = [*command[:5], "--resume"]
    train_tiny(request_for(data, tmp_path / "killed", resume=True))
    whole, resumed = (load_file(each / WEIGHTS) for each in (unbroken, tmp_path / "killed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    one, other = (
        json.loads((each / METADATA).read_text())["stillscan"]
        for each in (unbroken, tmp_path / "killed")
    )
    assert one == other


@pytest.mark.slow
def test_two_processes_keep_the_same_weights_and_learn(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_PORT": "0"}
    done = subprocess.run(
        [*command, "--standalone", "-m", "tests.app.training.two_ranks", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    for name in ("blind_spot", "diffusion", "one_step", "student"):
        for key, value in one[name].items():
            assert torch.equal(value, other[name][key]), (name, key)
    assert one["losses"] != other["losses"]  # each rank sees examples of its own
    first, last = (np.mean(one["losses"][part]) for part in (slice(0, 5), slice(-5, None)))
    assert last < first - 1  # dB


def test_a_loss_that_is_no_number_ends_the_run(run_in, images, tmp_path):
    training, _ = images
    broken = [replace(image, pixels=torch.full((64, 64), float("nan"))) for image in training]
    with pytest.raises(DivergedError, match="stage 'blind spot' is nan after update 1"):
        finished(run_in(tmp_path, training=broken))
    assert not (tmp_path / "blind_spot.pt").exists()


def test_the_student_begins_with_the_weights_it_was_given(run_in, tmp_path):
    torch.manual_seed(7)
    start = StudentNetwork((4, 8), middle_blocks=1)
    still = replace(TINY, student=StagePlan(0, batch=2, patch=32))
    trained, _ = finished(run_in(tmp_path, profile=still, start=start))
    assert_same_weights(trained.student, start)


def test_the_published_profile_always_learns_from_srds(run_in, tmp_path):
    published = replace(TINY, condition=PAPER, teacher="srds")
    trained, _ = finished(run_in(tmp_path, profile=published))
    assert trained.teacher == SRDS
    assert {line["name"] for line in trained.figures["candidates"]} >= {SRDS, trained.best}


@pytest.mark.slow
def test_patches_fit_into_the_smallest_image(run_in, images, tmp_path):
    training, _ = images
    narrow = replace(training[0], pixels=training[0].pixels[:45, :])
    wide = replace(TINY, blind_spot=StagePlan(2, batch=2, patch=64))
    trained, _ = finished(run_in(tmp_path, profile=wide, training=(*training, narrow)))
    assert trained.figures["candidates"]


def test_passes_are_looks_of_the_network_at_a_pixel():
    names = (RECORRUPTED, "one step x 8", SRDS, "SRDS x 4")
    assert [passes(name, 10) for name in names] == [1, 8, 20, 80]


def test_the_second_round_can_be_left_out(run_in, tmp_path):
    once = replace(TINY, second_round=False)
    trained, seen = finished(run_in(tmp_path, profile=once))
    assert {each.stage for each in seen} == set(STAGES) - set(SECOND_ROUND)
    saved = torch.load(tmp_path / "student.pt", weights_only=True)
    for name, value in trained.student.state_dict().items():
        assert torch.equal(value, saved["average"][name]), name


def test_a_student_goes_on_from_a_teacher_of_its_kind(run_in, tmp_path):
    run, teacher = run_in(tmp_path), StudentNetwork(TINY.student_widths)
    assert_same_weights(run._first_student(teacher), teacher)
    assert run._first_student(StudentNetwork((8, 8))).widths == TINY.student_widths
    told = StudentNetwork((8, 8))
    assert_same_weights(run_in(tmp_path, start=told)._first_student(teacher), told)


def test_labels_are_made_of_as_many_pixels_as_allowed(images):
    training, _ = images
    assert thinned(training, 10**9) == training
    assert len(thinned(training, 2 * 128 * 128)) == 2


def test_judged_images_are_cut_in_the_middle(images):
    (first, *_), _ = images
    assert torch.equal(middle(first, 64).pixels, first.pixels[32:96, 32:96])
    assert middle(first, 500).pixels.shape == first.pixels.shape


def test_nothing_is_the_first_candidate(images):
    _, held_out = images
    chosen, _ = choose({NOISY: IdentityDenoiser(), "also nothing": IdentityDenoiser()}, held_out, 0)
    assert chosen == NOISY


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_profiles_are_whole(name):
    profile = PROFILES[name]
    work = work_of(profile)
    assert set(work) == set(STAGES)
    untaught = {"blind spot", "diffusion", "one step"} if profile.adapts else set()
    untaught |= set() if profile.second_round else set(SECOND_ROUND)
    assert {stage for stage, share in work.items() if share == 0} == untaught
    assert profile.condition == PAPER if name == "paper" else profile.condition.recorruption > 0
