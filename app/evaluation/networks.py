"""Rows of trained networks: blind spot, samplers, and one-step networks.

They come with a bundle (its teacher) or from a folder (`--controls`), where every `*.safetensors`
is a row or several, named after the file; diffusion networks need the `blind_spot.safetensors`
beside them. All get the true noise where it is simulated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from stillscan.app.evaluation.images import FolderMissingError
from stillscan.app.evaluation.methods import Method, always, bundles_by_domain
from stillscan.app.evaluation.noise_cases import NoiseCase
from stillscan.models.bundle import DIFFUSION as TEACHER_FILE
from stillscan.models.bundle import BundleError, load_teacher
from stillscan.models.denoisers.blind_spot import BlindSpotDenoiser
from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.models.denoisers.diffusion import DiffusionDenoiser, Sampling
from stillscan.models.denoisers.student import StudentDenoiser
from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import DiffusionNetwork
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.networks.weights import WeightsError, load_network
from stillscan.models.sampling.schedule import NoiseSchedule
from stillscan.operators.errors import ModelError

BLIND_SPOT = "blind_spot"
DIFFUSION = "diffusion"
NAMES = {"student": "distilled"}  # the name `student` is used for the bundle's network
Make = Callable[[BlindSpotNetwork, DiffusionNetwork], Denoiser]
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
WAYS_OF_OTHERS = ("one step", "DDIM 20", "SRDS")  # for files other than `diffusion`


def networks(folder: Path, device: str) -> Iterator[Method]:
    """Yield the rows of a folder of networks.

    Raises:
        FolderMissingError: if the folder does not exist.
        ModelError: if it holds no network, or one cannot be loaded.
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
            yield _row(NAMES.get(name, name), StudentDenoiser(network, device), marks[name])


def teachers(folder: Path, device: str, *, beside_others: bool) -> Iterator[Method]:
    """Yield the teachers that bundles contain, each for its domain; nothing if none does.

    Args:
        folder: folder of one or more bundles.
        device: torch device.
        beside_others: whether the plain names are taken by networks of a folder.

    Raises:
        ModelError: if a teacher cannot be loaded.
    """
    by_domain = bundles_by_domain(folder)
    loaded: dict[Path, tuple[BlindSpotNetwork, DiffusionNetwork, str]] = {}
    for info in by_domain.values():
        if info.folder not in loaded and (info.folder / TEACHER_FILE).is_file():
            try:
                loaded[info.folder] = load_teacher(info.folder)
            except BundleError as error:
                raise ModelError(str(error)) from error
    if not loaded:
        return
    mark = "+".join(digest[:12] for _, _, digest in loaded.values())

    def row(name: str, make: Make, *, costly: bool = False) -> Method:
        made = {path: make(condition, network) for path, (condition, network, _) in loaded.items()}

        def denoiser(case: NoiseCase | None, domain: str) -> Denoiser | None:
            return made.get(by_domain.get(domain, by_domain["mr"]).folder)

        title = f"teacher: {name}" if beside_others else name
        return Method(title, "oracle", denoiser, costly=costly, fingerprint=mark)

    for centre, name in ((False, "blind spot"), (True, "blind spot + centre")):
        yield row(name, partial(_predictor, centre=centre, device=device))
    plain = all(not network.profile.recorruption for _, network, _ in loaded.values())
    for way, sampling in _ways(main=not beside_others, plain=plain):
        model = partial(_sampler, sampling=sampling, device=device)
        yield row(way, model, costly=way != "one step")


def _sampler(
    blind_spot: BlindSpotNetwork, network: DiffusionNetwork, sampling: Sampling, device: str
) -> Denoiser:
    return DiffusionDenoiser(blind_spot, network, NoiseSchedule.linear(), sampling, device=device)


def _predictor(
    blind_spot: BlindSpotNetwork, network: DiffusionNetwork, centre: bool, device: str
) -> Denoiser:
    return BlindSpotDenoiser(blind_spot, centre=centre, device=device)


def _ways(*, main: bool, plain: bool) -> Iterator[tuple[str, Sampling]]:
    """Yield the ways to use a conditional model; for models other than the main one only three.

    A `plain` model was not trained on recorrupted images, so there is nothing to average over.
    """
    for way, sampling in WAYS.items():
        if (main or way in WAYS_OF_OTHERS) and not (sampling.recorruptions and plain):
            yield way, sampling


def _samplers(name: str, model: DiffusionDenoiser, mark: str) -> Iterator[Method]:
    main, plain = name == DIFFUSION, not model.network.profile.recorruption
    for way, sampling in _ways(main=main, plain=plain):
        title = way if main else f"{name.removeprefix(f'{DIFFUSION}_')}: {way}"
        yield _row(title, model.sampled(sampling), mark, costly=way != "one step")


def _row(name: str, denoiser: Denoiser, mark: str, *, costly: bool = False) -> Method:
    return Method(name, "oracle", always(denoiser), costly=costly, fingerprint=mark)


def _load(path: Path) -> BlindSpotNetwork | DiffusionNetwork | StudentNetwork:
    try:
        return load_network(path)
    except WeightsError as error:
        raise ModelError(str(error)) from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
