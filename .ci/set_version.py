"""Set the version of a release in every place that states it: `python .ci/set_version.py 0.3.0`.

`pyproject.toml` decides. The other places are read by programs that cannot read that file (the MAP
packager, platforms that start the image) or by people; `tests/test_versions.py` keeps them equal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NUMBER = r"\d+\.\d+\.\d+"
SOURCE = ("pyproject.toml", r'(?m)^version = "({})"')
# files, and the text around the version in them
PLACES = (
    SOURCE,
    ("app/app.yaml", r"(?m)^  version: ({})$"),
    ("CITATION.cff", r"(?m)^version: ({})$"),
    ("docs/conformance.md", r"(?:version |STILLSCAN_)({})"),
    ("docs/*.md", r"stillscan:({})"),
    ("deploy/**/*.yaml", r"(?:stillscan:|newTag: )({})"),
    ("deploy/mercure/module.json", r"stillscan:({})"),
    ("deploy/monai-deploy/workflow-*.json", r'(?:stillscan:|"version": ")({})'),
)


def stated(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Yield each place (path, with the number of its line) and the version that it states."""
    for pattern, around in PLACES:
        for file in sorted(root.glob(pattern)):
            text = file.read_text(encoding="utf-8")
            for found in re.finditer(around.format(NUMBER), text):
                line = text.count("\n", 0, found.start(1)) + 1
                yield f"{file.relative_to(root)}:{line}", found[1]


def set_version(version: str, root: Path = ROOT) -> None:
    """Write `version` into every place below `root`.

    Raises:
        ValueError: if it is not three numbers with points between them.
    """
    if not re.fullmatch(NUMBER, version):
        raise ValueError(f"'{version}' is no version; expected three numbers, such as 0.3.0")
    for pattern, around in PLACES:
        for file in root.glob(pattern):
            text = file.read_text(encoding="utf-8")
            changed = re.sub(
                around.format(NUMBER), lambda found: found[0].replace(found[1], version), text
            )
            file.write_text(changed, encoding="utf-8")


if __name__ == "__main__":
    set_version(*sys.argv[1:])
