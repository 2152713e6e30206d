"""Stillscan denoises DICOM series and says how far the result can be trusted.

What is listed here is the public interface; it is imported when it is first used, so that
`import stillscan` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillscan.app.library.functions import (
        Noise,
        Result,
        denoise,
        estimate_noise,
        inspect,
    )
    from stillscan.app.pipeline.pipeline import RunResult, run
    from stillscan.app.pipeline.survey import Finding, Job, survey
    from stillscan.app.settings import Settings, load_settings
    from stillscan.models.bundle import find_bundles
    from stillscan.models.denoisers.denoiser import Denoiser, Estimate
    from stillscan.models.noise.profile import NoiseProfile
    from stillscan.operators.denoising.denoise_series import denoise_volume
    from stillscan.operators.errors import ExitCode, StillscanError
    from stillscan.operators.reading.decoder import Decoder
    from stillscan.operators.reading.read_series import find_series, read_series
    from stillscan.operators.volume import Volume

    __version__: str

_HOMES = {
    "Decoder": "operators.reading.decoder",
    "Denoiser": "models.denoisers.denoiser",
    "Estimate": "models.denoisers.denoiser",
    "ExitCode": "operators.errors",
    "Finding": "app.pipeline.survey",
    "Job": "app.pipeline.survey",
    "Noise": "app.library.functions",
    "NoiseProfile": "models.noise.profile",
    "Result": "app.library.functions",
    "RunResult": "app.pipeline.pipeline",
    "Settings": "app.settings",
    "StillscanError": "operators.errors",
    "Volume": "operators.volume",
    "denoise": "app.library.functions",
    "denoise_volume": "operators.denoising.denoise_series",
    "estimate_noise": "app.library.functions",
    "find_bundles": "models.bundle",
    "find_series": "operators.reading.read_series",
    "inspect": "app.library.functions",
    "load_settings": "app.settings",
    "read_series": "operators.reading.read_series",
    "run": "app.pipeline.pipeline",
    "survey": "app.pipeline.survey",
}

__all__ = [
    "Decoder",
    "Denoiser",
    "Estimate",
    "ExitCode",
    "Finding",
    "Job",
    "Noise",
    "NoiseProfile",
    "Result",
    "RunResult",
    "Settings",
    "StillscanError",
    "Volume",
    "denoise",
    "denoise_volume",
    "estimate_noise",
    "find_bundles",
    "find_series",
    "inspect",
    "load_settings",
    "read_series",
    "run",
    "survey",
]


def _version() -> str:
    """Read the version that `pyproject.toml` states, the only place where it is decided.

    In a checkout and in the container image that file lies beside this package; it is right there
    also when an editable install still names an earlier version. An installed wheel carries the
    version in its metadata.

    Raises:
        importlib.metadata.PackageNotFoundError: if the package was copied without that file.
    """
    import re
    from pathlib import Path

    file = Path(__file__).resolve().parent.parent / "pyproject.toml"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    # the two lines are looked for as they stand: a parser of TOML would cost a start 20 ms
    if found := re.search(r'^name = "stillscan"\nversion = "(.+)"$', text, re.MULTILINE):
        return found[1]
    from importlib.metadata import version

    return version("stillscan")


def __getattr__(name: str) -> Any:
    """Import a public name from its module, or find the version, when it is first used."""
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names that can be imported from here."""
    return sorted({*globals(), *__all__, "__version__"})
