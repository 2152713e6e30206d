"""Renders HTML from Jinja2 templates: every value is escaped, a missing value is an error.

Each package has its templates in a folder `templates`; those of this package can be included by
all. jinja2 is imported when the first page is rendered.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import jinja2

SHARED = Path(__file__).with_name("templates")
INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


class Number(NamedTuple):
    """A figure at the top of a page; `small` follows it in small type (a unit)."""

    name: str
    value: str
    small: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with a list below it, or with a table of names and values."""

    heading: str
    items: Sequence[str] = ()
    rows: Sequence[tuple[str, str]] = ()


def render(template: Path, **values: object) -> str:
    """Render a template with the values.

    Raises:
        jinja2.UndefinedError: if the template uses a value that is not given.
    """
    return _environment(template.parent).get_template(template.name).render(values)


def policy_of(page: str) -> str:
    """Return the Content-Security-Policy of a page: its own inline style and script alone."""

    def hashes(element: str) -> str:
        found = [text for name, text in INLINE.findall(page) if name == element]
        digests = [b64encode(sha256(text.encode()).digest()).decode() for text in found]
        return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"

    return (
        f"default-src 'none'; img-src data:; style-src {hashes('style')}; "
        f"script-src {hashes('script')}; base-uri 'none'; form-action 'none'"
    )


@cache
def _environment(folder: Path) -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, SHARED]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
