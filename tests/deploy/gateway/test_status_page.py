"""In a real browser an operator sees the queue and the pictures of a series, and tries again."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Error, Page, sync_playwright

from stillscan.deploy.gateway.record.database import Database
from stillscan.deploy.gateway.record.quarantine import Quarantine
from stillscan.operators.report.display import Display
from stillscan.operators.report.outcome import SeriesOutcome
from stillscan.operators.report.page import write_series_page
from stillscan.operators.report.slices import SliceTexts, encoded
from tests.deploy.gateway.serving import TOKEN, record_job, serving

pytestmark = [pytest.mark.tools, pytest.mark.slow]

DERIVED_UID = "2.25.4711"
RESULT = {
    "noise": {"before": 8.0, "after": 2.0, "unit": "HU"},
    "verdict": {"decision": "accept with clamp", "reasons": ["because"], "measurements": {}},
    "warnings": ["look twice"],
}


@pytest.fixture(scope="module")
def browser(tool):
    chromium = tool("chromium")
    with sync_playwright() as playwright:
        # a container's root has no namespaces for chromium's own sandbox
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def web(tmp_path):
    with serving(tmp_path / "web") as running:
        sent = (("pacs", "dead", "unreachable"), ("disk", "sent", ""))
        number = record_job(running.places, derived_uid=DERIVED_UID, result=RESULT, deliveries=sent)
        report = running.places.reports / str(number)
        report.mkdir(parents=True)
        write_report(report / f"{DERIVED_UID}.html")
        (report / "index.html").write_text("the list of the run is no report of a series")
        record_job(running.places, state="dead", reason="time-out", message="took 1800 s")
        record_job(running.places, state="running")
        yield running


@pytest.fixture
def page(browser, web):
    """A page that fails the test if anything on it is blocked, fails or comes from elsewhere."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    page.close()
    assert all(url.startswith((web.address, "data:")) for url in asked), asked
    assert not [each for each in said if "401" not in each], said


def write_report(file: Path) -> None:
    rows, _ = np.mgrid[0:64, 0:64].astype(np.int16)
    noise = np.random.default_rng(1).normal(0, 8, rows.shape).astype(np.int16)
    line = encoded(rows + noise, 2) + b" " + encoded(rows, 2) + b"   \n"
    facts = {"position": None, "slope": 1, "intercept": 0, "planes": 2, "map": 1}
    facts |= {"sigma": 0, "spread": 0, "noise": [8.0, 2.0], "signal": None}
    slices = SliceTexts(
        BytesIO(2 * line),
        slices=[facts, facts],
        display=Display((0.0, 64.0), False, 1.0, {}),
        shape=(64, 64),
        full=(64, 64),
        unsigned=False,
    )
    outcome = SeriesOutcome(series_instance_uid="1.2.3", status="derived", modality="CT", slices=2)
    write_series_page(file, outcome, slices)


def test_what_is_set_aside_is_listed_and_filed_again_with_the_token(page: Page, web):
    name = f"{'a' * 32}-{'b' * 24}.dcm"
    web.places.incoming.mkdir(exist_ok=True)
    (web.places.incoming / name).write_bytes(b"x")
    database = Database(web.places.database)
    Quarantine(web.places, database).put(web.places.incoming / name, "internal-fault", "<why>")
    database.close()
    page.goto(web.address)
    page.get_by_text("1 instance in quarantine").click()
    assert (
        page.locator("tbody tr").all_inner_texts()[0].startswith(f"{name}\tinternal-fault\t<why>")
    )
    page.get_by_label("operator's token").fill(TOKEN)
    page.get_by_role("button", name="File it again").click()
    page.get_by_text("The quarantine is empty.").wait_for()
    assert (web.places.incoming / name).exists()


def test_the_front_shows_queue_and_last_series(page: Page, web):
    page.goto(web.address)
    numbers = dict(
        zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True)
    )
    assert numbers["Running"] == "1"
    assert numbers["Failed"] == "2"
    rows = page.locator("tbody tr").all_inner_texts()
    assert len(rows) == 3
    assert "running" in rows[0]
    assert "time-out" in rows[1]
    assert "1 of 2" in rows[2]
    assert "\N{MINUS SIGN}75 %" in rows[2]
    assert page.locator("tbody .badge.good").first.evaluate(
        "each => getComputedStyle(each).color"
    ) != page.locator("body").evaluate("each => getComputedStyle(each).color")


def test_a_series_is_shown_before_and_after(page: Page, web):
    page.goto(web.address)
    page.get_by_role("link", name="1", exact=True).click()
    assert page.locator("iframe").count() == 1
    report = page.frame_locator("iframe")
    report.locator("[data-frame]").wait_for()
    report.get_by_role("button", name="slider").click()
    report.get_by_role("slider", name="slice").fill("1")
    report.get_by_text("1 of 2").wait_for()
    assert "accept with clamp" in page.inner_text("main")


def test_an_operator_with_the_token_sends_again(page: Page, web):
    page.goto(f"{web.address}/jobs/1")
    token = page.get_by_label("operator's token")
    token.fill("wrong")
    page.get_by_role("button", name="Send to pacs again").click()
    page.get_by_text("wrong or missing token").wait_for()
    assert delivery_state(web) == "dead"
    token.fill(TOKEN)
    page.get_by_role("button", name="Send to pacs again").click()
    page.get_by_text("The series will be sent again.").wait_for()
    assert delivery_state(web) == "waiting"
    page.get_by_role("button", name="Send to pacs again").wait_for(state="detached")


def delivery_state(web) -> str:
    database = Database(web.places.database)
    with database.reading() as connection:
        (state,) = connection.execute(
            "SELECT state FROM deliveries WHERE destination = 'pacs'"
        ).fetchone()
    database.close()
    return state


def test_an_operator_with_the_token_tries_a_job_again(page: Page, web):
    page.goto(f"{web.address}/jobs/2")
    assert "took 1800 s" in page.inner_text("main")
    page.get_by_label("operator's token").fill(TOKEN)
    page.get_by_role("button", name="Try this job again").click()
    page.get_by_text("The job is queued again.").wait_for()


def test_the_page_fits_a_narrow_window(page: Page, web):
    page.set_viewport_size({"width": 420, "height": 800})
    for path in ("/", "/jobs/1"):
        page.goto(web.address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 420


def test_the_front_is_refreshed_by_itself(page: Page, web):
    page.goto(web.address)
    refresh = page.locator("meta[http-equiv=refresh]").get_attribute("content")
    assert 0 < int(refresh) <= 60


def test_scripts_that_are_put_into_a_page_do_not_run(browser, web):
    page = browser.new_page()
    page.goto(f"{web.address}/jobs/1")
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        " document.body.append(s); }"
    )
    assert page.evaluate("window.ran") is None
    for forbidden in ("https://example.org/x.png", "data:image/png;base64,AAAA"):
        blocked = page.evaluate(
            """address => new Promise(done => {
                document.addEventListener('securitypolicyviolation', () => done(true));
                const image = new Image(); image.src = address;
                setTimeout(() => done(false), 2000);
            })""",
            forbidden,
        )
        assert blocked
    page.close()


def test_a_report_has_no_way_to_the_page_around_it(browser, web):
    page = browser.new_page()
    page.goto(f"{web.address}/jobs/1")
    frame = next(each for each in page.frames if each.url.endswith("/report"))
    assert frame.evaluate("window.origin") == "null"  # sandboxed
    with pytest.raises(Error):
        frame.evaluate("window.parent.document.body.innerHTML")
    page.close()
