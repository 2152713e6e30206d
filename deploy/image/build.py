"""Build the MONAI Application Package, with buildah, podman or docker.

The same commit, wheels and base give the same image: packages are locked by digest
(`deploy/image/*.lock`), and every file has the time SOURCE_DATE_EPOCH or that of the commit.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stillscan import __version__
from stillscan.app.settings import load_settings
from stillscan.deploy.image.context import assemble
from stillscan.deploy.image.engines import PYTHON_BASE, BuildError, Engine, bootstrap, find_engine
from stillscan.deploy.image.packages import ROOT, Variant
from stillscan.deploy.image.wheels import WheelError, fetch

WHEELS = ROOT / "build" / "wheels"


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stillscan.deploy.image.build", description=__doc__
    )
    parser.add_argument("--variant", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--gateway", action="store_true", help="include the packages of stillscan-gateway (4 MB)"
    )
    parser.add_argument(
        "--tag", help="name of the image; default: localhost/stillscan:VERSION-VARIANT"
    )
    parser.add_argument("--engine", choices=["buildah", "podman", "docker"])
    parser.add_argument(
        "--storage",
        action="append",
        default=[],
        metavar="ARGUMENT",
        help="engine argument for the place of images, e.g. --root=DIR",
    )
    base = parser.add_mutually_exclusive_group()
    base.add_argument("--base", default=PYTHON_BASE, help=f"base image; default: {PYTHON_BASE}")
    base.add_argument(
        "--bootstrap",
        action="store_true",
        help="build the base with mmdebstrap, without a registry",
    )
    parser.add_argument(
        "--debian",
        default="",
        metavar="URL",
        help="Debian mirror for --bootstrap; default: mmdebstrap's own",
    )
    parser.add_argument(
        "--wheels",
        type=Path,
        default=WHEELS,
        help="folder with wheels; missing ones are downloaded",
    )
    parser.add_argument(
        "--pip",
        action="append",
        default=[],
        metavar="OPTION",
        help="option for pip download, e.g. --pip=--extra-index-url=URL for torch's CPU wheel",
    )
    parser.add_argument("--archive", type=Path, help="also write a compressed OCI archive")
    return parser.parse_args(arguments)


def build(options: argparse.Namespace, engine: Engine, work: Path) -> str:
    """Build the image and return its name.

    Raises:
        WheelError: if a locked wheel cannot be found.
        BuildError: if a program is missing or fails.
    """
    epoch = build_epoch()
    variants: list[Variant] = [options.variant]
    if options.gateway:
        variants.append("gateway")
    fetch(variants, options.wheels, options.pip)
    assemble(work / "context", variants, options.wheels, epoch)
    base = options.base
    if options.bootstrap:
        (work / "base").mkdir()
        base = bootstrap(engine, work / "base", epoch, debian_sources(options.debian))
    tag = options.tag or f"localhost/stillscan:{__version__}-{'-'.join(variants)}"
    arguments = {
        "BASE": base,
        "BASE_DIGEST": engine.digest(base) if options.bootstrap else "",
        "TITLE": load_settings().application.title,
        "VERSION": __version__,
        "REVISION": git("rev-parse", "HEAD"),
        "SDK_VERSION": importlib.metadata.version("monai-deploy-app-sdk"),
        "HOLOSCAN_VERSION": importlib.metadata.version("holoscan-cu13"),
        "VISIBLE_GPUS": "all" if options.variant == "cuda" else "void",
    }
    engine.build(work / "context", tag, arguments, epoch)
    return tag


def debian_sources(mirror: str) -> list[str]:
    """Return the sources for apt: release, updates, security updates; none: mmdebstrap's own."""
    if not mirror:
        return []
    return [
        f"deb {mirror}/debian bookworm main",
        f"deb {mirror}/debian bookworm-updates main",
        f"deb {mirror}/debian-security bookworm-security main",
    ]


def build_epoch() -> int:
    """Return SOURCE_DATE_EPOCH, or the time of the commit."""
    stated = os.environ.get("SOURCE_DATE_EPOCH")
    return int(stated or git("log", "-1", "--format=%ct") or 0)


def git(*words: str) -> str:
    """Return the output of git for this checkout; empty if it is not a checkout."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def main() -> None:
    """Build, and print name and size of the image."""
    options = parse_arguments(sys.argv[1:])
    try:
        engine = find_engine(options.engine, options.storage)
        with tempfile.TemporaryDirectory(prefix="stillscan-image-") as work:
            tag = build(options, engine, Path(work))
        lines = [f"{tag} ({engine.digest(tag)})", f"unpacked: {engine.size(tag)}"]
        if options.archive:
            engine.archive(tag, options.archive)
            lines.append(f"compressed: {options.archive.stat().st_size / 1e9:.2f} GB")
    except (BuildError, WheelError) as error:
        sys.exit(f"build_image: {error}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
