"""Python packages of the image: the imports of the application, locked with digests.

    python -m stillscan.deploy.image.packages cpu WHEELS > deploy/image/cpu.lock

writes the lock of a variant from a folder with its wheels (`pip download --no-deps -c
constraints.txt` of the names that `image_packages` gives); a test holds the locks against
`constraints.txt` and the closure of the requirements.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

Variant = Literal["cpu", "cuda", "gateway"]  # gateway: packages beside one of the others

ROOT = Path(__file__).resolve().parents[2]
LOCKS = Path(__file__).parent
PYTHON_VERSION = "3.11"  # Python version of the image

# required by installed packages, but not imported by anything that runs in the image
LEFT_OUT = {
    "monai-deploy-app-sdk": "the graph is holoscan's; the SDK only renames it",
    "holoscan-cli": "packs and starts images",
    "cupy-cuda13x": "the ports carry no GPU arrays",
    "pip": "nothing is installed later",
    "wheel-axle-runtime": "the symbolic links that it would make at the start are made here",
    "setuptools": "torch uses it to compile extensions",
    "openvino-telemetry": "it would send messages to an outside server",
    **dict.fromkeys(("portalocker", "requests", "tqdm"), "ncnn's model zoo downloads with it"),
}
# CUDA wheels with which torch's libraries are not linked
CUDA_LEFT_OUT = {"cuda-toolkit", "triton", "cuda-bindings", "cuda-pathfinder"}
CUDA_SECTION = "# only with torch's CUDA wheel"


@dataclass(frozen=True)
class Locked:
    """One line of a lock.

    Attributes:
        name: canonical name of the package.
        version: version without the local part ("+cpu").
        sha256: digest of the wheel.
    """

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        """Format the line as pip reads it."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def image_packages(variant: Variant) -> set[str]:
    """Return the packages of a variant: the closure of its requirements without `LEFT_OUT`.

    Works in an environment in which the requirements are installed.
    """
    runtime = closure(_requirements(ROOT / "app" / "requirements.txt"))
    if variant == "gateway":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return closure(map(Requirement, project["optional-dependencies"]["gateway"])) - runtime
    return runtime | (cuda_libraries() if variant == "cuda" else set())


def closure(requirements: Iterable[Requirement]) -> set[str]:
    """Return the names of requirements and of their own requirements, as installed."""
    extras: dict[str, set[str]] = {}
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        known, wanted = extras.get(name), requirement.extras | {""}
        if name in LEFT_OUT or (known is not None and wanted <= known):
            continue
        extras[name] = (known or set()) | wanted
        for line in importlib.metadata.requires(name) or []:
            each = Requirement(line)
            if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in wanted):
                waiting.append(each)
    return {name for name in extras if not _is_cuda_library(name)} | _runtime_library(extras)


def _is_cuda_library(name: str) -> bool:
    return name.startswith("nvidia-") or name in CUDA_LEFT_OUT


def _runtime_library(names: Iterable[str]) -> set[str]:
    """Return what holoscan loads even on a CPU; torch's CUDA wheel has the other libraries."""
    return {"nvidia-cuda-runtime"} & set(names)


def cuda_libraries() -> set[str]:
    """Return the packages that torch's CUDA wheel needs."""
    section = (ROOT / "constraints.txt").read_text(encoding="utf-8").split(CUDA_SECTION)[1]
    return {each.name for each in _pins(section)} - CUDA_LEFT_OUT


def pinned_versions() -> dict[str, str]:
    """Read the versions of `constraints.txt` by canonical name."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return {canonicalize_name(each.name): str(each.specifier)[2:] for each in _pins(text)}


def _pins(text: str) -> Iterator[Requirement]:
    return (Requirement(line) for line in text.splitlines() if re.match(r"\w", line))


def _requirements(file: Path) -> list[Requirement]:
    return list(_pins(file.read_text(encoding="utf-8")))


def lock_file(variant: Variant) -> Path:
    """Return the path of a variant's lock."""
    return LOCKS / f"{variant}.lock"


def read_lock(variant: Variant) -> list[Locked]:
    """Read the lines of a variant's lock."""
    text = lock_file(variant).read_text(encoding="utf-8")
    lines = re.findall(r"^(\S+)==(\S+) --hash=sha256:(\w+)$", text, re.MULTILINE)
    return [Locked(*line) for line in lines]


def lock(variant: Variant, wheels: Path) -> list[Locked]:
    """Create the lock of a variant from a folder with its wheels in their pinned versions.

    Raises:
        FileNotFoundError: if a wheel is missing.
    """
    pins, found = pinned_versions(), {}
    for file in sorted(wheels.glob("*.whl")):
        name, version, _, _ = parse_wheel_filename(file.name)
        if pins.get(name) == version.public:
            found[name] = Locked(name, version.public, digest(file))
    missing = image_packages(variant) - set(found)
    if missing:
        raise FileNotFoundError(f"{wheels} has no wheel of {', '.join(sorted(missing))}")
    return [found[canonicalize_name(name)] for name in sorted(image_packages(variant))]


def digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main() -> None:
    """Print the lock of a variant."""
    variant = next(each for each in get_args(Variant) if each == sys.argv[1])
    lines = [
        f"# Wheels of the image for Python {PYTHON_VERSION} on Linux x86-64 ({variant}).",
        "# Made by `python -m stillscan.deploy.image.packages`; versions as in constraints.txt.",
        *map(str, lock(variant, Path(sys.argv[2]))),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
