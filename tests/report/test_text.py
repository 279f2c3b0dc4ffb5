from __future__ import annotations

import csv
import io
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from epigone.report.text import csv_cell, number, script_code, script_json, seconds, signed, visible

ANY = st.text(st.characters())  # lone surrogates included


@given(ANY)
def test_visible_text_has_no_character_that_acts(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029\u202a-\u202e\u2066-\u2069]", shown
    )
    assert visible(shown) == shown


def test_visible_keeps_what_people_write():
    kept = "naïve 'quotes' <b>&amp;</b>\n\ttab שלום 😀 日本"
    assert visible(kept) == kept
    assert visible("a\r\nb\rc\u2028d") == "a\nb\nc\nd"
    assert visible("\x1b[31mred\x00") == "␛[31mred␀"
    assert visible("\u202eevil") == "⟨U+202E⟩evil"


@given(
    st.recursive(ANY | st.integers() | st.none(), lambda v: st.lists(v) | st.dictionaries(ANY, v))
)
def test_script_json_is_the_same_value_without_markup(value):
    text = script_json(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert not set("<>&") & set(text)


def test_code_cannot_end_its_script_element():
    code = 'a="</script>"; b="</SCRIPT"; c="<!--"; d=a</b/.test(c)'
    safe = script_code(code)
    assert "</script" not in safe.lower()
    assert "<!--" not in safe
    assert safe.endswith("d=a</b/.test(c)")


@given(ANY)
def test_csv_cells_start_no_formula_and_read_back(text):
    cell = csv_cell(text)
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([cell, "end"])
    (row,) = csv.reader(io.StringIO(out.getvalue(), newline=""))
    assert row == [cell, "end"]
    assert cell in (visible(text), "'" + visible(text))


def test_csv_numbers_stay_numbers():
    assert (csv_cell(-0.5), csv_cell(None), csv_cell(3)) == ("-0.5", "", "3")


def test_numbers_are_readable():
    assert number(-0.12345) == "\N{MINUS SIGN}0.123"
    assert number(-0.0001) == "0.000"
    assert (number(41.26), number(12345.6), number(None)) == ("41.3", "12,346", "not known")
    # Three digits that count, so that a number and its bounds are told equally finely.
    assert (number(1.0), number(1.4567), signed(8.803)) == ("1.000", "1.46", "+8.80")
    assert (signed(0.5), signed(-0.5), signed(0.0)) == ("+0.500", "\N{MINUS SIGN}0.500", "0.000")
    assert (seconds(3.21), seconds(59.97), seconds(61), seconds(7260), seconds(None)) == (
        "3.2 s",
        "1 min 00 s",
        "1 min 01 s",
        "2 h 01 min",
        "\N{EN DASH}",
    )
