"""Prolific's participants and Mechanical Turk's workers in a browser, to where they hand in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from epigone.raters import people
from epigone.raters.workforces.mturk import MTurk
from epigone.raters.workforces.mturk_client import Settings as Hit
from epigone.raters.workforces.prolific import Prolific
from epigone.raters.workforces.prolific_client import Settings as Study

from .rating_site import Served, filled, pairs, serving_site
from .test_browser import BROWSER

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium to rate with")
STUDY, HIT = Study("57d7" + "0" * 20, "AB12CD34", "EF56AB78"), Hit("3HIT000000")
AMAZON = "https://workersandbox.mturk.com"


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        # A page of the internet may frame one of this machine, as no real site does.
        switches = ["--no-sandbox", "--disable-features=LocalNetworkAccessChecks"]
        browser = started.chromium.launch(executable_path=BROWSER, args=switches)
        found = browser.new_context()
        found.set_default_timeout(60_000)
        yield found
        browser.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    store = filled(tmp_path, pairs(2), checks=False)
    with serving_site(store, [Prolific(STUDY), MTurk(HIT)]) as found:
        yield found
    store.close()


def rate(frame: Any) -> None:
    frame.get_by_role("button", name="I agree, begin").click()
    for number in (1, 2):
        frame.get_by_text(f"Task {number} of 2").wait_for()
        frame.get_by_label("A is better", exact=True).check()
        frame.get_by_role("button", name="Next").click()


def test_a_participant_of_prolific_comes_and_goes(site: Served, context: Any) -> None:
    page = context.new_page()
    ended: list[str] = []
    page.route("https://app.prolific.com/**", lambda route: (
        ended.append(route.request.url), route.fulfill(body="thank you")))  # fmt: skip
    query = {"PROLIFIC_PID": "9" * 24, "STUDY_ID": STUDY.study, "SESSION_ID": "5" * 24}
    page.goto(f"{site.url}/in/prolific?{urlencode(query)}")
    # No page after the first has the ids in its address.
    assert "9" * 24 not in page.url
    rate(page)
    page.wait_for_url("**/done")
    page.get_by_role("link", name="Finish").click()
    page.get_by_text("thank you").wait_for()
    assert ended == [f"https://app.prolific.com/submissions/complete?cc={STUDY.code}"]
    assert {r.workforce for r in people.ratings(site.store)} == {"prolific"}
    page.close()


def test_a_worker_rates_in_amazons_frame_and_nobody_elses(site: Served, context: Any) -> None:
    page = context.new_page()
    handed: list[Any] = []

    def amazon(route: Any) -> None:
        if route.request.method == "POST":
            handed.append((route.request.url, parse_qs(route.request.post_data)))
            route.fulfill(content_type="text/html", body="<p>handed in</p>")
        else:
            asked = parse_qs(route.request.url.partition("?")[2])["assignment"][0]
            query = {"hitId": HIT.hit, "assignmentId": asked, "workerId": "A1WORKER",
                     "turkSubmitTo": AMAZON}  # fmt: skip
            src = f"{site.url}/in/mturk?{urlencode(query)}".replace("&", "&amp;")
            route.fulfill(content_type="text/html", body=f"<iframe src='{src}'></iframe>")

    for host in (AMAZON, "https://evil.example"):
        page.route(f"{host}/**", amazon)
    page.goto(f"{AMAZON}/?assignment=ASSIGNMENT_ID_NOT_AVAILABLE")
    frame = page.frame_locator("iframe")
    frame.get_by_text("This is a preview").wait_for()
    assert frame.get_by_role("button").count() == 0
    page.goto(f"{AMAZON}/?assignment=3ASSIGN")
    rate(page.frame_locator("iframe"))
    page.frame_locator("iframe").get_by_role("button", name="Submit").click()
    page.frame_locator("iframe").get_by_text("handed in").wait_for()
    assert [r.workforce for r in people.ratings(site.store)] == ["mturk"] * 2
    ((url, fields),) = handed
    assert url == f"{AMAZON}/mturk/externalSubmit"
    assert fields["assignmentId"] == ["3ASSIGN"] and len(fields) > 1

    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto("https://evil.example/?assignment=3ASSIGN")
    page.wait_for_load_state("networkidle")
    assert page.frame_locator("iframe").get_by_text("answer").count() == 0
    assert any("frame-ancestors" in text for text in refused)
    page.close()
