"""Rows from a folder of trained networks: blind spot, samplers, and networks of the student's kind.

Every `*.safetensors` is a row or several, named after the file. Diffusion networks need the
`blind_spot.safetensors` beside them. All are told the truth about simulated noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from app.evaluation_images import FolderMissingError
from app.evaluation_methods import Method, always
from models.blind_spot import BlindSpotDenoiser, BlindSpotNetwork
from models.denoiser import Denoiser
from models.diffusion import DiffusionNetwork
from models.diffusion_denoiser import DiffusionDenoiser, Sampling
from models.schedule import NoiseSchedule
from models.student import StudentDenoiser, StudentNetwork
from models.weights import WeightsError, load_network
from operators.errors import ModelError

BLIND_SPOT = "blind_spot"
DIFFUSION = "diffusion"
STEPS = 20  # S of the paper
WAYS = {
    "one step": Sampling("one_step"),
    "one step x 8": Sampling("one_step", recorruptions=8),
    "DDIM 1": Sampling("sample", steps=1),
    "DDIM 5": Sampling("sample", steps=5),
    "DDIM 10": Sampling("sample", steps=10),
    "DDIM 20": Sampling("sample", steps=STEPS),
    "DDIM 50": Sampling("sample", steps=50),
    "DDPM 20": Sampling("stochastic_sample", steps=STEPS),
    "two samples 20": Sampling("independent_samples", steps=STEPS),
    "SRDS": Sampling("srds", steps=STEPS),
    "SRDS K 2": Sampling("srds", steps=STEPS, pairs=2),
    "SRDS K 4": Sampling("srds", steps=STEPS, pairs=4),
    "SRDS x 4": Sampling("srds", steps=STEPS, recorruptions=4),
}
WAYS_OF_OTHERS = ("one step", "DDIM 20", "SRDS")  # of networks beside the one called `diffusion`


def networks(folder: Path, device: str) -> Iterator[Method]:
    """The rows of a folder.

    Raises:
        FolderMissingError: if there is no such folder.
        ModelError: if it holds no network, or one that cannot be loaded.
    """
    if not folder.is_dir():
        raise FolderMissingError(f"{folder} is not a folder")
    found = {path.stem: _load(path) for path in sorted(folder.glob("*.safetensors"))}
    if not found:
        raise ModelError(f"{folder} holds no network (*.safetensors)")
    marks = {name: _sha256(folder / f"{name}.safetensors") for name in found}
    for name, network in found.items():
        if isinstance(network, BlindSpotNetwork):
            for centre, suffix in ((False, ""), (True, " + centre")):
                denoiser = BlindSpotDenoiser(network, centre=centre, device=device)
                yield _row(name.replace("_", " ") + suffix, denoiser, marks[name])
        elif isinstance(network, DiffusionNetwork):
            condition = found.get(BLIND_SPOT)
            if not isinstance(condition, BlindSpotNetwork):
                raise ModelError(f"{name}.safetensors needs {BLIND_SPOT}.safetensors beside it")
            model = DiffusionDenoiser(condition, network, NoiseSchedule.linear(), device=device)
            yield from _samplers(name, model, f"{marks[name]}+{marks[BLIND_SPOT]}")
        else:
            yield _row(name, StudentDenoiser(network, device), marks[name])


def _samplers(name: str, model: DiffusionDenoiser, mark: str) -> Iterator[Method]:
    """Every way to use a conditional model; of others than the main one only the telling ones."""
    main = name == DIFFUSION
    for way, sampling in WAYS.items():
        if not main and way not in WAYS_OF_OTHERS:
            continue
        if sampling.recorruptions and not model.network.profile.recorruption:
            continue
        title = way if main else f"{name.removeprefix(f'{DIFFUSION}_')}: {way}"
        yield _row(title, model.sampled(sampling), mark, costly=way != "one step")


def _row(name: str, denoiser: Denoiser, mark: str, *, costly: bool = False) -> Method:
    return Method(name, "truth", always(denoiser), costly=costly, fingerprint=mark)


def _load(path: Path) -> BlindSpotNetwork | DiffusionNetwork | StudentNetwork:
    try:
        return load_network(path)
    except WeightsError as error:
        raise ModelError(str(error)) from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
