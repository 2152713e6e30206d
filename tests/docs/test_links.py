"""Every link of README and docs leads to a file that is there, and to a heading that it has."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS += sorted((ROOT / "deploy").rglob("*.md"))
CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


def prose(document: Path) -> str:
    return CODE.sub("", document.read_text(encoding="utf-8"))


def anchors(document: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_to_files_and_headings(document):
    for target in LINK.findall(prose(document)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        leads_to = document.parent / path if path else document
        assert leads_to.exists(), target
        assert not anchor or anchor in anchors(leads_to), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_headings_have_anchors_of_their_own(document):
    """GitHub and the site number equal headings in different ways."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    assert len(anchors(document)) == len(headings)


def test_every_document_can_be_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        document = waiting.pop()
        reached.add(document)
        found = (LINK.findall(prose(document)), document.parent)
        linked = {(found[1] / each.partition("#")[0]).resolve() for each in found[0]}
        waiting += [each for each in linked if each.suffix == ".md" and each not in reached]
    assert not set(DOCUMENTS) - reached


MADE = "bench/results/"  # by the programs, on the reader's machine


def test_every_named_file_of_the_code_is_there():
    """Paths in backquotes, such as `app/evaluation/lesions.py`."""
    for document in DOCUMENTS:
        for path in re.findall(
            r"`((?:app|bench|deploy|models|operators|tests)/[\w/.-]+\w)`", prose(document)
        ):
            there = [ROOT / path, ROOT / "models/bundles/mr" / path]  # or inside a bundle
            if path.startswith(MADE):
                continue
            assert any(each.exists() for each in there), f"{name(document)}: {path}"


def test_every_named_module_is_there():
    """`python -m bench.studies.leak` and the like, also in blocks of code."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for module in re.findall(r"python3? -m ((?:app|bench|deploy)[\w.]*\w)", text):
            path = ROOT / module.replace(".", "/")
            there = path.with_suffix(".py").exists() or (path / "__main__.py").exists()
            assert there, f"{name(document)}: {module}"
