"""Captured graphs: replayed where there is a GPU, said and gone without where they fail."""

from contextlib import contextmanager

import pytest
import torch

from stillscan.models.engines.cuda_graphs import CAPTURED, CapturedFunction


def doubled(given):
    return given * 2, given + 1


class Stream:
    def wait_stream(self, other):
        pass


@pytest.fixture
def recorded(monkeypatch):
    """CUDA's graphs on a CPU: a replay calls the captured function again; gives the captures."""
    captures = []

    class Graph:
        def replay(self):
            given, result = captures[self.number]
            for plane, again in zip(result, doubled(given), strict=True):
                plane.copy_(again)

    @contextmanager
    def nothing(*arguments):
        yield

    @contextmanager
    def capturing(graph):
        graph.number = len(captures)
        yield

    class Recording(CapturedFunction):
        def _capture(self, like):
            captured = super()._capture(like)
            captures.append((captured.given, captured.result))
            return captured

    monkeypatch.setattr("torch.cuda.Stream", Stream)
    monkeypatch.setattr("torch.cuda.current_stream", Stream)
    monkeypatch.setattr("torch.cuda.stream", nothing)
    monkeypatch.setattr("torch.cuda.CUDAGraph", Graph)
    monkeypatch.setattr("torch.cuda.graph", capturing)
    return captures, Recording(doubled)


def test_a_shape_is_captured_once_and_replayed_for_other_numbers(recorded):
    captures, function = recorded
    first, second = torch.rand(2, 3), torch.rand(2, 3)
    results = function(first), function(second)
    for given, result in zip((first, second), results, strict=True):  # the first has survived
        for plane, expected in zip(result, doubled(given), strict=True):
            assert torch.equal(plane, expected)
    assert len(captures) == 1


def test_only_the_last_shapes_are_kept(recorded):
    captures, function = recorded
    for size in [*range(1, CAPTURED + 2), CAPTURED + 1, 1]:
        function(torch.rand(size))
    assert len(captures) == CAPTURED + 2


def test_where_capture_fails_that_is_said_once_and_kernels_are_launched(monkeypatch, caplog):
    def broken():
        raise RuntimeError("no capture here")

    monkeypatch.setattr("torch.cuda.Stream", broken)
    function, given = CapturedFunction(doubled), torch.rand(4)
    for _ in range(2):
        assert torch.equal(function(given)[0], 2 * given)
    assert caplog.text.count("no capture here") == 1
    assert "launched one by one" in caplog.text


def test_too_little_memory_is_no_reason_to_try_without(monkeypatch):
    def full():
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("torch.cuda.Stream", full)
    with pytest.raises(torch.OutOfMemoryError):
        CapturedFunction(doubled)(torch.rand(4))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_what_the_processor_gives():
    from stillscan.models.denoisers.student import StudentDenoiser
    from stillscan.models.networks.student import StudentNetwork
    from tests.models.test_student import white_profile

    torch.manual_seed(0)
    network = StudentNetwork(widths=(8, 16, 16))
    torch.nn.init.normal_(network.noise.weight, std=0.3)
    image, profile = torch.rand(3, 1, 90, 70), white_profile(0.1)
    expected = StudentDenoiser(network, precision=torch.float32).denoise(image, profile)
    on_gpu = StudentDenoiser(network, "cuda", torch.float32)
    for _ in range(2):
        found = on_gpu.denoise(image, profile)
        torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-4)
        torch.testing.assert_close(found.spread, expected.spread, rtol=1e-2, atol=0)
