"""docs/requirements.md: tests that exist keep each requirement; each mark is a requirement."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = re.findall(
    r"^\| ([WS]\d+) \| (.+) \| (.+) \|$",
    (ROOT / "docs/requirements.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
NUMBERS = [*(f"W{number}" for number in range(1, 13)), *(f"S{number}" for number in range(1, 9))]
# in parentheses at the end of a statement, "(W1, W9)" or "(retired in 2004, W8)"; or "(W1-W9)"
MARKED = re.compile(r"\((?:[^()]*, |[^()]*; )?([WS]\d{1,2}(?:(?:, |-)[WS]\d{1,2})*)\)")


@cache
def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_number_is_there_once_and_in_order():
    assert [number for number, _, _ in ROWS] == NUMBERS


@pytest.mark.parametrize(("number", "sentence", "kept_by"), ROWS, ids=NUMBERS)
def test_the_tests_that_keep_a_requirement_exist(number, sentence, kept_by):
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", kept_by)
    assert named
    assert len(named) == kept_by.count("`") / 2, "something else stands among the tests"
    for file, name in named:
        assert name in functions_of(ROOT / file), f"{number}: {file}::{name}"


def test_every_mark_in_the_code_is_a_requirement():
    marks = set()
    for folder in ("app", "operators", "models", "deploy", "tests", "docs"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".md"):
                for found in MARKED.findall(file.read_text(encoding="utf-8")):
                    marks |= set(re.split(r", |-", found))
    assert len(marks) > 10
    assert marks <= set(NUMBERS)
