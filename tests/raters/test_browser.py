"""The rating site as people meet it: by mouse, by keys, on a phone, without scripts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epigone.raters import assign, people
from epigone.raters.admin import link
from epigone.raters.comparisons import Pair, compare
from epigone.raters.serving import bind
from epigone.schema import Message

from .rating_site import ADMIN, SECRET, Served, filled, outputs, pairs, serving_site

BROWSER = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium to rate with")
HOSTILE = "\n\n".join(
    [
        "<script>document.title='owned'</script><img src=https://evil.example/1 onerror=alert(1)>",
        "<svg onload=alert(1)><animate onbegin=alert(1)></svg>",
        "![x](https://evil.example/2.png) ![y](//evil.example/3.png 'z')",
        "[go](javascript:alert(1)) [there](https://evil.example/4) <https://evil.example/5>",
        "<style>.answer{display:none}</style><link rel=stylesheet href=https://evil.example/6.css>",
        "</div></section></main><form action=https://evil.example/7><button>Next</button></form>",
        "<iframe src=https://evil.example/8></iframe><base href=https://evil.example/>",
        "\u202eretteb si A rewsnA\u202c and pay\u200bpal, " + "Z" + "\u0301" * 200,
        "safe &#x202e;txet desrever&#x202c; pay&ZeroWidthSpace;day " + "z" + "&#x300;" * 40,
        "# Answer B\n\n" + "W" * 3000,
        "| a | b |\n|---|---|\n| <b onclick=alert(1)>x</b> | " + "y" * 500 + " |",
        "```html\n</code></pre><script>alert(1)</script>\n```",
        "9998. first\n1. second\n1. third",
        "```\n" + "\n" * 8000,
    ]
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that must stay silent and ask nobody but the site."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    yield watched(context.new_page())
    context.close()


def watched(page: Any) -> Any:
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("dialog", lambda dialog: page.said.append(dialog.message))
    page.on("request", lambda request: page.asked.append(request.url))
    page.set_default_timeout(60_000)
    return page


@pytest.fixture
def site(memory: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    made, hard = pairs(3, ("m1", "m2")), getattr(request, "param", False)
    if hard:  # a check that is failed by whoever prefers one answer
        made.append(replace(pairs(4)[3], purpose="gold", expected=0))
    store = filled(memory, made, checks=not hard, per_rater=3, per_item=2, check_every=3 - 2 * hard)
    with serving_site(store) as found:
        yield found
    store.close()


def accessible(page: Any, *schemes: str) -> None:
    """Fail for what axe-core finds, whatever its impact, in light or the named colour schemes."""
    from axe_playwright_python.sync_playwright import Axe

    for scheme in schemes or ("light",):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        told = [(v["id"], n["html"][:200]) for v in found for n in v["nodes"]]
        assert told == [], (page.url, scheme)


def click(page: Any, role: str, name: str) -> None:
    """Click on what leads to another page, and wait until it is there."""
    with page.expect_navigation():
        page.get_by_role(role, name=name).click()


def begin(page: Any, site: Served) -> None:
    page.goto(site.invitation())
    click(page, "button", "I agree, begin")


def vote(page: Any, choice: str) -> None:
    page.get_by_label(choice, exact=True).check()
    click(page, "button", "Next")


def to_the_end(page: Any, choice: str) -> None:
    while "/done" not in page.url:
        if "/feedback" in page.url:
            click(page, "link", "Go on")
        else:
            vote(page, choice)


def test_two_raters_reach_the_end_and_every_page_is_accessible(
    site: Served, page: Any, browser: Any
) -> None:
    page.goto(site.url)
    accessible(page)
    page.goto(site.invitation("first"))
    accessible(page)
    accessible(page, "dark")
    click(page, "button", "I agree, begin")
    vote(page, "A is better")
    accessible(page, "light", "dark")
    while "/feedback" in page.url:
        click(page, "link", "Go on")
        if page.get_by_text("Practice").count():
            vote(page, "About equal")
    page.get_by_text("Why? (optional)").click()
    page.get_by_label("Clearer").check()
    page.get_by_label("Comment").fill("<b>bold</b>")
    accessible(page, "dark", "light")
    vote(page, "B is slightly better")
    click(page, "link", "Change the last answer")
    assert page.get_by_label("B is slightly better").is_checked()
    assert page.get_by_label("Comment").input_value() == "<b>bold</b>"
    page.get_by_label("A is better", exact=True).check()
    click(page, "button", "Save")
    to_the_end(page, "A is better")
    assert page.get_by_role("heading", name="Thank you!").is_visible()
    accessible(page)
    page.goto(f"{site.url}/nowhere")
    accessible(page)
    said = [line for line in page.said if "404" not in line]
    assert said == [] and all(url.startswith(site.url) for url in page.asked)

    plain = browser.new_context(java_script_enabled=False)
    second = watched(plain.new_page())
    begin(second, site)
    to_the_end(second, "B is better")
    plain.close()
    ratings = list(people.ratings(site.store))
    assert len({r.rater for r in ratings}) == 2
    assert sum(r.purpose == "item" for r in ratings) == 6
    commented = [r for r in ratings if r.comment]
    assert [(r.comment, r.reasons) for r in commented] == [("<b>bold</b>", ("clear",))]
    assert all(r.seconds is not None and r.seconds >= 0 for r in ratings)


def test_a_rater_needs_the_keyboard_only(site: Served, page: Any) -> None:
    page.goto(site.invitation())
    press = page.keyboard.press
    press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    press("Tab")
    press("Enter")
    page.wait_for_url("**/rate")
    for _ in range(3):  # training, by arrow keys and Tab alone
        page.get_by_label("A is better", exact=True).focus()
        press("Space")
        press("ArrowDown")
        press("Enter")
        page.wait_for_url("**/feedback/*")
        page.wait_for_function("document.activeElement.textContent === 'Go on'")
        press("Enter")
        page.wait_for_url("**/rate")
    press("?")
    assert page.get_by_text("goes on").is_visible()
    # Keys can be switched off, and stay off.
    page.get_by_label("Use these keys").uncheck()
    page.reload()
    press("1")
    assert page.locator(".choice :checked").count() == 0
    page.locator("#keys summary").click()
    page.get_by_label("Use these keys").check()
    # A vote that leads nowhere can be sent again.
    page.clock.install()
    page.route("**/vote", lambda route: route.fulfill(status=204))
    press("1")
    with page.expect_response("**/vote"):
        press("Enter")
    assert page.get_by_role("button", name="Next").is_disabled()
    page.clock.run_for(5000)
    assert page.get_by_role("button", name="Next").is_enabled()
    page.unroute("**/vote")
    for key, words in ("1", "A is better"), ("4", "B is slightly better"), ("3", "About equal"):
        before = page.locator(".brand").inner_text()
        page.locator("#keys").wait_for()  # what the script shows when it listens
        press(key)
        assert page.locator("#said").inner_text() == words
        press("Enter")
        page.wait_for_function(
            "before => !document.querySelector('.brand')?.textContent.includes(before)", arg=before
        )
    assert page.said == []
    shown = [r.preference for r in people.ratings(site.store) if r.purpose != "training"]
    assert [abs(p or 0) for p in shown] == [2, 1, 0]


def test_on_a_phone_nothing_is_too_wide_or_too_small(site: Served, browser: Any) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True
    )
    page = watched(context.new_page())
    begin(page, site)
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.evaluate(wide)
    left, right = (page.locator(".answer").nth(n).bounding_box() for n in (0, 1))
    assert right["y"] >= left["y"] + left["height"]
    for box in [c.bounding_box() for c in page.locator(".choice, button, .jump a").all()]:
        assert box["height"] >= 44 and box["width"] >= 44
    for name, there in ("Vote", "#ballot"), ("Answer B", "#b"), ("Task", "#task"):
        page.get_by_role("link", name=name).click()
        bar = page.locator(".jump").bounding_box()
        assert bar["y"] == 0 and bar["height"] <= page.locator(there).bounding_box()["y"] < 740
    to_the_end(page, "About equal")
    accessible(page, "light")
    assert not page.evaluate(wide)
    context.close()


def hostile_pairs() -> list[Pair]:
    made = compare(outputs("teacher", ["fine"]), [outputs("student", [HOSTILE])])
    return [Pair(p.item, (Message("user", HOSTILE),), p.a, p.b, p.a_text, p.b_text) for p in made]


def test_hostile_outputs_do_nothing(tmp_path: Path, page: Any) -> None:
    store = filled(tmp_path, hostile_pairs(), checks=False, check_every=0)
    with serving_site(store) as site:
        begin(page, site)
        page.wait_for_load_state("networkidle")
        accessible(page, "light")
        assert page.title() == "Task 1 of 1 - which answer is better?"
        assert page.said == []
        assert {url.removeprefix(site.url).split("/")[1] for url in page.asked} <= {
            "in", "welcome", "begin", "rate", "static",
        }  # fmt: skip
        count = "what => document.querySelectorAll(what).length"
        never = "script:not([src^='/static/']), .text a, .text img, main svg, iframe, .text form"
        assert page.evaluate(count, f"{never}, style, base, [onclick], [style], .text h1") == 0
        assert page.evaluate(count, "form") == 1
        # Nothing is painted outside its box, or makes the page wider.
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        boxes = [page.locator(".answer").nth(n).bounding_box() for n in (0, 1)]
        assert abs(boxes[0]["width"] - boxes[1]["width"]) < 1
        assert abs(boxes[0]["height"] - boxes[1]["height"]) < 1
        # Of numbers no digit is cut off, and a long fence does not hide the ballot.
        assert page.evaluate("parseFloat(getComputedStyle(document.querySelector('.text ol'))"
                             ".paddingLeft)") >= 50  # fmt: skip
        assert page.evaluate("document.documentElement.scrollHeight") < 20_000
        text = page.locator("main").inner_text()
        assert "safe \u27e6U+202E\u27e7txet" in text and "payday" in text
        assert "\u0300" * 5 not in text
        assert "\u27e6U+202E\u27e7retteb" in text and "paypal" in text
        vote(page, "A is better")
        assert page.url.endswith("/done")
    store.close()


@pytest.mark.parametrize("site", [True], indirect=True)
def test_administrators_see_how_it_goes(site: Served, page: Any, browser: Any) -> None:
    (ann,) = people.invite(site.store, ["Ann <b>"], site.settings.clock(), who="test")
    came = people.Arrival(people.invited(site.store, ann, site.settings.clock()) or "")
    rater = people.enter(site.store, "private", came, site.settings.clock())
    while (task := assign.desk(site.store, rater.rater, site.settings.clock()).shown) is not None:
        assign.cast(site.store, rater.rater, task.id, assign.Ballot(2), site.settings.clock())
    page.goto(f"{site.url}/admin")
    page.get_by_label("Administrator's token").fill("wrong" * 6)
    click(page, "button", "Log in")
    assert page.get_by_role("alert").is_visible()
    accessible(page, "light")
    page.get_by_label("Administrator's token").fill(ADMIN)
    click(page, "button", "Log in")
    row = page.get_by_role("row").filter(has_text=rater.public)
    assert "private 1 Ann <b>" in row.inner_text() and "some failed" in row.inner_text()
    page.set_viewport_size({"width": 390, "height": 800})
    box = page.get_by_role("button", name=f"Exclude {rater.public}").bounding_box()
    assert 0 <= box["x"] <= 390 - box["width"]
    assert page.get_by_text(rater.public).bounding_box()["height"] < 30
    accessible(page, "light")
    page.get_by_label(f"Reason to exclude {rater.public}").fill("always left")
    click(page, "button", f"Exclude {rater.public}")
    assert page.get_by_text("excluded: always left").is_visible()
    click(page, "button", f"Include {rater.public}")
    page.get_by_label("How many").fill("2")
    with page.expect_navigation():
        page.get_by_role("button", name="Invite", exact=True).click()
    links = page.locator(".links code").all_inner_texts()
    assert len(set(links)) == 2
    accessible(page, "light", "dark")
    page.goto(links[0])
    assert page.get_by_role("heading", name="Which answer is better?").is_visible()
    page.goto(f"{site.url}/admin")
    click(page, "button", "Revoke invitation 2")
    page.goto(links[0])
    assert page.get_by_text("This invitation does not work").is_visible()
    assert [line for line in page.said if "403" not in line] == []


def serve(folder: Path, port: int) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-m", "epigone", "rate", "serve", "ratings.db", "--port", str(port)],
        cwd=folder, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "EPIGONE_RATERS_SECRET": SECRET, "EPIGONE_RATERS_ADMIN": ADMIN},
    )  # fmt: skip
    assert started.stdout is not None
    while "serving until" not in (line := started.stdout.readline()):
        assert line, "the server ended"
    return started


def test_a_killed_server_loses_no_click_and_raters_go_on(tmp_path: Path, page: Any) -> None:
    store = filled(tmp_path, pairs(3), checks=False, check_every=0)
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    (secret,) = people.invite(store, ["x"], 0.0, who="test")
    server = serve(tmp_path, port)
    try:
        page.goto(link(f"http://127.0.0.1:{port}", SECRET, secret))
        click(page, "button", "I agree, begin")
        vote(page, "A is better")
        shown = page.locator(".answers").inner_text()
        server.send_signal(signal.SIGKILL)
        server.wait(10)
        assert sum(1 for _ in people.ratings(store)) == 1
        server = serve(tmp_path, port)
        page.reload()
        assert page.locator(".answers").inner_text() == shown
        vote(page, "B is better")
        vote(page, "About equal")
        assert page.get_by_text("You have compared 3 pairs").is_visible()
        assert [abs(r.preference or 0) for r in people.ratings(store)] == [2, 2, 0]
        server.terminate()
        assert server.wait(10) == 0
    finally:
        server.kill()
        server.wait(10)
        assert server.stdout is not None
        server.stdout.close()
        store.close()
