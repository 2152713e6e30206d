"""Container engines that build the image: buildah, podman or docker, all with the same result."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

EngineName = Literal["buildah", "podman", "docker"]

PYTHON_BASE = "docker.io/library/python:3.11-slim-bookworm"
DEBIAN_BASE = "localhost/stillscan-base:bookworm"
DEBIAN_SUITE = "bookworm"
DEBIAN_PACKAGES = ("python3", "libstdc++6", "ca-certificates")
# copyright notices are kept; manuals and translations are left out
NOT_IN_BASE = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")


class BuildError(Exception):
    """A required program is missing, or failed."""


@dataclass(frozen=True)
class Engine:
    """A container engine.

    Attributes:
        name: name of the engine.
        storage: arguments for the place of images; empty for the engine's default.
    """

    name: EngineName
    storage: tuple[str, ...] = field(default=())

    def build(self, context: Path, tag: str, arguments: Mapping[str, str], epoch: int) -> None:
        """Build the image of a context.

        Args:
            context: folder with a Containerfile.
            tag: name of the image.
            arguments: values of the ARG lines of the Containerfile.
            epoch: time of every file of the image.

        Raises:
            BuildError: if the engine fails.
        """
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        common = [f"--tag={tag}", f"--file={context / 'Containerfile'}", *given, str(context)]
        if self.name == "docker":
            # BuildKit's name for --timestamp
            stamp = [f"--build-arg=SOURCE_DATE_EPOCH={epoch}"]
            stamp += [f"--output=type=docker,name={tag},rewrite-timestamp=true"]
            self._run("buildx", "build", *stamp, *common)
        else:
            # chroot also works inside a container that may not create namespaces
            isolated = ["--isolation=chroot", f"--timestamp={epoch}", "--layers=false"]
            self._run("build", *isolated, *common)

    def size(self, tag: str) -> str:
        """Return the unpacked size of an image as text."""
        if self.name == "buildah":
            return str(json.loads(self._read("images", "--json", tag))[0]["size"])
        return f"{int(self._read('image', 'inspect', '--format={{.Size}}', tag)) / 1e9:.2f} GB"

    def digest(self, tag: str) -> str:
        """Return the digest of an image's configuration; equal content has equal digests."""
        if self.name == "buildah":
            found = json.loads(self._read("inspect", "--type=image", tag))
            return str(found["FromImageID"])
        return self._read("image", "inspect", "--format={{.Id}}", tag).strip()

    def archive(self, tag: str, file: Path) -> None:
        """Write an image into a compressed OCI archive, as a registry would keep it."""
        if self.name == "buildah":
            self._run("push", "--quiet", tag, f"oci-archive:{file}")
        else:
            form = [] if self.name == "docker" else ["--format=oci-archive"]
            self._run("save", *form, f"--output={file}", tag)

    def _run(self, *words: str) -> None:
        done = subprocess.run([self.name, *self.storage, *words], check=False)
        if done.returncode:
            raise BuildError(f"{self.name} {words[0]} failed with exit code {done.returncode}")

    def _read(self, *words: str) -> str:
        command = [self.name, *self.storage, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(f"{self.name} {words[0]}: {done.stderr.strip()}")
        return done.stdout


def find_engine(wanted: str | None, storage: Sequence[str]) -> Engine:
    """Find the engine of this name, or the first that is installed.

    Raises:
        BuildError: if there is none.
    """
    for name in get_args(EngineName):
        if wanted in (None, name) and shutil.which(name):
            return Engine(name, tuple(storage))
    raise BuildError(f"{wanted or ', '.join(get_args(EngineName))}: not installed")


def bootstrap(engine: Engine, folder: Path, epoch: int, mirrors: Sequence[str]) -> str:
    """Build a base image from Debian packages, without a registry.

    Args:
        engine: engine that stores the image as `DEBIAN_BASE`.
        folder: working folder, some 150 MB.
        epoch: time of every file.
        mirrors: source lines for apt, including security updates.

    Returns:
        The name of the image.

    Raises:
        BuildError: if mmdebstrap is missing or fails.
    """
    if not shutil.which("mmdebstrap"):
        raise BuildError("mmdebstrap: not installed")
    command = ["mmdebstrap", "--quiet", "--variant=essential"]
    command += [f"--include={','.join(DEBIAN_PACKAGES)}"]
    command += [f"--dpkgopt=path-exclude={each}" for each in NOT_IN_BASE]
    command += ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    command += [DEBIAN_SUITE, str(folder / "base.tar"), *mirrors]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        raise BuildError(f"mmdebstrap failed with exit code {done.returncode}")
    (folder / "Containerfile").write_text("FROM scratch\nADD base.tar /\n", encoding="utf-8")
    engine.build(folder, DEBIAN_BASE, {}, epoch)
    return DEBIAN_BASE
