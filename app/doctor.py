"""`stillscan doctor`: shows what is installed and what would be used, and checks that it works."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from stillscan import __version__
from stillscan.app.settings import Settings
from stillscan.operators.durable_files import write_synced
from stillscan.operators.errors import ExitCode, StillscanError

PACKAGES = (
    "torch openvino ncnn pydicom highdicom nibabel numpy holoscan-cu13 monai-deploy-app-sdk monai"
)
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd")
SYNTAXES = {
    "JPEG lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "RLE": "1.2.840.10008.1.2.5",
}
MIB = 2**20


def examine(settings: Settings, models: Path, folder: Path | None) -> ExitCode:
    """Print one line for each subject, and try a write and the network of every bundle.

    Args:
        settings: with device, inference backend and precision.
        models: a folder of bundles, or one.
        folder: must be writable; None for the temporary folder.
    """
    for subject, found in _facts():
        _say(subject, found)
    worst = ExitCode.DERIVED
    for subject, attempt in (("bundle", _bundles(settings, models)), ("write", _write(folder))):
        try:
            for found in attempt:
                _say(subject, found)
        except StillscanError as error:
            _say(subject, f"FAILED: {error.reason}: {error}")
            worst = worst or error.exit_code
    return worst


def _say(subject: str, found: str) -> None:
    typer.echo(f"{subject:<10} {found}")


def _facts() -> Iterator[tuple[str, str]]:
    import torch
    from pydicom.pixels.decoders.base import get_decoder

    yield "stillscan", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    for name in PACKAGES.split():
        yield "package", f"{name} {_version_of(name)}"
    cores, flags = os.cpu_count(), _cpu_flags()
    features = ", ".join(each for each in FEATURES if each in flags) or "not known"
    yield "processor", f"{cores} cores, {features}; torch uses {torch.get_num_threads()} threads"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none usable by torch"
    yield "GPU", gpu
    for name, uid in SYNTAXES.items():
        decoder = get_decoder(uid)
        there = ", ".join(decoder.available_plugins) or "MISSING: such files are refused"
        yield "decoder", f"{name}: {there}"


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu_flags() -> set[str]:
    """Return the flags that Linux lists; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    return set(file.read_text(encoding="utf-8").split()) if file.is_file() else set()


def _bundles(settings: Settings, models: Path) -> Iterator[str]:
    """Load each bundle and denoise a generated image with it."""
    import numpy as np

    from stillscan.app.bundles.choice import available_bundles
    from stillscan.app.library.functions import denoise

    image = 100 + np.random.default_rng(0).normal(0, 5, (64, 64))
    for info in available_bundles(models, None):
        modality = info.modalities[0]
        (outcome,) = denoise(
            image, modality=modality, spacing=(1.0, 1.0), models=info.folder, settings=settings
        ).outcomes
        made = outcome.provenance
        assert made is not None, "a derived image has one"
        yield (
            f"{info.name} {info.version} ({', '.join(info.modalities)}), sha256 "
            f"{made.model_sha256[:12]}: {made.engine} {made.precision} on {made.device}, noise "
            f"{outcome.noise_before:.2f} -> {outcome.noise_after:.2f} in {outcome.seconds:.2f} s"
        )


def _write(folder: Path | None) -> Iterator[str]:
    """Write a file in the same way as results: staged, synced and renamed."""
    from stillscan.app.pipeline.output_folder import publish, staging_in

    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        with staging_in(place) as staging:
            write_synced(staging / "stillscan-doctor", lambda file: file.write(bytes(MIB)))
            publish(staging, place)
        (place / "stillscan-doctor").unlink()
    yield f"{folder or tempfile.gettempdir()} can be written"
