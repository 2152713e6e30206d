"""The commands as a person and a platform start them."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IDENTITY = "app.identity.yaml"
SPARE = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}  # other tests need the other cores


@pytest.fixture
def stillscan() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`stillscan(...)` runs the command in a process of its own."""

    def start(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from stillscan.app.cli import main; main()"]
        return subprocess.run(
            [*command, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
        )

    return start


@pytest.fixture
def identity_settings(tmp_path: Path) -> Path:
    """Settings like the shipped ones, in identity mode."""
    shipped = (ROOT / "app" / "app.yaml").read_text()
    path = tmp_path / IDENTITY
    path.write_text(shipped.replace("mode: student", "mode: identity"))
    return path


@pytest.fixture
def python_app(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python_app(...)` runs `python <checkout>/app ...` from a folder that is not the checkout."""

    def start(
        *arguments: object, environment: Mapping[str, object] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "app"), *map(str, arguments)],
            cwd=tmp_path,
            env=SPARE | {k: str(v) for k, v in (environment or {}).items()},
            capture_output=True,
            text=True,
            check=False,
        )

    return start
