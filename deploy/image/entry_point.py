"""Entry point of the image: `show`, `env`, `extract` or, by default, `run`.

The exit code is the application's own, or 128 + n if signal n ended it. Nothing of a failed run
stays in the output folder, since some platforms look only at its contents. Only the standard
library is used, so that a broken application can still be inspected.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from stillscan.deploy.image.mercure import MercureTask, task_of

EXPORT = Path("/var/run/holoscan/export")
STACK_BYTES = 32 << 20  # holoscan's minimum; containers start with 8 MB
STAGING, LOCK = ".stillscan-*", "writer.lock"  # as in `stillscan.app.pipeline.output_folder`
USAGE_FAULT, OUTPUT_FAULT = 2, 7  # as in `stillscan.operators.errors.ExitCode`

USAGE = """\
usage: show [app|pkg] | env | extract | run [ARGUMENTS]   (default: run)

  show      print the manifests, or one of them
  env       print the environment
  extract   copy into the folder mounted at /var/run/holoscan/export: application, manifests and
            settings, models, documents; only those of the subfolders app, config, models, docs
            that exist there, or all if none exists
  run       denoise the files in HOLOSCAN_INPUT_PATH into HOLOSCAN_OUTPUT_PATH
"""


def main() -> NoReturn:
    """Entry point of the image."""
    sys.exit(enter(sys.argv[1:], os.environ))


def enter(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command; arguments that begin with a dash are for the application."""
    match list(arguments):
        case ["show", *which] if set(which) <= {"app", "pkg"}:
            return show(which or ["app", "pkg"], environment)
        case ["env"]:
            lines = (f"{name}={value}\n" for name, value in sorted(environment.items()))
            sys.stdout.write("".join(lines))
            return 0
        case ["extract"]:
            return extract(environment)
        case ["help"]:
            sys.stdout.write(USAGE)
            return 0
        case ["run", *rest]:
            return run(rest, environment)
        case [first, *_] if not first.startswith("-"):
            sys.stderr.write(USAGE)
            return USAGE_FAULT
        case rest:
            return run(rest, environment)


def show(which: Sequence[str], environment: Mapping[str, str]) -> int:
    """Print manifests: one as it is, several as one JSON object with their names as keys."""
    manifests = {name: json.loads(manifest(name, environment).read_text()) for name in which}
    shown = manifests if len(manifests) > 1 else manifests[which[0]]
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    return 0


def manifest(name: str, environment: Mapping[str, str]) -> Path:
    """Return the path of `app.json` or `pkg.json`."""
    return Path(environment[f"HOLOSCAN_{name.upper()}_MANIFEST_PATH"])


def extract(environment: Mapping[str, str], export: Path = EXPORT) -> int:
    """Copy the parts of the package into the mounted folders."""
    if not export.is_dir():
        return complain(f"nothing is mounted at {export}", USAGE_FAULT)
    parts = {
        "app": [Path(environment["HOLOSCAN_APPLICATION"])],
        "config": [
            Path(environment["HOLOSCAN_CONFIG_PATH"]),
            manifest("app", environment),
            manifest("pkg", environment),
        ],
        "models": [Path(environment["HOLOSCAN_MODEL_PATH"])],
        "docs": [Path(environment["HOLOSCAN_DOCS_PATH"])],
    }
    wanted = [name for name in parts if (export / name).is_dir()] or list(parts)
    try:
        for name in wanted:
            for source in parts[name]:
                copy_contents(source, export / name)
    except OSError as error:
        return complain(f"{error.filename} cannot be written: {error.strerror}", OUTPUT_FAULT)
    return 0


def copy_contents(source: Path, target: Path) -> None:
    """Copy a file, or the contents of a folder, into a folder, without owners and modes."""
    target.mkdir(parents=True, exist_ok=True)
    for file in [source] if source.is_file() else source.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(source.parent if source.is_file() else source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start the application and wait for it.

    Returns:
        Its exit code. Under Mercure 0 also if some series were refused, since Mercure would discard
        the derived ones otherwise; the refused ones are listed in `result.json`.
    """
    raise_stack_limit()
    command = [*json.loads(json.loads(manifest("app", environment).read_text())["command"])]
    command += arguments
    task = task_of(environment)
    if task is None:
        return supervise(command, environment, Path(environment["HOLOSCAN_OUTPUT_PATH"]))
    return run_task(task, command, environment)


def run_task(task: MercureTask, command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run with the settings of a Mercure task and write its `result.json`."""
    before = set(task.output.glob("*"))
    try:
        with task.settings_file(Path(environment["HOLOSCAN_CONFIG_PATH"])) as settings:
            paths = {
                "HOLOSCAN_INPUT_PATH": str(task.input),
                "HOLOSCAN_OUTPUT_PATH": str(task.output),
                "HOLOSCAN_CONFIG_PATH": str(settings),
            }
            code = supervise(command, {**environment, **paths}, task.output)
            return task.report(code)
    except ValueError as error:
        return complain(str(error), USAGE_FAULT)
    except OSError as error:
        for entry in set(task.output.glob("*")) - before:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        return complain(f"the result cannot be written: {error.strerror}", OUTPUT_FAULT)


def raise_stack_limit() -> None:
    """Raise the stack limit to holoscan's minimum, as far as the host allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft != resource.RLIM_INFINITY and soft < STACK_BYTES:
        limit = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_STACK, (limit, hard))


def supervise(command: Sequence[str], environment: Mapping[str, str], output: Path) -> int:
    """Run a command to its end and forward the host's stop signals to it.

    A killed application cannot clean up: the files that it staged in `output` are removed here.
    """
    before = set(output.glob(STAGING))
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, hand_on)
    # its own session, so that an interrupt at a terminal reaches it once, through this process
    child = subprocess.Popen(command, env=dict(environment), start_new_session=True)
    for number in early:
        child.send_signal(number)
    code = child.wait()
    if code >= 0:
        return code
    for left in set(output.glob(STAGING)) - before:
        if not is_held(left):
            shutil.rmtree(left, ignore_errors=True)
    return complain(f"the application was ended by signal {-code}; nothing was written", 128 - code)


def is_held(staging: Path) -> bool:
    """Return whether another running process writes there, one that started later."""
    try:
        with (staging / LOCK).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock was made, or the file system has no locks
        return False
    return False


def complain(message: str, code: int) -> int:
    """Print an error and return the exit code."""
    sys.stderr.write(f"stillscan: {message}\n")
    return code
