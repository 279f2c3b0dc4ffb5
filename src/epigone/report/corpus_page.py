"""A page on a corpus: its numbers as tables and charts, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
from markupsafe import Markup

from epigone.files import write_text
from epigone.report import text
from epigone.report.charts import config
from epigone.report.page import VENDOR, environment, policy, read
from epigone.report.text import script_code, script_json, visible


def build(name: str, stats: Mapping[str, Any], out: Path) -> Path:
    """Write a page on the numbers that `epigone.corpus.stats` gives; its path is returned."""
    bars = {
        "length-0": (
            "Teacher tokens in a conversation",
            _spans(stats["lengths"]["teacher tokens"]),
        ),
        "length-1": ("Exchanges in a conversation", _spans(stats["lengths"]["exchanges"])),
        "openings": ("How first prompts begin", stats["openings"]),
        "languages": ("Languages of the conversations", _top(stats["languages"])),
    }
    bars = {ident: (title, counts) for ident, (title, counts) in bars.items() if counts}
    scripts = [script_code(read("vendor", script)) for script in VENDOR]
    scripts.append(script_code(read("static", "app.js")))
    style = read("static", "style.css")
    specs = {
        ident: _bars(counts, ordered=ident.startswith("length"))
        for ident, (_, counts) in bars.items()
    }
    html = (
        environment()
        .get_template("corpus_page.html.j2")
        .render(
            name=name,
            stats=stats,
            rules=sorted({*stats["dropped"], *stats["changed"]}),
            charts=[
                (ident, title, ", ".join(f"{k}: {v}" for k, v in counts.items()))
                for ident, (title, counts) in bars.items()
            ],
            policy=policy(scripts, style),
            scripts=[Markup(s) for s in scripts],
            style=Markup(style),
            chart_data=Markup(script_json(specs)),
            count=lambda n: f"{n:,}" if isinstance(n, int) else text.number(n),
        )
    )
    write_text(out, html)
    return out


def _top(counts: Mapping[str, int], most: int = 15) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most])


def _spans(bins: Mapping[str, int]) -> dict[str, int]:
    """Bins that begin at powers of two, under what they hold."""
    return {
        begin if int(begin) < 2 else f"{begin}\u2013{2 * int(begin) - 1}": n
        for begin, n in bins.items()
    }


def _bars(counts: Mapping[str, int], *, ordered: bool) -> dict[str, Any]:
    rows = [{"what": visible(what) or "(no words)", "n": n} for what, n in counts.items()]
    what = (
        alt.X("what:N", title=None, sort=None, axis=alt.Axis(labelAngle=-40)) if ordered else None
    )
    chart = alt.Chart(alt.InlineData(rows)).mark_bar(color="#4269d0", opacity=0.85)
    tip = [
        alt.Tooltip("what:N", title="Span" if ordered else "What"),
        alt.Tooltip("n:Q", title="n"),
    ]
    if what is not None:
        chart = chart.encode(x=what, y=alt.Y("n:Q", title=None), tooltip=tip)
    else:
        # One language may outnumber all others by thousands: the numbers stand beside the bars.
        y = alt.Y("what:N", title=None, sort=None)
        room = alt.Scale(domainMax=1.25 * max(counts.values()), nice=False)
        x = alt.X("n:Q", title=None, scale=room, axis=alt.Axis(tickCount=4))
        words = alt.Chart(alt.InlineData(rows)).mark_text(align="left", dx=4)
        chart = alt.layer(
            chart.encode(y=y, x=x, tooltip=tip),
            words.encode(y=y, x=x, text=alt.Text("n:Q", format=",")),
        )
    height = 190 if ordered else max(60, 17 * len(rows))
    spec: dict[str, Any] = chart.properties(width="container", height=height).to_dict(
        validate=False
    )
    spec.pop("$schema")
    spec["config"] = config()
    return spec
