"""Save and load trained weights as MONAI Bundles (`configs/metadata.json`, weights, `docs`)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stillscan.models.engines.engine import WantedEngine

if TYPE_CHECKING:
    from stillscan.models.denoisers.denoiser import Denoiser
    from stillscan.models.denoisers.student import StudentDenoiser
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
RADIOGRAPHS = {"CR", "DX"}

BundleMode = Literal["student", "fast_student", "srds", "one_step", "blind_spot"]


class BundleError(ValueError):
    """A bundle is missing, incomplete, or its weights do not fit its description."""


@dataclass(frozen=True)
class BundleInfo:
    """What `metadata.json` says, without loading weights.

    Attributes:
        name: of the bundle's folder.
        modalities: DICOM Modality values it serves.
        noise_range: sigma on the network's intensity scale that it was trained for.
    """

    name: str
    version: str
    modalities: tuple[str, ...]
    noise_range: tuple[float, float]
    folder: Path
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A bundle ready to run; `sha256` is of the weights file."""

    info: BundleInfo
    sha256: str
    denoiser: StudentDenoiser

    @property
    def name(self) -> str:
        """Of the bundle's folder."""
        return self.info.name

    @property
    def version(self) -> str:
        """From the metadata."""
        return self.info.version

    @property
    def modalities(self) -> tuple[str, ...]:
        """DICOM Modality values it serves."""
        return self.info.modalities

    @property
    def noise_range(self) -> tuple[float, float]:
        """Sigma on the network's intensity scale that it was trained for."""
        return self.info.noise_range


def find_bundles(folder: Path) -> list[BundleInfo]:
    """All bundles in a folder, by name; the folder may itself be one bundle.

    Raises:
        BundleError: if the folder does not exist or a bundle's metadata cannot be read.
    """
    if not folder.is_dir():
        raise BundleError(f"the folder of bundles does not exist: {folder}")
    if (folder / METADATA).is_file():
        return [read_info(folder)]
    return [read_info(path.parent.parent) for path in sorted(folder.glob(f"*/{METADATA}"))]


def read_info(folder: Path) -> BundleInfo:
    """What the bundle in this folder says of itself.

    Raises:
        BundleError: if `metadata.json` is missing, is not JSON or lacks a key.
    """
    try:
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
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
    """Load the student of `model.safetensors`, ready to denoise.

    Args:
        folder: of one bundle.
        device: torch device, such as "cpu" or "cuda:0".
        precision: "float32", "bfloat16", or "auto" (bfloat16 where the hardware computes it).
        engine: what multiplies, see `stillscan.models.engines.choice.choose_engine`.

    Raises:
        BundleError: if a file is missing or damaged, or the weights do not fit the network.
        EngineError: if the engine is not there or lacks the precision.
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
    """The denoiser of a bundle that a mode names, and the SHA-256 of its weights.

    `student`: the one-step network that the bundle is made for; `fast_student`: a smaller one, in
    int8 where that is asked for or the best here (`prefers_int8`). The others
    are the teacher's: `srds` (stabilised sampling), `one_step` (its first prediction, the control
    of sampling) and `blind_spot` (with the centre pixel put back).

    Raises:
        BundleError: as `load_bundle`, or if the bundle came without what the mode needs.
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
    """Blind spot and conditional diffusion network of a bundle, and the SHA-256 of both files.

    Raises:
        BundleError: if they are not there, damaged, or something else.
    """
    from stillscan.models.networks.blind_spot import BlindSpotNetwork
    from stillscan.models.networks.conditional_diffusion import DiffusionNetwork
    from stillscan.models.networks.weights import WeightsError, load_network

    paths = [folder / BLIND_SPOT, folder / DIFFUSION]
    if not all(path.is_file() for path in paths):
        raise BundleError(
            f"bundle {folder.name} came without its teacher ({BLIND_SPOT.name}, {DIFFUSION.name}); "
            "it has no mode that samples"
        )
    try:
        blind_spot, network = (load_network(path) for path in paths)
    except WeightsError as error:
        raise BundleError(f"bundle {folder.name}: {error}") from error
    if not isinstance(blind_spot, BlindSpotNetwork) or not isinstance(network, DiffusionNetwork):
        raise BundleError(f"bundle {folder.name}: its teacher's files hold other networks")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    return blind_spot, network, digest


def load_student(folder: Path, file: Path) -> tuple[StudentNetwork, str]:
    """A fast student of a bundle (`FAST_STUDENT`, in int8 or not), and the SHA-256 of its file.

    Raises:
        BundleError: if it is not there, damaged, or something else.
    """
    from stillscan.models.networks.student import StudentNetwork
    from stillscan.models.networks.weights import WeightsError, load_network

    path = folder / file
    if not path.is_file():
        kind = file.stem.replace("_", " ")
        raise BundleError(f"bundle {folder.name} came without a {kind} ({file.name})")
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
    """In int8 if that is wanted, and there, and an engine for it starts."""
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
                raise  # else a line in the log has said it
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
        folder: of the bundle; made if needed.
        metadata: without the network's arguments, which are added.
        teacher: what the modes `srds`, `one_step` and `blind_spot` need.
        fast: what the mode `fast_student` needs.
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
