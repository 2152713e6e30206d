"""What the README says holds, and the tables under docs are complete."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stillscan.operators.errors import ExitCode
from tests.series_factory import make_series

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REASONS = (ROOT / "docs/reasons.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


def test_first_screen_has_the_two_commands_the_picture_and_the_limits():
    first_screen = README.split("\n## ")[0]
    assert COMMANDS[:2] == ["make demo", "make test"]
    for part in ("make demo", "make test", "docs/before-after.png", "not a cleared medical device"):
        assert part in first_screen


@pytest.mark.parametrize("command", re.findall(r"`make (\w+)", README))
def test_make_commands_exist(command):
    assert command in make_targets()


@pytest.mark.slow
@pytest.mark.parametrize("command", [each for each in COMMANDS if not each.startswith("make ")])
def test_commands_run(command, tmp_path):
    make_series(tmp_path / "IN", slices=2)
    places = {"IN": str(tmp_path / "IN"), "OUT": str(tmp_path / "OUT")}
    first, *rest = [places.get(word, word) for word in shlex.split(command)]
    program = Path(sys.executable).with_name(first)
    done = subprocess.run(
        [program, *rest], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    if "OUT" in command:
        assert len(list((tmp_path / "OUT").glob("*/*.dcm"))) == 2


def test_exit_codes_are_the_programs():
    documented = {int(code) for code in re.findall(r"^\| (\d) \|", REASONS, re.MULTILINE)}
    assert documented == {int(code) for code in ExitCode}


def test_every_setting_is_explained():
    settings = yaml.safe_load((ROOT / "app/app.yaml").read_text(encoding="utf-8"))
    table = (ROOT / "docs/settings.md").read_text(encoding="utf-8")

    def leaves(node):
        for key, value in node.items():
            if isinstance(value, dict):
                yield from leaves(value)
            else:
                yield key

    missing = {key for key in leaves(settings) if not re.search(rf"[`.]{key}`", table)}
    assert not missing


def test_every_reason_code_is_explained():
    codes = reason_codes()
    assert len(codes) > 80
    assert {"mixed-matrix", "result-refused", "reformatted", "no-noise", "ray-missing"} <= codes
    assert not {code for code in codes if f"| `{code}` |" not in REASONS}


def reason_codes() -> set[str]:
    """Codes of all errors, and of what the selection rules say."""
    found = set()
    for path in [*(ROOT / "operators").rglob("*.py"), *(ROOT / "app").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found |= {
                    each.value.value
                    for each in node.body
                    if isinstance(each, ast.Assign)
                    and getattr(each.targets[0], "id", "") == "reason"
                    and isinstance(each.value, ast.Constant)
                }
            names_a_reason = ("NotSelected", "KindRow")
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in names_a_reason:
                found |= {each.value for each in node.args[:1] if isinstance(each, ast.Constant)}
    return found - {"image"}
