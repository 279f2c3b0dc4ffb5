"""Charts as SVG files that need no font: every letter is drawn as its outline."""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epigone.errors import MissingExtra
from epigone.report.charts import Series
from epigone.report.text import visible

INK = "#1d2127"
# A font that vl-convert holds, so that labels have the same room and shape on every machine.
_FONT = "Liberation Sans"
_VEGA_LITE = "6.4"
_WIDTH = 420
_PAGE = """#set page(width: auto, height: auto, margin: 0pt, fill: none)
#image("figure.pdf")
"""


def needed() -> tuple[Any, Any]:
    """The modules vl_convert and typst; raises MissingExtra where one is not installed."""
    try:
        import typst
        import vl_convert
    except ImportError:
        raise MissingExtra("a report as Markdown or PDF", "pdf") from None
    return vl_convert, typst


def static(spec: Mapping[str, Any], title: str, lines: Sequence[Series] = ()) -> dict[str, Any]:
    """A chart of the page as a figure that stands alone: on white, of fixed width, with a legend.

    `lines` are the series whose legend the page shows apart from its charts.
    """
    found: dict[str, Any] = _plain(dict(spec))
    found["title"] = {"text": visible(title), "anchor": "start", "fontSize": 12, "offset": 8,
                      "limit": _WIDTH}  # fmt: skip
    found["padding"] = 6
    config = dict(found.get("config", {}))
    config |= {"font": _FONT, "background": "white", "aria": False}
    found["config"] = config
    if lines and "layer" in found:
        found["layer"] = [*found["layer"], _legend(lines)]
    return found


def _plain(value: Any) -> Any:
    """A specification with what only a page has replaced: its colour, its width."""
    if isinstance(value, dict):
        return {k: _WIDTH if (k, v) == ("width", "container") else _plain(v)
                for k, v in value.items()}  # fmt: skip
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return INK if value == "currentColor" else value


def _legend(lines: Sequence[Series]) -> dict[str, Any]:
    """A layer of marks that nobody sees: only for its legend."""
    names = [line.label for line in lines]
    # A legend that is wider than its chart would squeeze the chart.
    columns = 2 if max(map(len, names)) < 28 else 1
    legend = {
        "title": None, "orient": "bottom", "columns": columns, "labelFontSize": 11,
        "labelLimit": _WIDTH // columns - 50, "labelColor": INK, "symbolOpacity": 1,
        "symbolSize": 62, "offset": 8,
    }  # fmt: skip

    def channel(values: Sequence[str]) -> dict[str, Any]:
        scale = {"domain": names, "range": [*values]}
        return {"field": "line", "type": "nominal", "scale": scale, "legend": legend}

    return {
        "data": {"values": [{"line": name} for name in names]},
        "mark": {"type": "point", "filled": True, "opacity": 0},
        "encoding": {
            "color": channel([line.colour for line in lines]),
            "shape": channel([line.shape for line in lines]),
        },
    }


def svg(spec: Mapping[str, Any]) -> bytes:
    """A Vega-Lite chart as SVG without fonts; equal charts give equal bytes.

    Vega draws it into a PDF with its fonts, and typst, which shows a PDF inside an SVG by its
    outlines, takes the letters apart. Nothing is loaded from anywhere.
    """
    vl_convert, typst = needed()
    pdf = vl_convert.vegalite_to_pdf(json.dumps(spec), vl_version=_VEGA_LITE, allowed_base_urls=[])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "figure.pdf").write_bytes(pdf)
        page = Path(folder, "page.typ")
        page.write_text(_PAGE)
        drawn = typst.compile(str(page), format="svg", root=folder, ignore_system_fonts=True)
    inner = re.search(rb'href="data:image/svg\+xml;base64,([^"]*)"', drawn)
    assert inner is not None
    return base64.b64decode(inner[1])
