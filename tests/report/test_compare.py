from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import report_example
from report_reading import Page

from epigone.files import read_jsonl, write_jsonl
from epigone.findings import Side, compare
from epigone.report import ReportView
from epigone.report.compare_page import render
from epigone.report.compared import Compared, Setting

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def two(whole: Path) -> Path:
    """A finished study and its copy of another name, whose largest student knows two facts more."""
    other = whole / "runs" / "other"
    shutil.copytree(whole / "runs" / "tiny", other)
    text = (other / "study.yaml").read_text()
    (other / "study.yaml").write_text(text.replace("name: tiny", "name: other"))
    (file,) = (other / "steps" / "benchmark").glob("facts_*_2k_s0-*/scores.jsonl")
    rows = [*read_jsonl(file)]
    for row in rows:
        items = sorted(row["values"])
        row["values"] |= {items[0]: 1.0 - row["values"][items[0]]}
    write_jsonl(file, rows)
    return whole


def test_two_studies_side_by_side(cli: Cli, two: Path) -> None:
    done = cli("compare", "runs/tiny", "runs/other", "--json", "-o", "c.html", cwd=two)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["studies"] == ["tiny", "other"]
    assert told["settings"] == []
    assert [p["first"]["amount"] for p in told["pairs"]] == [0, 600, 2000]
    moved = [r for r in told["scores"] if r["difference"]["value"]]
    assert {(r["task"], r["pair"]["first"]["amount"]) for r in moved} == {("facts", 2000)}
    assert all(abs(r["difference"]["value"]) == pytest.approx(1 / 8) for r in moved)
    assert told["remarks"] == []
    page = Page((two / "c.html").read_text())
    assert not page.scripts
    assert not [a for _, attrs in page.tags for a in attrs if a in ("src", "onclick")]
    assert "None: the two are the same study." in page.text
    assert "A: tiny" in page.text and "B: other" in page.text


def test_a_setting_that_differs_is_told_and_what_it_changes_is_not_compared(
    cli: Cli, two: Path, tmp_path: Path
) -> None:
    text = (two / "study.yaml").read_text()
    slow = two / "slow.yaml"
    slow.write_text(text.replace("batch: 2", "batch: 4").replace("n: 6", "n: 5"))
    done = cli("compare", "study.yaml", "slow.yaml", "-o", tmp_path / "c.html", cwd=two)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "recipe.batch\t2\t4" in lines
    assert "evaluate.style.n\t6\t5" in lines
    # The students of the other batch are not trained; the base's benchmarks are the same.
    text = Page((tmp_path / "c.html").read_text()).text
    assert "B is not finished." in text
    assert "tiny (study.yaml)" in text and "tiny (slow.yaml)" in text


def test_what_is_no_run_is_the_users_mistake(cli: Cli, two: Path) -> None:
    done = cli("compare", "runs/tiny", "runs", cwd=two)
    assert done.returncode == 2
    assert done.stderr == "epigone: no study in this folder: runs (runs/STUDY, or a file)\n"
    fresh = two / "fresh.yaml"
    fresh.write_text((two / "study.yaml").read_text().replace("name: tiny", "name: fresh"))
    done = cli("compare", "runs/tiny", "fresh.yaml", cwd=two)
    assert done.returncode == 2
    assert "nothing is done yet: fresh" in done.stderr
    assert not (two / "compare.html").exists()


def test_a_finished_study_as_markdown_and_pdf(cli: Cli, two: Path) -> None:
    pytest.importorskip("typst", reason="needs the extra 'pdf'")
    done = cli("report", "study.yaml", "--format", "pdf", "--format", "md", "--json", cwd=two)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["report"] is None
    assert {k: Path(v).name for k, v in told["files"].items()} == {
        "md": "report.md", "pdf": "report.pdf"
    }  # fmt: skip
    folder = Path(told["files"]["md"]).parent
    text = Path(told["files"]["md"]).read_text()
    figures = re.findall(r"\]\((figures/[\w-]+\.svg)\)", text)
    assert figures
    assert sorted(p.name for p in folder.glob("figures/*")) == sorted(Path(f).name for f in figures)


def test_a_format_that_is_none_is_told_with_those_that_are(cli: Cli, two: Path) -> None:
    done = cli("report", "study.yaml", "--format", "docx", cwd=two)
    assert done.returncode == 2
    assert done.stderr == "epigone: unknown format: docx (known: html, md, pdf)\n"


def page_of(make: Callable[[], ReportView], name: str, folder: Path) -> Page:
    """A view beside itself, where nothing was measured in the same way, as a page."""
    view = make()
    sides = [
        Side(view.subjects, view.scores, view.findings.summaries, view.findings.verdicts,
             conditions={"facts": {"shots": shots, name: name}})
        for shots in (name, 5)
    ]  # fmt: skip
    run: Any = SimpleNamespace(view=view, name=name, place=name, finished=(1, 2))
    found = Compared(run, run, (Setting(name, name, None),), compare(*sides))
    return Page(render(found, folder / "compare.html").read_text(encoding="utf-8"))


def test_hostile_text_adds_nothing_to_the_page(tmp_path: Path) -> None:
    usual = page_of(report_example.example, "usual", tmp_path)
    page = page_of(report_example.hostile_view, report_example.NASTY, tmp_path)
    kinds = [{(t, *sorted(a)) for t, a in p.tags} for p in (page, usual)]
    assert kinds[0] <= kinds[1]
    assert not page.scripts
    (style,) = page.styles
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = next(a["content"] for a in page.all("meta") if "content" in a and "http-equiv" in a)
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "\u202e" not in page.text and "\x1b" not in page.text
