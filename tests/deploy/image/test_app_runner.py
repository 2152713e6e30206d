"""`monai-deploy run` starts our image; its calls of Docker go to podman.

The runner asks for Docker, its buildx plug-in and NVIDIA's runtime. Here it finds programs of these
names that do nothing, or are podman; everything between is its own code.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.image.conftest import Image

# Runs the runner with docker_run's container calls handed to podman. python-on-whales talks to a
# `docker` program and reads its JSON, in which podman differs: only the start itself is replaced.
RUNNER = """
import json, subprocess, sys
from holoscan_cli.common import dockerutils
from holoscan_cli.runner import runner

podman = json.loads(sys.argv.pop(1))

def start(name, image, manifest, quiet, commands, network, user, volumes, environment, shm_size,
          ipc, ulimits, devices, groups, remove):
    words = [*podman, "run", "--rm", "--network=none", f"--user={user}"]
    words += [f"--workdir={manifest['workingDirectory']}"]
    words += ["--ulimit=nofile=20000:20000", "--ulimit=nproc=4096:4096"]
    words += [f"--env={key}={value}" for key, value in environment.items()]
    words += [f"--volume={source}:{target}" for source, target in volumes]
    code = subprocess.run([*words, image, *commands], check=False).returncode
    if code:
        raise RuntimeError(f"exited with code {code}")

dockerutils._start_container = start
runner.image_exists = lambda name: not subprocess.call([*podman, "image", "exists", name])
runner.create_or_use_network = lambda network, name: network

from holoscan_cli.__main__ import main
main(["monai-deploy", *sys.argv[1:]])
"""


@pytest.fixture
def programs(image: Image, tmp_path: Path) -> Path:
    """A folder with `docker`, which is podman, and what else the runner looks for."""
    folder = tmp_path / "bin"
    plugins = tmp_path / "home/.docker/cli-plugins"
    plugins.mkdir(parents=True)
    folder.mkdir()
    words = " ".join(f"'{word}'" for word in image.podman)
    scripts = {
        folder / "docker": f'exec {words} "$@"',
        folder / "nvidia-smi": "exit 0",
        plugins / "docker-buildx": "exit 0",
    }
    for script, line in scripts.items():
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)
    return folder


def monai_deploy_run(
    image: Image, programs: Path, source: Path, output: Path
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUNNER, json.dumps(image.podman), "run", image.name]
    command += ["--input", str(source), "--output", str(output), "--uid", "4711", "--gid", "4711"]
    path = f"{programs}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HOME": str(programs.parent / "home")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_runner_reads_the_manifests_and_runs_the_image(
    image: Image, programs: Path, source: Path, output: Path
) -> None:
    done = monai_deploy_run(image, programs, source, output)
    assert done.returncode == 0, done.stderr
    assert len(list(output.glob("*/*.dcm"))) == len(list(source.iterdir()))
    assert "Reading HAP/MAP manifest" in done.stdout + done.stderr


def test_the_runner_learns_of_a_failure(
    image: Image, programs: Path, output: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    done = monai_deploy_run(image, programs, tmp_path / "in", output)
    assert done.returncode == 2
    assert "exited with code 3" in done.stdout + done.stderr
