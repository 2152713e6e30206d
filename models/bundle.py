"""Save and load trained weights as MONAI Bundles (`configs/metadata.json`, weights, `docs`)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # they import torch
    from stillscan.models.denoisers.denoiser import Denoiser
    from stillscan.models.denoisers.student import StudentDenoiser
    from stillscan.models.engines.engine import WantedEngine
    from stillscan.models.networks.blind_spot import BlindSpotNetwork
    from stillscan.models.networks.conditional_diffusion import DiffusionNetwork
    from stillscan.models.networks.student import StudentNetwork

METADATA = Path("configs/metadata.json")
WEIGHTS = Path("models/model.safetensors")
FAST_STUDENT = Path("models/fast_student.safetensors")
FAST_STUDENT_INT8 = Path("models/fast_student_int8.safetensors")
BLIND_SPOT = Path("models/blind_spot.safetensors")
DIFFUSION = Path("models/diffusion.safetensors")
SAMPLING_STEPS = 10
TASK = "denoise"  # of bundles whose metadata name none
RADIOGRAPHS = {"CR", "DX"}

BundleMode = Literal["student", "fast_student", "srds", "one_step", "blind_spot"]


class BundleError(ValueError):
    """A bundle is missing, incomplete, or its weights do not fit its description."""


class OtherTaskError(BundleError):
    """A bundle is for another task than the one it is loaded for."""


@dataclass(frozen=True)
class BundleInfo:
    """The contents of a bundle's `metadata.json`; no weights are loaded.

    Attributes:
        name: name of the bundle's folder.
        modalities: DICOM Modality values that the bundle is for.
        noise_range: lowest and highest noise standard deviation that the network was trained for,
            on the network's intensity scale.
    """

    name: str
    version: str
    modalities: tuple[str, ...]
    noise_range: tuple[float, float]
    folder: Path
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle; `sha256` is the digest of the weights file."""

    info: BundleInfo
    sha256: str
    denoiser: StudentDenoiser

    @property
    def name(self) -> str:
        """Name of the bundle's folder."""
        return self.info.name

    @property
    def version(self) -> str:
        """Version of the bundle, from its metadata."""
        return self.info.version

    @property
    def modalities(self) -> tuple[str, ...]:
        """DICOM Modality values that the bundle is for."""
        return self.info.modalities

    @property
    def noise_range(self) -> tuple[float, float]:
        """Lowest and highest noise standard deviation that the network was trained for."""
        return self.info.noise_range


def find_bundles(folder: Path) -> list[BundleInfo]:
    """Return all bundles in a folder, by name; the folder may itself be one bundle.

    Raises:
        BundleError: if the folder does not exist or a bundle's metadata cannot be read.
    """
    if not folder.is_dir():
        raise BundleError(f"the folder of bundles does not exist: {folder}")
    if (folder / METADATA).is_file():
        return [read_info(folder)]
    return [read_info(path.parent.parent) for path in sorted(folder.glob(f"*/{METADATA}"))]


def read_info(folder: Path) -> BundleInfo:
    """Read the metadata of the bundle in this folder.

    Raises:
        BundleError: if `metadata.json` is missing, is not JSON or lacks a key.
        OtherTaskError: if the bundle is not for denoising.
    """
    try:
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        if (task := metadata["stillscan"].get("task", TASK)) != TASK:
            raise OtherTaskError(f"bundle {folder.name} is for the task {task}, not for {TASK}")
        return BundleInfo(
            name=folder.name,
            version=str(metadata["version"]),
            modalities=tuple(metadata["stillscan"]["modalities"]),
            noise_range=tuple(metadata["stillscan"]["noise_range"]),
            folder=folder,
            metadata=metadata,
        )
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise BundleError(f"bundle {folder.name}: {METADATA} is not readable: {error!r}") from error


