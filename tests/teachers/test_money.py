"""Prices and worst cases."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.teachers.fake import usage_of

from epigone.errors import UserError
from epigone.teachers.means import purpose_of
from epigone.teachers.money import (
    Budget,
    Price,
    known_price,
    most_tokens,
    parse_price,
)


def test_costs_are_exact() -> None:
    price = parse_price("0.15, $0.60")
    assert price == Price(Decimal("0.15"), Decimal("0.60"))
    assert price.cost(1_000_000, 500_000) == Decimal("0.45")
    assert price.cost(1, 1) == Decimal("0.00000075")


@pytest.mark.parametrize("text", ["1", "1,2,3", "a,b", "-1,2", "nan,1", "inf,1", ""])
def test_what_is_no_price(text: str) -> None:
    with pytest.raises(UserError, match="not a price"):
        parse_price(text)


def test_known_models_and_their_snapshots() -> None:
    mini, large = known_price("gpt-4o-mini-2024-07-18"), known_price("gpt-4o-2024-08-06")
    assert mini is not None
    assert large is not None
    assert mini[0].answer == Decimal("0.6")
    assert large[0].answer == Decimal("10.0")
    first = known_price("gpt-4o-2024-05-13")
    assert first is not None
    assert first[0].answer == Decimal("15.0")
    assert known_price("gpt-4o-mini-audio-preview") is None
    assert known_price("smollm2") is None


@given(st.lists(st.text(max_size=200), min_size=1, max_size=5), st.integers(1, 999))
def test_no_request_takes_more_than_its_worst_case(texts: list[str], longest: int) -> None:
    body = {"messages": [{"role": "user", "content": t} for t in texts], "max_tokens": longest}
    counted = usage_of(body, "")["prompt_tokens"] + longest
    assert counted <= most_tokens(body)
    price = Price(Decimal(2), Decimal(8))
    assert price.cost(counted - longest, longest) <= price.most(body)


def test_a_budget_counts_what_is_in_flight_at_its_worst() -> None:
    budget = Budget(Decimal("1.00"), Decimal("0.30"))
    assert budget.fits(Decimal("0.70"))
    assert not budget.fits(Decimal("0.71"))
    budget.take(Decimal("0.50"))
    assert not budget.fits(Decimal("0.21"))
    budget.settle(Decimal("0.50"), Decimal("0.01"))
    assert budget.fits(Decimal("0.69"))
    assert budget.spent == Decimal("0.31")
    assert Budget(None, Decimal(0)).fits(Decimal(10**9))


def test_a_folder_is_one_purpose_however_it_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    spelt = ["a/out", "./a//out", "a/../a/out", "link/out", tmp_path / "a" / "out"]
    assert len({purpose_of(Path(s)) for s in spelt}) == 1
    assert purpose_of(Path("b/out")) != purpose_of(Path("a/out"))
