"""Documents may link to files of the repository: the site shows each of them as a page.

Plain Markdown, as it is read in a checkout, links to `../deploy/compose.yaml`. The site is made of
`docs/` alone, so a hook of MkDocs (`mkdocs.yml`) adds every file that is linked: Markdown as it is,
other files as code, a folder as the list of its files. Nothing is copied by hand and no link is
written twice. Where a link is called by its file (`[safety.md](safety.md)`), the site calls it by
the title of the page.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)")
FILE_NAME = re.compile(r"\[(?:docs/)?([\w-]+\.md)\]\(([\w./-]+\.md)")
LANGUAGES = {".yaml": "yaml", ".json": "json", ".py": "python", ".lua": "lua", ".service": "ini"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for every file outside `docs/` that a document links to, and for theirs."""
    docs = Path(config.docs_dir)
    waiting = [(each.src_uri, each.content_string) for each in files.documentation_pages()]
    while waiting:
        uri, text = waiting.pop()
        for target in linked_files(place_of(uri, docs), text):
            page = page_uri(target, docs)
            if target.is_relative_to(docs) or page == "index.md" or page in files.src_uris:
                continue
            content = content_of(target, target.relative_to(docs.parent).as_posix())
            files.append(File.generated(config, page, content=content))
            if target.suffix == ".md":
                waiting.append((page, content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that lead out of `docs/` into links to the pages that were added for them."""
    docs = Path(config.docs_dir)
    here = place_of(page.file.src_uri, docs)
    parent = PurePosixPath(page.file.src_uri).parent

    def on_the_site(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(here / link[1]))
        if not target.exists():
            return link[1]  # left as it is, for the strict build to find
        return posixpath.relpath(page_uri(target, docs), parent)

    def by_its_title(link: re.Match[str]) -> str:
        file = files.get_file_from_path(posixpath.normpath(parent / link[2]))
        title = file.page.title if file and file.page else link[1]
        return f"[{title}]({link[2]}"

    return FILE_NAME.sub(by_its_title, LINK.sub(on_the_site, markdown))


def place_of(uri: str, docs: Path) -> Path:
    """The folder of the checkout in which the source of a page lies."""
    return (docs if (docs / uri).exists() else docs.parent).joinpath(uri).parent


def linked_files(folder: Path, text: str) -> Iterator[Path]:
    """Files and folders that a document in this folder links to, where they exist."""
    for link in LINK.findall(text):
        target = Path(os.path.normpath(folder / link))
        if target.exists():
            yield target


def page_uri(target: Path, docs: Path) -> str:
    """Where the site shows a file of the checkout; the README is what its first page says."""
    if target.is_relative_to(docs):
        return target.relative_to(docs).as_posix()
    inside = target.relative_to(docs.parent)
    if inside == Path("README.md"):
        return "index.md"
    if target.is_dir():
        return (inside / "index.md").as_posix()
    if target.suffix == ".md":
        return inside.as_posix()
    return f"{inside.as_posix()}.md"


def content_of(target: Path, title: str) -> str:
    """Markdown that shows a file, or all files of a folder."""
    if target.is_dir():
        listed = sorted(each for each in target.rglob("*") if each.is_file())
        return f"# {title}\n\n" + "\n".join(shown(each, target) for each in listed)
    text = target.read_text(encoding="utf-8")
    return text if target.suffix == ".md" else f"# {title}\n\n{shown_text(target, text)}"


def shown(file: Path, folder: Path) -> str:
    """One file of a folder under a heading of its own."""
    text = file.read_text(encoding="utf-8")
    return f"## {file.relative_to(folder).as_posix()}\n\n{shown_text(file, text)}"


def shown_text(file: Path, text: str) -> str:
    """A file as code; the fence is longer than any that it may hold."""
    return f"~~~~~~{LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n~~~~~~\n"
