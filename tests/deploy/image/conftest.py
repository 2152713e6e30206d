"""The built image in a test: `make image-test` builds it and names it in STILLSCAN_IMAGE."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import need
from tests.series_factory import make_series

ANY_USER = 48013  # no such user anywhere


@dataclass(frozen=True)
class Image:
    """An image, and how a container of it is started here."""

    podman: tuple[str, ...]
    name: str

    def command(
        self,
        *arguments: object,
        source: Path | None = None,
        output: Path | None = None,
        environment: Mapping[str, object] | None = None,
        options: tuple[str, ...] = (),
    ) -> list[str]:
        """Podman with everything taken away that can be: the form that the documents recommend."""
        words = [*self.podman, "run", "--rm", "--read-only", "--cap-drop=all", "--network=none"]
        words += [
            "--security-opt=no-new-privileges",
            "--tmpfs=/tmp",
            f"--user={ANY_USER}:{ANY_USER}",
        ]
        # podman's own defaults are more than a container in a container may ask for
        words += ["--ulimit=nofile=20000:20000", "--ulimit=nproc=4096:4096"]
        words += [f"--env={name}={value}" for name, value in (environment or {}).items()]
        words += [f"--volume={source}:/var/holoscan/input:ro"] if source else []
        words += [f"--volume={output}:/var/holoscan/output"] if output else []
        return [*words, *options, self.name, *map(str, arguments)]

    def run(self, *arguments: object, **how: object) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        command = self.command(*arguments, **how)
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="session")
def podman(tool) -> tuple[str, ...]:
    """The container engine of the test bench, with its arguments."""
    tool("runc")
    return (tool("podman"), *shlex.split(os.environ.get("STILLSCAN_PODMAN", "")), "--runtime=runc")


@pytest.fixture(scope="session")
def image(podman: tuple[str, ...]) -> Image:
    """The image under test."""
    name = os.environ.get("STILLSCAN_IMAGE", "")
    if not name:
        pytest.skip("STILLSCAN_IMAGE names no image: `make image-test` builds one and tests it")
    exists = subprocess.run([*podman, "image", "exists", name], check=False)
    need(exists.returncode == 0, f"podman has no image {name}")
    return Image(podman, name)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output folder that any user may write."""
    folder = tmp_path / "output"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small series."""
    make_series(tmp_path / "input", slices=3)
    return tmp_path / "input"


@pytest.fixture
def full_disk(tmp_path: Path):
    """A file system of 16 KiB, which only one image of the series fits on."""
    need(shutil.which("mount") is not None and os.geteuid() == 0, "mounting needs root")
    folder = tmp_path / "full"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=777", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)
