"""`make docs` builds the site without a network, and its pages ask for none."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.conftest import need

ROOT = Path(__file__).resolve().parents[2]
# what the design of the house calls the names that bind
NAMES = [
    "Volume",
    "read_series",
    "Scaling",
    "Denoiser",
    "BlindSpotDenoiser",
    "DiffusionDenoiser",
    "StudentDenoiser",
    "IdentityDenoiser",
    "NoiseProfile",
    "NoiseSchedule",
    "ddim_sample",
    "srds_sample",
    "train_blind_spot",
    "train_diffusion",
    "distill",
    "derive_series",
    "Provenance",
    "Verdict",
    "DenoiseOperator",
    "GateOperator",
    "SeriesReaderOperator",
    "DerivedSeriesWriterOperator",
    "DenoiseApp",
    "Settings",
    "denoise_volume",
    "judge",
]

pytestmark = [pytest.mark.tools, pytest.mark.slow]


@pytest.fixture(scope="module")
def site(tool, tmp_path_factory) -> Path:
    """The site, built where no network can be reached."""
    alone = [tool("unshare"), "-n"] if os.geteuid() == 0 else [tool("unshare"), "-r", "-n"]
    allowed = subprocess.run([*alone, "true"], capture_output=True, check=False)
    need(allowed.returncode == 0, "this machine does not allow a network namespace")
    out = tmp_path_factory.mktemp("site")
    mkdocs = [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "--site-dir", out]
    build = subprocess.run(
        [*alone, *mkdocs], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert build.returncode == 0, build.stderr
    return out


@pytest.fixture(scope="module")
def browser(tool):
    with sync_playwright() as playwright:
        # a container's root has no namespaces for chromium's own sandbox
        options = {"executable_path": tool("chromium"), "args": ["--no-sandbox"]}
        browser = playwright.chromium.launch(**options)
        yield browser
        browser.close()


def test_every_document_is_a_page(site):
    for document in (ROOT / "docs").rglob("*.md"):
        page = document.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / page).is_file()


def test_the_notebooks_of_the_gallery_were_run(site):
    said = {path.stem: path.read_text(encoding="utf-8") for path in site.glob("gallery/[!i]*.html")}
    assert len(said) == 4
    psnr = [float(each) for each in re.findall(r"PSNR ([\d.]+) dB", said["strengths"])]
    assert len(psnr) == 4
    assert psnr == sorted(psnr)
    assert "sub-01_desc-denoised_T1w.nii.gz" in said["nifti_and_bids"]
    assert "exit code 0" in said["own_training_data"]
    assert "blur: refuse" in said["what_the_gate_caught"]
    assert len([*site.glob("gallery/*.png")]) >= 2


def test_pages_load_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=\"?([^\" >]+)",
            page.read_text(encoding="utf-8"),
        )
        assert loaded
        assert not [each for each in loaded if "//" in each], page
    for style in site.rglob("*.css"):
        urls = re.findall(r"url\(\"?([^)\"]+)", style.read_text(encoding="utf-8"))
        assert not [each for each in urls if each.startswith(("http", "//"))], style


@pytest.mark.parametrize("name", NAMES)
def test_the_names_of_the_house_are_documented(site, name):
    pages = "".join(page.read_text(encoding="utf-8") for page in site.glob("api/*.html"))
    assert re.search(rf'<h3 id="?[\w.]+\.{name}"?', pages)


def test_search_works_on_pages_read_from_the_disk(site, browser):
    page = browser.new_page()
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((site / "index.html").as_uri())
    page.locator("input.md-search__input").click()
    page.keyboard.type("low-contrast detectability")
    found = page.locator(".md-search-result__link").first
    found.wait_for(timeout=60_000)
    assert "method.html" in (found.get_attribute("href") or "")
    assert not wrong
    assert all(url.startswith(("file:", "data:", "blob:", "about:")) for url in asked)
    page.close()


def test_a_wide_table_scrolls_and_not_the_page(site, browser):
    page = browser.new_page(viewport={"width": 900, "height": 900})
    page.goto((site / "method.html").as_uri())
    page.wait_for_selector(".md-typeset__scrollwrap")
    wide = page.evaluate(
        "[...document.querySelectorAll('.md-typeset__scrollwrap')]"
        ".filter(each => each.scrollWidth > each.clientWidth).length"
    )
    assert wide
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
