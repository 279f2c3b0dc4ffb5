"""Text from models, teachers and files made safe to show; numbers made readable."""

from __future__ import annotations

import json
import re
from typing import Any

from epigone.schema import Interval

_PICTURES = {c: 0x2400 + c for c in range(0x20) if c not in (0x09, 0x0A)} | {0x7F: 0x2421}
_LINES = str.maketrans({"\u2028": "\n", "\u2029": "\n\n", "\x85": "\n"})
# Overrides of the writing direction can make an answer read as what it is not.
_BIDI = {c: f"\u27e8U+{c:04X}\u27e9" for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_LONE = re.compile("[\ud800-\udfff]")
_FORMULA = ("=", "+", "-", "@", "\t", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def visible(text: str) -> str:
    """Hostile text as text: line ends made alike, control and direction characters shown.

    Escapes (ANSI) become control pictures, direction overrides their code point in brackets,
    lone surrogates the replacement character; right-to-left letters stay as they are.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_LINES)
    text = text.translate(_PICTURES).translate(_BIDI)
    return _LONE.sub("\ufffd", text)


def csv_cell(value: object) -> str:
    """One CSV cell; text that a spreadsheet would run as a formula gets a leading apostrophe."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        return repr(value)
    text = visible(str(value))
    return f"'{text}" if text.lstrip(" \n").startswith(_FORMULA) else text


def script_json(value: Any) -> str:
    """JSON that can stand inside a script element: ASCII, and no character of markup."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for c in "<>&":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return text


def script_code(code: str) -> str:
    """JavaScript that can stand inside a script element: it cannot end or comment it out."""
    code = re.sub(r"</(script)", r"<\\/\1", code, flags=re.IGNORECASE)
    return code.replace("\r\n", "\n").replace("<!--", "<\\!--")


def number(value: float | None) -> str:
    """A score with a sensible number of digits and a true minus sign."""
    if value is None:
        return "not known"
    size = abs(value)
    digits = 3 if size <= 1 else 2 if size < 10 else 1 if size < 1000 else 0
    text = f"{value:,.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text.replace(",", "")) else text.lstrip("-")


def signed(value: float | None) -> str:
    """A difference: as `number`, with its sign."""
    text = number(value)
    return f"+{text}" if value is not None and float(f"{value:.3f}") > 0 else text


def bounds(interval: Interval, show: Any = number) -> str:
    """The interval's bounds, or an empty text where there are none."""
    if interval.low is None or interval.high is None:
        return ""
    return f"{show(interval.low)} to {show(interval.high)}"


def p_value(value: float) -> str:
    """A p-value with two digits, or that it is small."""
    return "under 0.001" if value < 0.001 else f"{value:.2g}"


def dollars(value: float) -> str:
    """US dollars; what is less than a cent is not nothing."""
    return f"${value:.4f}" if 0 < value < 0.01 else f"${value:,.2f}"


def hours(value: float) -> str:
    """Hours with a sensible number of digits."""
    return f"{value:.3g} h"


def seconds(value: float | None) -> str:
    """A duration, short."""
    if value is None:
        return "\N{EN DASH}"
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
