"""The programs that build an image: buildah, podman or docker, the same image with each."""

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
# A container needs copyright notices, and no manuals or translations.
NOT_IN_BASE = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")


class BuildError(Exception):
    """A program that is needed is missing, or failed."""


@dataclass(frozen=True)
class Engine:
    """A container engine.

    Attributes:
        name: which.
        storage: arguments that say where images are kept; empty for the engine's own place.
    """

    name: EngineName
    storage: tuple[str, ...] = field(default=())

    def build(self, context: Path, tag: str, arguments: Mapping[str, str], epoch: int) -> None:
        """Build the image of a context.

        Args:
            context: folder with a Containerfile.
            tag: name of the image.
            arguments: for the ARG lines of the Containerfile.
            epoch: the time that every file of the image bears.

        Raises:
            BuildError: if the engine fails.
        """
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        common = [f"--tag={tag}", f"--file={context / 'Containerfile'}", *given, str(context)]
        if self.name == "docker":
            # rewrite-timestamp is what BuildKit calls --timestamp
            stamp = [f"--build-arg=SOURCE_DATE_EPOCH={epoch}"]
            stamp += [f"--output=type=docker,name={tag},rewrite-timestamp=true"]
            self._run("buildx", "build", *stamp, *common)
        else:
            # chroot: works inside a container too, where there is no right to make namespaces
            isolated = ["--isolation=chroot", f"--timestamp={epoch}", "--layers=false"]
            self._run("build", *isolated, *common)

    def size(self, tag: str) -> str:
        """How large an image is, unpacked, for a person."""
        if self.name == "buildah":
            return str(json.loads(self._read("images", "--json", tag))[0]["size"])
        return f"{int(self._read('image', 'inspect', '--format={{.Size}}', tag)) / 1e9:.2f} GB"

    def digest(self, tag: str) -> str:
        """Digest of an image's configuration: the same content is the same digest."""
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
    """The engine of this name, or the first that is installed.

    Raises:
        BuildError: if there is none.
    """
    for name in get_args(EngineName):
        if wanted in (None, name) and shutil.which(name):
            return Engine(name, tuple(storage))
    raise BuildError(f"{wanted or ', '.join(get_args(EngineName))}: not installed")


def bootstrap(engine: Engine, folder: Path, epoch: int, mirrors: Sequence[str]) -> str:
    """Make a base image from Debian packages alone; no registry is asked.

    Args:
        engine: gets the image, named `DEBIAN_BASE`.
        folder: for the file system, some 150 MB.
        epoch: the time of every file.
        mirrors: sources lines for apt, security updates among them.

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
