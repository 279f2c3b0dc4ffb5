from __future__ import annotations

import json
import shutil
from urllib.parse import quote

import pytest
from browsing import hostile, large, small
from report_example import HOSTILE, NASTY

from epigone.report import build
from epigone.report.page import render
from epigone.report.text import visible

BROWSER = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium to open the page with")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser):
    """Opens a page that must stay silent and ask for nothing but itself."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: said.append(request.url)
            if not request.url.startswith("file://") else None)  # fmt: skip
    page.set_default_timeout(60_000)

    def goto(path, fragment=""):
        page.goto(path.as_uri() + fragment)
        page.wait_for_selector("html[data-charts=done]")
        return page

    yield goto
    context.close()
    assert said == []


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return build(small(), tmp_path_factory.mktemp("small"))


def count(page):
    return page.inner_text("#sample-count")


def shown(page):
    return page.inner_text("#sample-view > h3 bdi")


def choose(page, name):
    page.locator("#sample-kinds label", has_text=name).click()


def test_a_study_of_fifty_cells_is_small_and_can_be_searched(tmp_path, opened):
    # Of 200 items as many are shown; the tables beside the page are none of its size.
    path = render(large(asked=50), tmp_path, ["samples.csv"])
    assert path.stat().st_size < 5_000_000
    page = opened(path)
    assert count(page) == "Example 1 of 92"
    assert (
        page.locator("#sample-view .output").count() == 12
    )  # a base, its 10 students, the teacher
    page.fill("#sample-search", "QUESTION SUMS-")
    assert count(page) == "Example 1 of 20"
    assert page.locator("#sample-view mark").all_inner_texts()[:1] == ["Question sums-"]
    page.select_option("#sample-source", label="quiz (20)")
    assert count(page) == "No example is like that."
    page.fill("#sample-search", "base-3:local:16k on h7")
    page.select_option("#sample-source", "")
    assert count(page) == "No example is like that."
    # What another base said is found once that base is shown, and every base has the prompt.
    page.select_option("#sample-base", label="base-3")
    page.fill("#sample-search", "prompt h7")
    assert shown(page) == "h7"
    page.select_option("#sample-base", label="all bases")
    assert page.locator("#sample-view .output").count() == 56


def test_filters_find_what_they_name(few, opened):
    page = opened(few)
    assert page.locator("#sample-kinds label").all_inner_texts() == [
        "all", "preferred but wrong 1", "style up, answer wrong 1",
        "base right, student wrong 2", "base wrong, student right 2",
    ]  # fmt: skip
    for name, found in (("preferred but wrong", ["h1"]), ("base right", ["h1", "q1"]),
                        ("base wrong", ["h2", "q2"])):  # fmt: skip
        choose(page, name)
        options = page.locator("#sample-item option").count()
        assert (shown(page), options) == (found[0], len(found))
        assert page.locator("#sample-view .output.found").count() == 1
    page.select_option("#sample-source", label="quiz (2)")
    assert shown(page) == "q2"
    assert page.locator("#sample-kinds input:disabled").count() == 2
    choose(page, "all")
    page.select_option("#sample-source", "")
    page.select_option("#sample-order", "right+")
    order = page.locator("#sample-item").evaluate("s => [...s.options].map(o => Number(o.value))")
    # Of the students right are: h1 one of two, h2 one of two, q1 one of two, q2 all of one.
    assert order == [0, 1, 2, 3]
    page.select_option("#sample-order", "style+")
    order = page.locator("#sample-item").evaluate("s => [...s.options].map(o => Number(o.value))")
    assert order == [1, 0, 2, 3]  # 0, then (0.65 - 0.45) / 2; the quiz has no style


def test_a_link_leads_to_one_example_and_back(few, opened):
    page = opened(few, "#example=q1")
    assert shown(page) == "q1"
    assert page.locator("#samples").evaluate("e => e.getBoundingClientRect().top < innerHeight")
    page.reload()
    page.wait_for_selector("html[data-charts=done]")
    assert shown(page) == "q1"
    page.click("#sample-next")
    page.wait_for_url("**#example=q2")
    page.select_option("#sample-item", label="2. Sing.")
    page.wait_for_url("**#example=h2")
    assert shown(page) == "h2"
    assert page.get_attribute("#sample-link", "href") == "#example=h2"
    page.go_back()
    page.wait_for_url("**#example=q2")
    assert shown(page) == "q2"
    page.go_back()
    page.go_forward()
    assert shown(page) == "q2"
    # What a filter hides is shown when a link names it.
    choose(page, "preferred but wrong")
    page.wait_for_url("**#example=h1")
    page.evaluate("location.hash = 'example=q1'")
    page.wait_for_function("document.querySelector('#sample-view h3 bdi').textContent === 'q1'")
    assert count(page) == "Example 3 of 4"
    page.evaluate("location.hash = 'example=nobody'")
    page.wait_for_selector("#sample-unknown:visible")
    assert "is called nobody" in page.inner_text("#sample-unknown")


def test_the_browser_works_by_keyboard_and_for_all(few, opened):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(few, "#example=h1")
    page.focus("#sample-kinds input")
    page.keyboard.press("ArrowRight")
    assert page.locator("#sample-kinds input:checked").get_attribute("value") == "1"
    page.keyboard.press("ArrowLeft")
    page.focus("#sample-view summary >> nth=0")
    page.keyboard.press("Enter")
    assert page.locator("#sample-view details[open]").count() == 1
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**#example=h2")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**#example=h1")
    page.locator("#sample-view details").first.evaluate("e => e.open = true")
    page.fill("#sample-search", "sea")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, context="#samples").response["violations"]
        assert [(v["id"], n["html"][:200]) for v in found for n in v["nodes"]] == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.emulate_media(media="print")
    assert not page.is_visible("#sample-controls")
    assert not page.is_visible("#sample-view details")
    assert "tables/samples.csv" in page.inner_text(".print-only")


def test_attacks_stay_text_in_every_part_of_the_browser(tmp_path, opened):
    view, ids = hostile()
    path = build(view, tmp_path)
    data = json.loads(path.read_text(encoding="utf-8").split('id="sample-data">')[1]
                      .split("</script>")[0])  # fmt: skip
    assert data["kinds"]
    page = opened(path, "#example=" + quote("<img src=x onerror=alert(1)>"))
    assert shown(page) == "<img src=x onerror=alert(1)>"
    is_shown = "name => document.querySelector('#sample-view h3 bdi').textContent === name"
    for item in data["items"]:
        page.evaluate("told => { location.hash = told }", "example=" + quote(item["id"]))
        page.wait_for_function(is_shown, arg=item["id"])
    for fragment in ("#example=%E0%A4%A", "#example=<script>alert(1)</script>", "#example=",
                     "#example=constructor", "#" + quote(NASTY.replace("\ud800", ""))):  # fmt: skip
        page.evaluate("told => { location.hash = told }", fragment)
        page.wait_for_function("told => location.hash.startsWith(told.slice(0, 4))", arg=fragment)
    assert "constructor" in page.inner_text("#sample-unknown")
    for text in (*HOSTILE, "<img src=x onerror=alert(1)>", "(", "\\", "$&"):
        page.fill("#sample-search", text.replace("\ud800", ""))
    page.fill("#sample-search", "alert(1)")
    assert page.locator("#sample-view mark").count() > 10
    for label in page.locator("#sample-kinds label:has(input:enabled)").all():
        label.click()
    page.locator("#sample-view summary").first.click()
    assert visible(NASTY).split("\n")[0] in page.inner_text("#sample-view details[open]")
    strange = "script, img, iframe, object, embed, link, [onerror], [onload], [onclick], [style]"
    assert page.locator("#samples").locator(strange).count() == 0
    assert len(ids) == len(data["items"])
