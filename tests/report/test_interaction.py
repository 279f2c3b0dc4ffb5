from __future__ import annotations

import shutil

import pytest
from report_example import grid_view

from epigone.report import build

BROWSER = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium to open the page with")
POINTS = "#capability-0 .mark-symbol path"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a small study, which must stay silent and ask for nothing but itself."""
    playwright = pytest.importorskip("playwright.sync_api")
    view = grid_view(("tiny-100m", "mid-400m"), seeds=(0,), n=10, resamples=50)
    path = build(view, tmp_path_factory.mktemp("interaction"))
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        made = browser.new_page(viewport={"width": 1280, "height": 860})
        said = []
        made.on("console", lambda message: said.append(message.text))
        made.on("pageerror", lambda error: said.append(str(error)))
        made.on("request", lambda request: said.append(request.url)
                if not request.url.startswith("file://") else None)  # fmt: skip
        made.set_default_timeout(60_000)
        made.goto(path.as_uri())
        made.wait_for_selector("html[data-charts=done]")
        yield made
        browser.close()
    assert said == []


def test_a_name_switches_its_line_off_in_every_chart(page):
    # Two bases on two corpora: an untrained point and four amounts each.
    assert page.locator(POINTS).count() == 4 * 5
    assert page.locator("#imitation-plane .mark-symbol path").count() == 4 * 4 + 2
    name = page.locator("#plane button.toggle").first
    name.click()
    page.wait_for_function(f"document.querySelectorAll('{POINTS}').length === 15")
    assert page.locator("#imitation-plane .mark-symbol path").count() == 3 * 4 + 2
    pressed = page.locator("button.toggle[aria-pressed=false]")
    # The same line's name in the sections of the plane, the amounts and toxicity.
    assert pressed.count() == 3
    assert set(pressed.all_inner_texts()) == {name.inner_text()}
    page.focus("#amounts button.toggle >> nth=0")
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelectorAll('{POINTS}').length === 20")


def test_a_mouse_moves_a_chart_and_tells_of_its_points(page):
    labels = "#capability-0 .role-axis-label text"
    chart = page.locator("#capability-0")
    chart.scroll_into_view_if_needed()
    before = sorted(page.locator(labels).all_text_contents())
    shown = "[...document.querySelectorAll(q)].map(e => e.textContent).sort().join()"
    arg = [labels, ",".join(before)]
    box = chart.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 40, steps=4)
    page.mouse.up()
    page.wait_for_function(f"([q, was]) => {shown} !== was", arg=arg)
    page.mouse.dblclick(x, y)
    page.wait_for_function(f"([q, was]) => {shown} === was", arg=arg)
    page.locator(POINTS).nth(1).hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "95% interval" in page.inner_text("#vg-tooltip-element")
    page.mouse.move(0, 0)


def test_the_page_can_be_used_by_all_on_a_phone_and_on_paper(page):
    from axe_playwright_python.sync_playwright import Axe

    # Colours of both schemes are looked at elsewhere.
    # Of a table the first rows, which the others are like: it looks at everything for long.
    rows = {"exclude": [["tbody tr:nth-child(n+4)"]]}
    found = Axe().run(page, context=rows).response["violations"]
    assert [(v["id"], n["html"][:200]) for v in found for n in v["nodes"]] == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    closed = page.locator("details:not([open])").count()
    assert closed > 1
    paper = page.pdf(format="A4")
    assert page.locator("details:not([open])").count() == 0
    # Drawn as lines and letters: nothing on paper is a picture.
    assert b"/Subtype /Image" not in paper
