from __future__ import annotations

import functools
import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_example import HOSTILE, NASTY, example, hostile_view

from epigone.api import Study
from epigone.errors import MissingExtra
from epigone.report import export
from epigone.report.blocks import Heading, Paragraph, Table, line
from epigone.report.document import document
from epigone.report.markdown import escaped, markdown
from epigone.report.pdf import source
from epigone.report.printed import figures_of

# Lone surrogates, overrides of direction, and what a terminal obeys.
FORBIDDEN = {chr(c) for c in (0xD800, 0x1B, 0x07, 0x202E, 0x2028)}
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
MARKUP = ("--- x", "12) y", "+", "-", "# h", "$x$", "#panic(1)", "[a](b)", "| a | b |", "1. x",
          "- x", "***", "===", "~~~",
          "\\", "`x`", "&lt;", "www.evil.example", "@everyone", "a\n\n# b", "![i](j)")  # fmt: skip


def plain(text):
    """The words that a reader of the Markdown sees, and the kinds of markup in it."""
    kinds, words = set(), []
    for token in READER.parse(text):
        kinds.add(token.type)
        for part in token.children or ():
            kinds.add(part.type)
            words.append(part.content)
    return "".join(words), kinds


@pytest.mark.parametrize("text", [*HOSTILE, *MARKUP, NASTY])
def test_any_text_is_the_same_text_in_markdown(text) -> None:
    shown, kinds = plain(escaped(line(text)))
    assert shown == line(text)
    assert kinds <= {"paragraph_open", "inline", "text", "text_special", "paragraph_close"}


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_no_text_becomes_markup(text) -> None:
    text = line(text)
    shown, kinds = plain(escaped(text))
    assert shown == text
    assert kinds <= {"paragraph_open", "inline", "text", "text_special", "paragraph_close"}


@functools.cache
def made(name):
    """A view, its figures, and the document of both."""
    view = {"usual": example, "hostile": hostile_view}[name]()
    figures = figures_of(view)
    return view, figures, document(view, figures)


@pytest.mark.parametrize("name", ["usual", "hostile"])
def test_the_markdown_holds_the_document_and_no_more(name) -> None:
    _, figures, blocks = made(name)
    tokens = READER.parse(markdown(blocks, "figures"))
    inline = [t for t in tokens if t.type == "inline"]
    parts = [p for t in inline for p in t.children]
    assert {p.type for p in parts} == {
        "text", "strong_open", "strong_close", "em_open", "em_close", "image"
    }  # fmt: skip
    images = [p.attrs["src"] for p in parts if p.type == "image"]
    assert images == [f"figures/{f.name}.svg" for f in figures]
    assert {f.name for f in figures} >= {"imitation-plane", "mean-style", "style-0", "capability-1"}
    headings = [
        inline[i] for i, t in enumerate(inline) if tokens[tokens.index(t) - 1].tag[:1] == "h"
    ]
    assert not set(json.dumps([asdict(b) for b in blocks], ensure_ascii=False)) & FORBIDDEN
    wanted = [b.text for b in blocks if isinstance(b, Heading)]
    assert ["".join(p.content for p in t.children) for t in headings] == wanted
    cells = sum(t.type in ("td_open", "th_open") for t in tokens)
    tables = [b for b in blocks if isinstance(b, Table)]
    assert cells == sum(len(b.header) * (1 + len(b.rows)) for b in tables)


