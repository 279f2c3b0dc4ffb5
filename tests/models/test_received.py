"""Hostile JSON of endpoints: read, cleaned, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigone.models.received import decoded

deep = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=12)
    | st.sampled_from(["sk-planted/12", "a sk-planted/12 b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(deep, st.booleans(), st.sampled_from(["", "sk-planted/12"]), st.integers(0, 60))
def test_what_needs_no_cleaning_is_seen_without_a_look_at_all_of_it(
    value: Any, plain: bool, key: str, depth: int
) -> None:
    for _ in range(depth):
        value = [value]
    content = json.dumps({"said": value}, ensure_ascii=plain).encode("utf-8", "replace")

    def outcome(shortcut: bool) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            if not shortcut:
                patch.setattr("epigone.models.received._plain", lambda *_: False)
            try:
                return decoded(content, key)
            except ValueError as error:
                return str(error)

    assert outcome(shortcut=True) == outcome(shortcut=False)
