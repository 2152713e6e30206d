"""Install wheels into the image's `site-packages`: downloaded by digest, unpacked, none executed.

pip only downloads. For packages that are imported and never run as scripts, unpacking the wheel is
the installation; done here it gives the same result with every Python that builds the image.
"""

from __future__ import annotations

import csv
import fnmatch
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename

from stillscan.deploy.image.packages import PYTHON_VERSION, Locked, Variant, digest, lock_file

# files that no import needs, except a program that torch looks for and a module of numpy.testing
UNUSED = (
    "torch/include/*",
    "torch/test/*",
    "torch/bin/*",
    "torch/share/*",
    "nvidia/*/include/*",
    "openvino/include/*",
    "openvino/cmake/*",
    "openvino/tools/*",  # converts foreign models, as do the frontends
    "openvino/libs/libopenvino_*_frontend.so.*",
    "openvino/frontend/*/*",
    "openvino/libs/libopenvino_intel_[gn]pu_plugin.so",  # other processors
    "openvino/libs/cache.json",
    "pydicom/data/charset_files/*",  # synthetic images for its tests
    "pydicom/data/test_files/*",
    "*.a",
    "*/tests/*",
    "*.pth",
    "*.data/scripts/*",
    "*.data/data/*",
    "*.data/headers/*",
)
USED = (
    "torch/bin/torch_shm_manager",
    "numpy/_core/tests/__init__.py",
    "numpy/_core/tests/_natype.py",
)


class WheelError(Exception):
    """A wheel is missing or differs from the locked one."""


def fetch(variants: Iterable[Variant], folder: Path, options: Sequence[str] = ()) -> None:
    """Download the locked wheels into a folder with pip, as it is configured on this machine.

    Args:
        variants: variants whose locks are used; existing wheels are not downloaded again.
        folder: folder for the wheels, created if needed.
        options: options for pip, for instance an index that has torch's CPU wheel.

    Raises:
        WheelError: if pip cannot find a wheel with the locked digest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for variant in variants:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--only-binary", ":all:"]
        command += ["--python-version", PYTHON_VERSION, "--implementation", "cp"]
        command += [f"--platform={each}" for each in platforms()]
        command += ["--dest", str(folder), "--requirement", str(lock_file(variant)), *options]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            wrong = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
            raise WheelError("pip cannot download the locked wheels:\n" + "\n".join(wrong))


def platforms() -> Iterator[str]:
    """Yield the allowed platform tags of wheels: those of glibc up to Debian 12's."""
    yield from (f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1))
    yield from ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")


def locked_wheels(locked: Iterable[Locked], folder: Path) -> list[Path]:
    """Find the wheels of a lock in a folder and check their digests.

    Raises:
        WheelError: if one is missing.
    """
    there: dict[tuple[str, str], list[Path]] = {}
    for file in sorted(folder.glob("*.whl")):
        name, version, _, _ = parse_wheel_filename(file.name)
        there.setdefault((name, version.public), []).append(file)
    return [_wheel_of(each, there) for each in locked]


def _wheel_of(locked: Locked, there: dict[tuple[str, str], list[Path]]) -> Path:
    for file in there.get((canonicalize_name(locked.name), locked.version), []):
        if digest(file) == locked.sha256:
            return file
    raise WheelError(f"no wheel of {locked.name} {locked.version} with digest {locked.sha256}")


def unpack(wheels: Iterable[Path], target: Path) -> None:
    """Unpack wheels into one folder, without `UNUSED`, and create the links that they describe."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                name = _place_of(entry.filename)
                if entry.is_dir() or not is_used(name):
                    continue
                place = target / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(archive.read(entry))
                place.chmod(0o755 if (entry.external_attr >> 16) & 0o111 else 0o644)
    for described in sorted(target.glob("*.dist-info/symlinks.txt")):
        link_as_described(described, target)


def is_used(name: str) -> bool:
    """Return whether a file of a wheel is needed in the image."""
    return name in USED or not any(fnmatch.fnmatch(name, pattern) for pattern in UNUSED)


def _place_of(name: str) -> str:
    """Return the destination of a file that the wheel keeps under `*.data/purelib` or `platlib`."""
    for scheme in (".data/purelib/", ".data/platlib/"):
        if scheme in name:
            return name.split(scheme, 1)[1]
    return name


def link_as_described(described: Path, target: Path) -> None:
    """Create the symbolic links of a wheel-axle wheel, which it would make at the first start."""
    with described.open(newline="") as lines:
        for link, destination, _ in csv.reader(lines):
            place = target / _place_of(link)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(destination)