def load_bundle(
    folder: Path, device: str = "cpu", precision: str = "auto", engine: WantedEngine = "torch"
) -> Bundle:
    """Load the default network (`model.safetensors`) and prepare it for denoising.

    Args:
        folder: folder of one bundle.
        device: torch device, such as "cpu" or "cuda:0".
        precision: "float32", "bfloat16", or "auto" (bfloat16 where the hardware computes it).
        engine: inference backend, see `stillscan.models.engines.choice.choose_engine`.

    Raises:
        BundleError: if a file is missing or damaged, or the weights do not fit the network.
        EngineError: if the engine is not installed or does not support the precision.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from stillscan.models.networks.student import StudentNetwork

    info = read_info(folder)
    try:
        data = (folder / WEIGHTS).read_bytes()
        weights = {name: tensor.float() for name, tensor in load(data).items()}
        network = StudentNetwork(**_network_arguments(info.metadata))
        network.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise BundleError(f"bundle {info.name}: {WEIGHTS} cannot be loaded: {error}") from error
    denoiser = _student_denoiser(network, info, device, precision, engine)
    return Bundle(info, hashlib.sha256(data).hexdigest(), denoiser)


def _student_denoiser(
    network: StudentNetwork, info: BundleInfo, device: str, precision: str, engine: WantedEngine
) -> StudentDenoiser:
    from stillscan.models.denoisers.student import StudentDenoiser
    from stillscan.models.engines.choice import choose_engine

    large = set(info.modalities) <= RADIOGRAPHS
    chosen = choose_engine(network, engine, device, precision, large=large)
    return StudentDenoiser(network, engine=chosen)


def load_mode(
    folder: Path,
    mode: BundleMode,
    device: str = "cpu",
    precision: str = "auto",
    engine: WantedEngine = "torch",
) -> tuple[Denoiser, str]:
    """Load the denoiser of a bundle for one mode.

    Modes: `student`, the one-step network that is the product; `fast_student`, a smaller one, in
    int8 if that is requested or fastest on this machine (`prefers_int8`); and three that run the
    networks which the student was distilled from: `srds` (stabilised sampling), `one_step` (its
    first prediction, the control for sampling) and `blind_spot` (with the centre pixel put back).

    Returns:
        The denoiser and the SHA-256 of its weights.

    Raises:
        BundleError: as `load_bundle`, or if the bundle lacks the networks of the mode.
        EngineError: as `load_bundle`.
    """
    if mode == "student":
        bundle = load_bundle(folder, device, precision, engine)
        return bundle.denoiser, bundle.sha256
    if mode == "fast_student":
        return _load_fast_student(folder, device, precision, engine)
    from stillscan.models.denoisers.blind_spot import BlindSpotDenoiser
    from stillscan.models.denoisers.diffusion import DiffusionDenoiser, Sampling
    from stillscan.models.sampling.schedule import NoiseSchedule

    blind_spot, network, digest = load_teacher(folder)
    if mode == "blind_spot":
        return BlindSpotDenoiser(blind_spot, device=device), digest
    sampling = Sampling("srds" if mode == "srds" else "one_step", steps=SAMPLING_STEPS)
    schedule = NoiseSchedule.linear()
    denoiser = DiffusionDenoiser(blind_spot, network, schedule, sampling, device=device)
    return denoiser, digest


def load_teacher(folder: Path) -> tuple[BlindSpotNetwork, DiffusionNetwork, str]:
    """Load the blind-spot and the conditional diffusion network, and the SHA-256 of both files.

    Raises:
        BundleError: if a file is missing, damaged, or holds another kind of network.
    """
    from stillscan.models.networks.blind_spot import BlindSpotNetwork
    from stillscan.models.networks.conditional_diffusion import DiffusionNetwork
    from stillscan.models.networks.weights import WeightsError, load_network

    paths = [folder / BLIND_SPOT, folder / DIFFUSION]
    if not all(path.is_file() for path in paths):
        raise BundleError(
            f"bundle {folder.name} does not hold the networks of the sampling modes "
            f"({BLIND_SPOT.name}, {DIFFUSION.name}); use the mode student or fast_student"
        )
    try:
        blind_spot, network = (load_network(path) for path in paths)
    except WeightsError as error:
        raise BundleError(f"bundle {folder.name}: {error}") from error
    if not isinstance(blind_spot, BlindSpotNetwork) or not isinstance(network, DiffusionNetwork):
        names = f"{BLIND_SPOT.name} or {DIFFUSION.name}"
        raise BundleError(f"bundle {folder.name}: {names} holds another network")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    return blind_spot, network, digest


def load_student(folder: Path, file: Path) -> tuple[StudentNetwork, str]:
    """Load a fast student of a bundle (`FAST_STUDENT` or `FAST_STUDENT_INT8`) and its SHA-256.

    Raises:
        BundleError: if the file is missing, damaged, or holds another kind of network.
    """
    from stillscan.models.networks.student import StudentNetwork
    from stillscan.models.networks.weights import WeightsError, load_network

    path = folder / file
    if not path.is_file():
        kind = file.stem.replace("_", " ")
        raise BundleError(f"bundle {folder.name} has no {kind} ({file.name})")
    try:
        network = load_network(path)
    except WeightsError as error:
        raise BundleError(f"bundle {folder.name}: {error}") from error
    if not isinstance(network, StudentNetwork):
        raise BundleError(f"bundle {folder.name}: {file.name} holds another network")
    return network, hashlib.sha256(path.read_bytes()).hexdigest()


def _load_fast_student(
    folder: Path, device: str, precision: str, engine: WantedEngine
) -> tuple[StudentDenoiser, str]:
    """Load the int8 network if it is requested or preferred and an engine for it starts.

    Otherwise the network in floating point is loaded.
    """
    from stillscan.models.engines.choice import prefers_int8
    from stillscan.models.engines.engine import EngineError

    info = read_info(folder)
    asked_for = precision == "int8"
    there = (folder / FAST_STUDENT_INT8).is_file()
    if asked_for or (there and prefers_int8(engine, device, precision)):
        network, digest = load_student(folder, FAST_STUDENT_INT8)
        try:
            return _student_denoiser(network, info, device, "int8", engine), digest
        except EngineError:
            if asked_for:
                raise  # otherwise a warning is in the log
    network, digest = load_student(folder, FAST_STUDENT)
    return _student_denoiser(network, info, device, precision, engine), digest


def _network_arguments(metadata: dict[str, Any]) -> dict[str, Any]:
    arguments = metadata["stillscan"]["network"]
    return {"widths": tuple(arguments["widths"]), "middle_blocks": int(arguments["middle_blocks"])}


def save_bundle(
    network: StudentNetwork,
    folder: Path,
    metadata: dict[str, Any],
    teacher: tuple[BlindSpotNetwork, DiffusionNetwork] | None = None,
    fast: StudentNetwork | None = None,
) -> None:
    """Write weights (float16 in the file, float32 when loaded) and metadata.

    Args:
        network: the trained network.
        folder: folder of the bundle; created if needed.
        metadata: without the network's arguments, which are added.
        teacher: the networks of the modes `srds`, `one_step` and `blind_spot`.
        fast: the network of the mode `fast_student`.
    """
    from safetensors.torch import save

    from stillscan.models.networks.weights import save_network

    for path, part in zip((BLIND_SPOT, DIFFUSION), teacher or (), strict=False):
        save_network(part, folder / path)
    if fast is not None:
        save_network(fast, folder / FAST_STUDENT)

    metadata["stillscan"]["network"] = {
        "widths": list(network.widths),
        "middle_blocks": network.middle_blocks,
    }
    (folder / METADATA).parent.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).parent.mkdir(parents=True, exist_ok=True)
    weights = {name: t.detach().half().contiguous() for name, t in network.state_dict().items()}
    (folder / WEIGHTS).write_bytes(save(weights))
    text = json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"
    (folder / METADATA).write_text(text, encoding="utf-8")
