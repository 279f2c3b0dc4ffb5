from __future__ import annotations

import datetime

import pytest

from epigone.errors import CorpusError
from epigone.study.terms import refuse, table, terms_of


def test_every_known_text_has_a_source_and_the_day_it_was_read() -> None:
    assert {"openai", "anthropic", "google", "meta", "mistral", "permissive", "unknown"} <= set(
        table()
    )
    for terms in table().values():
        assert terms.commercial in ("no", "yes", "conditions", "unknown")
        assert terms.says
        if terms.name != "unknown":
            assert terms.source.startswith("https://")
            datetime.date.fromisoformat(terms.read)
            assert not terms.version or datetime.date.fromisoformat(terms.version)


@pytest.mark.parametrize(
    ("named", "teacher", "found"),
    [
        ("openai", "", "openai"),
        ("OpenAI-2023", "gemini", "openai"),
        ("", "chatgpt-2023", "openai"),
        ("", "gpt-4o", "openai"),
        ("", "claude-3-opus", "anthropic"),
        ("", "Llama-3.1-8B", "meta"),
        ("", "olmo-2", "unknown"),
        ("MIT", "gpt-4", "permissive"),
        ("some terms of their own", "gpt-4", "unknown"),
        ("", "", "unknown"),
    ],
)
def test_terms_by_name_and_by_teacher(named: str, teacher: str, found: str) -> None:
    assert terms_of(named, teacher).name == found


def test_commercial_use_is_refused_where_it_is_forbidden_or_nobody_knows() -> None:
    refuse("it", [table()["openai"]], "research")
    refuse("it", [table()["permissive"], table()["meta"]], "commercial")
    with pytest.raises(CorpusError, match="forbid commercial use"):
        refuse("it", [table()["permissive"], table()["openai"]], "commercial")
    with pytest.raises(CorpusError, match="not known"):
        refuse("it", [table()["unknown"]], "commercial")