def test_the_document_says_what_the_findings_say() -> None:
    view, _, blocks = made("usual")
    said = " ".join(b.text for b in blocks if isinstance(b, Paragraph))
    for verdict in view.findings.verdicts:
        for sentence in verdict.sentences:
            assert sentence.text in said
    (facts,) = [b for b in blocks if isinstance(b, Table) and b.caption.startswith("Facts (cap")]
    row = next(r for r in view.findings.gaps if r.task == "facts" and r.subject.amount == 32_000)
    numbers = [row.change.value, row.change.low, row.change.high]
    shown = [
        float(x) for x in re.findall(r"[-+]?\d+\.\d+", facts.rows[1][4].replace("\u2212", "-"))
    ]
    assert shown == pytest.approx(numbers, abs=5.1e-4)
    # Every estimate has its interval, or says that it has none.
    for table in (b for b in blocks if isinstance(b, Table)):
        for name in {"Change", "Gap closed", "Estimate", "Value"} & set(table.header):
            k = table.header.index(name)
            assert all("[" in r[k] or r[k] in ("", "not known") for r in table.rows), table.caption


def test_the_papers_tables_are_printed(tmp_path) -> None:
    study = Study.load(Path(__file__).parents[2] / "studies/false-promise.yaml", runs=tmp_path)
    text = markdown(document(study.view(), []), "figures")
    row = "| llama-13b | 20% | 15% (150M tokens; \u22125.0 points; \u221245% of the gap) |"
    assert row in text
    # The paper's table 2: lists of LLaMA-13B, untrained and of 20M to 150M tokens, and of ChatGPT.
    assert re.search(r"\| Lists \| 13% \| 50% \| 67% \| 81% \(.*\) \| 83% \|", text)


def test_a_figure_stands_alone() -> None:
    _, (figure, *_), _ = made("usual")
    text = json.dumps(figure.spec)
    assert "currentColor" not in text
    assert '"width": "container"' not in text
    assert figure.spec["config"]["background"] == "white"
    names = [row["line"] for row in figure.spec["layer"][-1]["data"]["values"]]
    assert names == ["smollm2-135m-instruct", "gemma-3-270m"]
    assert "32k tokens" in figure.words


def test_what_is_not_installed_is_told_by_its_extra(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(MissingExtra, match=r"epigone\[pdf\]"):
        export(made("usual")[0], tmp_path, ["pdf"])
    assert not [*tmp_path.iterdir()]


def test_the_files_are_the_same_twice_and_need_no_font(tmp_path) -> None:
    pytest.importorskip("typst", reason="needs the extra 'pdf'")
    view, _, _ = made("hostile")
    kept = sorted({r.metric for r in view.findings.values})[:1]
    values = tuple(r for r in view.findings.values if r.metric in kept)
    view = replace(view, findings=replace(view.findings, values=values))
    written = export(view, tmp_path, ["md", "pdf"])
    assert [p.name for p in written] == ["report.md", "report.pdf"]
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    names = {p.stem for p in files if p.suffix == ".svg"}
    assert names == {"imitation-plane", "mean-style", "mean-capability", "capability-0"}
    for path, content in files.items():
        if path.suffix == ".svg":
            parts = [*ElementTree.fromstring(content).iter()]
            names = {e.tag.rpartition("}")[2] for e in parts}
            assert not names & {"text", "style", "image", "script", "foreignObject"}
            links = [v for e in parts for k, v in e.attrib.items() if k.endswith("href")]
            assert links and all(v.startswith("#") for v in links)
    export(view, tmp_path, ["pdf", "md"])
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == files
    pdf = files[tmp_path / "report.pdf"]
    assert pdf.startswith(b"%PDF-")
    assert b"/FontFile" in pdf
    assert not re.search(rb"CreationDate|ModDate|CreateDate|ModifyDate", pdf)


def test_no_text_is_read_as_typst(tmp_path) -> None:
    typst = pytest.importorskip("typst", reason="needs the extra 'pdf'")
    text = '#panic(1) #read("/etc/passwd") $x$ [y] *b* @ref <l> = h // c \\u{41} `r` ' + line(NASTY)
    blocks = [Heading(1, text), Paragraph(text), Table(text, (text, "b"), ((text, text),))]
    template, told = source(blocks, {})
    for selector in ("heading", "par", "figure.caption"):
        bodies = json.loads(typst.query(template, selector, field="body", sys_inputs=told))
        assert bodies == [{"func": "text", "text": text}], selector
