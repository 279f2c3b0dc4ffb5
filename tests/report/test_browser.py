from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from report_example import example, hostile_view
from report_reading import Page

from epigone.report import build

BROWSER = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium to open the page with")


def open_page(path, profile):
    """The page's DOM after its scripts have run, and what it said on the console."""
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={profile}", "--enable-logging=stderr",
            "--virtual-time-budget=10000", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, said


@pytest.mark.parametrize("view", [example, hostile_view])
def test_charts_and_samples_appear_without_a_word_on_the_console(view, tmp_path):
    made = view()
    page = build(made, tmp_path / "out")
    charts = json.loads(Page(page.read_text(encoding="utf-8")).json("chart-data"))
    dom, said = open_page(page, tmp_path / "profile")
    assert said == []
    assert 'data-charts="done"' in dom
    assert len(re.findall(r'<svg[^>]*class="marks"', dom)) == len(charts) >= 5
    assert "could not be drawn" not in Page(dom).text
    assert dom.count('class="output') >= 3


def test_a_changed_script_is_refused_by_the_policy(tmp_path):
    page = build(example(), tmp_path / "out")
    html = page.read_text(encoding="utf-8")
    page.write_text(html.replace("</body>", "<script>document.title='x'</script></body>"))
    dom, said = open_page(page, tmp_path / "profile")
    assert any("Content Security Policy" in line for line in said)
    assert "<title>x</title>" not in dom
