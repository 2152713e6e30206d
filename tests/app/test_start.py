"""A short series is mostly start-up, so what is imported when is a promise."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REPORT = "import sys; print(*(name for name in {names} if name in sys.modules))"


def imported(module: str, *names: str) -> set[str]:
    """Those of `names` that importing `module` brings along."""
    code = f"import {module}; {REPORT.format(names=names)}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "stillscan.app.cli",
        "stillscan.app.__main__",
        "stillscan.app.pipeline.pipeline",
        "stillscan.app.pipeline.console",
    ],
)
def test_the_reading_child_can_start_before_torch_and_holoscan_are_imported(module: str) -> None:
    assert imported(module, "torch", "holoscan", "monai", "highdicom") == set()


@pytest.mark.slow
def test_the_graph_needs_neither_monai_nor_highdicom() -> None:
    names = ("torch", "holoscan", "monai", "highdicom", "skimage", "jinja2")
    seen = imported("stillscan.app.pipeline.application", *names)
    assert seen == {"torch", "holoscan"}


def test_our_application_is_a_monai_deploy_application() -> None:
    from monai.deploy.core import Application

    from stillscan.app.pipeline.application import DenoiseApp

    assert issubclass(DenoiseApp, Application)
