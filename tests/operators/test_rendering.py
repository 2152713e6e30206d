"""Pages from templates: nothing is taken for markup, nothing is left out silently."""

import re
from pathlib import Path

import jinja2
import pytest

from stillscan.deploy.image.context import copy_application
from stillscan.operators.report.rendering import SHARED, _environment, render

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted(
    path
    for layer in ("operators", "app", "deploy")
    for path in (ROOT / layer).rglob("*.html.j2")
    if ".venv" not in path.parts
)


def test_every_value_is_escaped(tmp_path: Path):
    (tmp_path / "a.html.j2").write_text('<p title="{{ title }}">{{ title }}</p>')
    page = render(tmp_path / "a.html.j2", title="""<i>"'&""")
    assert page == '<p title="&lt;i&gt;&#34;&#39;&amp;">&lt;i&gt;&#34;&#39;&amp;</p>'


def test_a_value_that_is_missing_is_an_error(tmp_path: Path):
    (tmp_path / "a.html.j2").write_text("{{ there }}{{ missing }}")
    with pytest.raises(jinja2.UndefinedError, match="missing"):
        render(tmp_path / "a.html.j2", there=1)


def test_macros_of_the_report_can_be_used_in_every_room(tmp_path: Path):
    (tmp_path / "a.html.j2").write_text(
        '{% from "parts.html.j2" import section %}{{ section(part) }}'
    )
    page = render(tmp_path / "a.html.j2", part={"heading": "<b>", "rows": [("a", "<c>")]})
    assert "<h2>&lt;b&gt;</h2>" in page
    assert "<th>a</th><td>&lt;c&gt;</td>" in page


def test_no_template_switches_escaping_off():
    assert {path.parent for path in TEMPLATES} >= {SHARED.resolve()}
    for path in TEMPLATES:
        _environment(path.parent).get_template(path.name)  # it can be compiled
        assert not re.search(r"\|\s*safe", path.read_text(encoding="utf-8"))
        assert "autoescape" not in path.read_text(encoding="utf-8")


def test_templates_come_into_the_image(tmp_path: Path):
    copy_application(tmp_path)
    copied = {path.name for path in tmp_path.rglob("*.html.j2")}
    assert copied == {path.name for path in TEMPLATES}
