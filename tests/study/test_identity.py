from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigone.study.identity import differences, digest, slug

DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_the_digest_is_that_of_sorted_json() -> None:
    text = json.dumps(
        {"a": [1, "é"], "b": None}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert digest({"b": None, "a": [1, "é"]}) == hashlib.sha256(text.encode()).hexdigest()


@given(st.dictionaries(st.text(), DOCUMENTS, max_size=5))
def test_order_of_keys_changes_nothing(document: dict[str, Any]) -> None:
    assert digest(document) == digest(dict(reversed(list(document.items()))))


@pytest.mark.parametrize(
    "bad", [{1: 2}, {"a": {1, 2}}, {"a": object()}, {"a": math.nan}, {"a": b"x"}]
)
def test_unhashable_values_raise(bad: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        digest(bad)


@given(st.dictionaries(st.text(min_size=1), DOCUMENTS, max_size=5))
def test_a_document_differs_from_itself_in_nothing(document: dict[str, Any]) -> None:
    assert differences(document, document) == []


def test_differences_name_the_field() -> None:
    old = {"spec": {"n": 32, "model": {"name": "a"}}, "version": 1}
    new = {"spec": {"n": 16, "model": {"name": "a"}}, "version": 2}
    assert differences(old, new) == [("spec.n", 32, 16), ("version", 1, 2)]


@given(st.lists(st.text(), max_size=4))
def test_a_slug_is_a_safe_folder_name(axes: list[str]) -> None:
    name = slug(*axes)
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name) <= 100
    assert name.isascii()


@given(st.lists(st.text("abcdef-=,.0", min_size=20, max_size=60), min_size=4, max_size=6))
def test_long_names_that_differ_at_their_end_stay_different(axes: list[str]) -> None:
    one, two = slug(*axes, "8k", "s0"), slug(*axes, "8k", "s1")
    assert len(one) <= 100
    assert one != two
