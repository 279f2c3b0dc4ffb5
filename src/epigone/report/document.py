"""A report as headings, paragraphs, tables and figures: what Markdown and PDF are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from epigone.findings import GapRow, Subject, Summary, ValueRow
from epigone.findings.model import FamilyName
from epigone.findings.verdict import percent, points, probability, tokens
from epigone.report import paper
from epigone.report.base_sizes import MEAN
from epigone.report.blocks import Block, Figure, Heading, Show, interval, line, said, table
from epigone.report.charts import TEACHER_LABELS
from epigone.report.judged import named, section
from epigone.report.page import metric_text
from epigone.report.slopes import size_words, trend_words
from epigone.report.text import number, p_value, signed
from epigone.report.verdicts import FAMILIES
from epigone.report.view import ReportView

_FAMILIES: tuple[FamilyName, ...] = get_args(FamilyName)


def document(view: ReportView, figures: Sequence[Figure]) -> list[Block]:
    """The whole report but its examples of answers; all text in it is safe to show, as text."""
    parts = (
        _head(view),
        _verdicts(view),
        _summaries(view),
        _drawn(figures),
        _trends(view),
        _choices(view),
        _local(view),
        _gaps(view),
        _paper(view),
        _preferences(view),
        _values(view),
        _made(view),
    )
    return [block for part in parts for block in part]


def _head(view: ReportView) -> Iterator[Block]:
    yield Heading(1, line(f"What imitation taught: {view.study}"))
    about = f" ({view.teacher.description})" if view.teacher.description else ""
    yield said(f"The teacher is {view.teacher.name}{about}.")
    done = sum(s.state == "done" for s in view.steps)
    if done < len(view.steps):
        yield said(f"{done} of {len(view.steps)} steps are done.", "Not finished.")
    for remark in view.remarks:
        yield said(remark)


def _verdicts(view: ReportView) -> Iterator[Block]:
    yield Heading(2, "Verdict")
    for verdict in view.findings.verdicts:
        yield Heading(3, line(verdict.base))
        yield said(verdict.answer)
        for sentence in verdict.sentences:
            yield said(sentence.text, f"{sentence.headline}.")
        if verdict.note:
            yield said(verdict.note)


def _summaries(view: ReportView) -> Iterator[Block]:
    own = view.findings.summaries
    if not own:
        return
    yield Heading(2, "Families of metrics")
    yield said(
        "Style is the mean share of the gap to the teacher that closed; the others are mean "
        "changes from the untrained base in points, of which up is good. 95% intervals are in "
        "brackets. "
        f"Holm's correction covers the {view.findings.primary} tests behind the verdicts; where p "
        "is empty, a row is none of them."
    )
    # Where no corpus is for a task, capability is all that is unsupported.
    local = any(s.family == "supported" for s in own)
    own = tuple(s for s in own if local or s.family != "unsupported")
    for base in dict.fromkeys(s.base for s in own):
        mine = [s for s in own if s.base == base]
        rows = [_summary(s) for s in sorted(mine, key=lambda s: _FAMILIES.index(s.family))]
        header = ("Family", "Corpus", "Tokens", "Estimate", "Gap closed", "Detectable", "p (Holm)")
        yield from table(base, header, rows)


def _summary(s: Summary) -> tuple[str, ...]:
    show = _show(s.family)
    bound = " (lower bound)" if s.lower_bound else ""
    return (
        FAMILIES[s.family],
        s.corpus,
        tokens(s.amount) + (" and feedback" if s.feedback else ""),
        interval(s.estimate, show) + bound,
        "" if s.family == "style" else interval(s.closed, percent),
        "" if s.detectable is None else show(s.detectable).lstrip("+"),
        "" if s.adjusted is None else p_value(s.adjusted),
    )


def _show(family: str) -> Show:
    return percent if family == "style" else points


def _drawn(figures: Sequence[Figure]) -> Iterator[Block]:
    if figures:
        yield Heading(2, "Figures")
        yield from figures


def _trends(view: ReportView) -> Iterator[Block]:
    rows = []
    better = {(v.task, v.metric): v.better for v in view.findings.values}
    local = any(t.family == "supported" for t in view.findings.trends)
    for t in view.findings.trends:
        if t.family == "unsupported" and not local:
            continue
        name = (
            FAMILIES[t.family]
            if t.metric == t.family
            else metric_text(view, t.task, t.metric).title
        )
        amounts = ", ".join(tokens(a) for a in t.amounts)
        told = trend_words(t, better.get((t.task, t.metric), "higher"))
        rows.append((t.base, t.corpus, name, amounts, told))
    if rows:
        yield Heading(2, "Score against amount")
        header = ("Base", "Corpus", "Metric", "Tokens", "Slope, with its 95% interval")
        yield from table("What twice the data gives", header, rows)
    sizes = []
    for s in view.findings.sizes:
        name = MEAN.title if s.metric == s.family else metric_text(view, s.task, s.metric).title
        seen = f"{s.corpus}, {tokens(s.amount)} tokens" if s.corpus else "untrained"
        sizes.append((seen, name, ", ".join(s.bases), size_words(s)))
    if sizes:
        yield Heading(2, "Score against base size")
        wide = ("Students", "Metric", "Bases", "Slope, with its 95% interval")
        yield from table("What a larger base gives", wide, sizes)


def _choices(view: ReportView) -> Iterator[Block]:
    rows = []
    for c in view.findings.data_or_base:
        show = _show(c.family)
        rows.append(
            (
                c.base,
                c.corpus,
                FAMILIES[c.family],
                f"{interval(c.data_gain, show)} at {tokens(c.previous)} to {tokens(c.amount)}",
                f"{c.other}: {interval(c.base_gain, show)}" if c.other else "no larger base",
                interval(c.contrast, show) if c.contrast else "",
                "" if c.base_better is None else probability(c.base_better),
            )
        )
    if rows:
        yield Heading(2, "More data or a better base")
        header = ("Base", "Corpus", "Family", "Doubling the data", "Next base", "Base minus data",
                  "Probability of the base")  # fmt: skip
        yield from table("What each gives", header, rows)


def _local(view: ReportView) -> Iterator[Block]:
    rows = [
        (
            r.base,
            metric_text(view, r.task, r.metric).title,
            number(r.base_value),
            f"{number(r.broad_value)} ({r.broad}, {tokens(r.broad_amount)})",
            f"{number(r.local_value)} ({r.local}, {tokens(r.local_amount)})",
            number(r.teacher.value),
            interval(r.difference, signed),
        )
        for r in view.findings.local_broad
    ]
    if rows:
        yield Heading(2, "Local against broad imitation")
        header = ("Base", "Task", "Untrained", "Broad", "Local", "Teacher", "Local minus broad")
        yield from table("A student of the task's own data beside one of broad data", header, rows)


def _gaps(view: ReportView) -> Iterator[Block]:
    groups: dict[tuple[str, str, str], list[GapRow]] = {}
    for row in view.findings.gaps:
        groups.setdefault((row.family, row.task, row.metric), []).append(row)
    if groups:
        yield Heading(2, "Gaps")
        yield said(
            "What each student changed from its untrained base on the same items, and the share of "
            "the gap to the teacher that this is."
        )
    for (family, task, metric), own in groups.items():
        first = own[0]
        better = "nearer to 0" if first.better == "zero" else first.better
        caption = f"{metric_text(view, task, metric).title} ({family}; {better} is better)"
        header = ("Student", "Untrained", "Student's", "Teacher", "Change", "Gap closed")
        yield from table(caption, header, (_gap(r) for r in own))


def _gap(r: GapRow) -> tuple[str, ...]:
    label = TEACHER_LABELS.get(r.teacher.source, "")
    source = f" ({label})" if r.teacher.source in ("reported", "ceiling") else ""
    return (
        _student(r.subject),
        number(r.base),
        number(r.student),
        number(r.teacher.value) + source,
        interval(r.change, signed),
        interval(r.closed, percent),
    )


def _student(s: Subject | None) -> str:
    if s is None:
        return "teacher"
    if s.untrained:
        return f"{s.base}, untrained"
    seen = f"{tokens(s.amount)} tokens" if s.amount else ""
    made = [s.base, s.corpus or "", seen, "feedback" if s.feedback else "", f"seed {s.seed}"]
    return ", ".join(filter(None, made))


def _paper(view: ReportView) -> Iterator[Block]:
    found = paper.tables(view)
    if found or view.figures:
        yield Heading(2, "The paper's tables")
        yield said(
            "Tables 1 and 2 of Gudibande et al., The False Promise of Imitating Proprietary LLMs "
            "(ICLR 2024), in this study's numbers; the paper's own where the metric is the same."
        )
    for t in found:
        heads = [h if k < t.own else f"{h} (paper)" for k, h in enumerate(t.heads)]
        rows = [
            (f"{r.name} (paper)" if r.paper else r.name, *(_cell(c, t.reported) for c in r.cells))
            for r in t.rows
        ]
        told = f"The paper's {t.title[0].lower()}{t.title[1:]}"
        told += "; nothing is measured yet, all is reported" if t.reported else ""
        yield from table(told, (t.first, *heads), rows)
        yield from map(said, t.notes)
    figures = [(f.figure, f.shows, f.says) for f in view.figures]
    caption = "What the paper's text says of its figures; nothing is read off a plot"
    yield from table(caption, ("Figure", "Shows", "The text, in short"), figures)


def _cell(c: paper.Cell, all_reported: bool) -> str:
    marked = ("reported",) if c.reported and c.value and not all_reported else ()
    below = "; ".join((*marked, *c.below))
    return f"{c.value} ({below})" if below else c.value


def _preferences(view: ReportView) -> Iterator[Block]:
    rows = [
        (
            named(c.rater),
            c.preference.model,
            c.preference.against,
            interval(c.preference.win_rate, percent),
            interval(c.controlled.win_rate, percent),
            str(c.preference.win_rate.n),
        )
        for c in view.judged.pairs
    ]
    if rows:
        yield Heading(2, "Judges and people")
        header = ("Rater", "Model", "Against", "Win rate", "At equal length", "Prompts")
        yield from table("Which answer is preferred; a tie is half a win", header, rows)
        for s in section(view).said:
            yield said(s.sentence, f"{s.row.model}, by {named(s.row.rater)}.")


def _values(view: ReportView) -> Iterator[Block]:
    groups: dict[tuple[str, str], list[ValueRow]] = {}
    for row in view.findings.values:
        groups.setdefault((row.task, row.metric), []).append(row)
    if groups:
        yield Heading(2, "Every score")
    for (task, metric), own in groups.items():
        named = metric_text(view, task, metric)
        caption = f"{named.title}. {named.meaning}" if named.meaning else named.title
        header: tuple[str, ...] = ("Model", "Value", "Items")
        rows: list[tuple[str, ...]] = [
            (_student(r.subject) if r.subject else r.model, interval(r.value), str(r.value.n))
            for r in own
        ]
        if any(r.method for r in own):
            header = (*header, "Method")
            rows = [(*row, r.method) for row, r in zip(rows, own, strict=True)]
        yield from table(caption, header, rows)


def _made(view: ReportView) -> Iterator[Block]:
    yield Heading(2, "How it was made")
    header = ("Corpus", "Kind", "Conversations read", "Kept", "Sources")
    rows = [
        (c.name, c.kind, f"{c.read:,}", f"{c.kept:,}",
         "; ".join(f"{s.name} ({s.licence or s.terms or 'terms not stated'})" for s in c.sources))
        for c in view.corpora
    ]  # fmt: skip
    yield from table("Corpora", header, rows)
    for group, facts in view.provenance.items():
        yield from table(group, ("What", "Which"), facts.items())
    holes = [
        (_student(c.subject), c.state, f"{c.done} of {c.steps} steps", c.note)
        for c in view.cells
        if c.state != "done"
    ]
    yield from table("Models that are not finished", ("Model", "State", "Done", "Why"), holes)
    yield from table("Revisions and hashes", ("What", "Which"), view.locked.items())
    if view.created:
        yield said(f"The last step was finished at {view.created}.")
