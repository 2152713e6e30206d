"""The build context of the image: everything in it is copied, nothing is downloaded.

Containerfile
site-packages/      the locked wheels, unpacked
root/               all other files, at their places in the image
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.deploy.image.manifest import (
    APPLICATION,
    ENVIRONMENT,
    MODELS,
    application_manifest,
    package_manifest,
)
from stillscan.deploy.image.packages import ROOT, Variant, read_lock
from stillscan.deploy.image.wheels import locked_wheels, unpack

PACKAGES = ("models", "operators", "deploy")  # beside `app`, whose place a MAP defines
DOCUMENTS = ("README.md", "CHANGELOG.md", "LICENSE", "docs")
TOOLS = "/var/holoscan/tools"
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")
WITHOUT_BUNDLES = shutil.ignore_patterns("__pycache__", "*.pyc", "bundles")  # `models`: see MODELS
SCRIPT = """\
#!/usr/bin/env -S python3 -s
import sys

from {module} import {function}

sys.exit({function}())
"""


def assemble(folder: Path, variants: Iterable[Variant], wheels: Path, epoch: int) -> None:
    """Create the build context of an image in an empty folder.

    Args:
        folder: folder of the context, which is created.
        variants: `cpu` or `cuda`, and `gateway` to include its packages.
        wheels: folder with the locked wheels.
        epoch: time of every file in seconds, so that equal content gives equal images.

    Raises:
        WheelError: if a wheel is missing or differs from the locked one.
    """
    variants = list(variants)
    folder.mkdir(parents=True)
    locked = [each for variant in variants for each in read_lock(variant)]
    unpack(locked_wheels(locked, wheels), folder / "site-packages")
    shutil.copyfile(ROOT / "deploy" / "Containerfile", folder / "Containerfile")
    copy_application(folder / "root")
    lock = folder / "root/opt/stillscan/packages.lock"
    lock.write_text("".join(f"{each}\n" for each in locked), encoding="utf-8")
    write_manifests(folder / "root", "dgpu" if "cuda" in variants else "cpu")
    write_scripts(folder / "root" / "usr/local/bin")
    settle(folder, epoch)


def copy_application(root: Path) -> None:
    """Copy code, bundles, documents and settings to their places."""
    application, models = root / APPLICATION[1:], root / MODELS[1:]
    shutil.copytree(ROOT / "app", application, ignore=LEFT_OUT)
    shutil.copytree(DEFAULT_BUNDLES, models)
    code = root / "opt/stillscan/stillscan"
    for name in ("__init__.py", "py.typed"):
        code.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "stillscan" / name, code / name)
    shutil.copyfile(ROOT / "pyproject.toml", code.parent / "pyproject.toml")  # contains the version
    for name in PACKAGES:
        left_out = WITHOUT_BUNDLES if name == "models" else LEFT_OUT
        shutil.copytree(ROOT / name, code / name, ignore=left_out)
    (code / "app").symlink_to(APPLICATION)
    (code / "models/bundles").symlink_to(MODELS)
    for name in DOCUMENTS:
        source, target = ROOT / name, root / ENVIRONMENT["HOLOSCAN_DOCS_PATH"][1:] / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    work = root / "var/holoscan"
    for name in ("input", "output"):
        (work / name).mkdir(parents=True)
    shutil.copyfile(ROOT / "app/app.yaml", root / ENVIRONMENT["HOLOSCAN_CONFIG_PATH"][1:])
    shutil.copyfile(ROOT / "deploy/image/tools", root / TOOLS[1:])
    (root / TOOLS[1:]).chmod(0o755)


def write_manifests(root: Path, platform: str) -> None:
    """Write `app.json` and `pkg.json`."""
    bundles = [each.name for each in DEFAULT_BUNDLES.iterdir() if each.is_dir()]
    sdk_version = importlib.metadata.version("monai-deploy-app-sdk")
    _write_json(root, "HOLOSCAN_APP_MANIFEST_PATH", application_manifest(sdk_version))
    _write_json(root, "HOLOSCAN_PKG_MANIFEST_PATH", package_manifest(bundles, platform))


def _write_json(root: Path, variable: str, content: dict[str, Any]) -> None:
    file = root / ENVIRONMENT[variable][1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_scripts(folder: Path) -> None:
    """Write the commands of the project (`stillscan`, `stillscan-gateway`)."""
    folder.mkdir(parents=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, target in project["scripts"].items():
        module, _, function = target.partition(":")
        (folder / name).write_text(SCRIPT.format(module=module, function=function))
        (folder / name).chmod(0o755)


def settle(folder: Path, epoch: int) -> None:
    """Set one time for all files and folders, and modes that do not depend on the builder."""
    for path in [*folder.rglob("*"), folder]:
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
