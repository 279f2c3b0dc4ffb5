from __future__ import annotations

import datetime

import pytest

from epigone.errors import CorpusError, UnknownName
from epigone.study.specs import CorpusSpec, DataSpec, SourceSpec
from epigone.study.terms import known_terms, refuse, table, terms_in, terms_of


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
        ("", "meta-llama/Llama-3.3-70B-Instruct", "meta"),
        ("", "meta-llama/Llama-2-7b-chat", "llama-2"),
        ("", "Meta-Llama-3-8B", "llama-2"),
        ("", "azure/gpt-4o", "openai"),
        ("", "text-davinci-003", "openai"),
        ("", "o3-mini", "openai"),
        ("", "models/gemini-1.5-pro", "google"),
        ("", "google/gemma-2-9b-it", "gemma"),
        ("", "google/flan-t5-xl", "permissive"),
        ("", "openai/gpt-oss-20b", "permissive"),
        ("", "gpt2-xl", "permissive"),
        ("", "gpt4all-j", "unknown"),
        ("", "palmyra-x", "unknown"),
        ("Apache 2.0", "", "permissive"),
        ("MIT License", "", "permissive"),
        ("", "olmo-2", "permissive"),
        ("", "some-model", "unknown"),
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


def test_what_forbids_is_told_before_what_nobody_knows() -> None:
    with pytest.raises(CorpusError, match="forbid commercial use"):
        refuse("it", [table()["unknown"], table()["openai"]], "commercial")


def test_a_name_that_is_not_in_the_table_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'openai'"):
        known_terms("opnai")


@pytest.mark.parametrize(
    ("licence", "refused"),
    [("CC BY-NC 4.0", True), ("cc-by-nc-sa-4.0", True), ("Non-commercial use only", True),
     ("CC BY 4.0", False), ("our own logs", False), ("", False)],
)  # fmt: skip
def test_a_licence_that_bars_business_counts(licence: str, refused: bool) -> None:
    source = DataSpec(ref="f", fingerprint="0", licence=licence, terms="mit")
    tokenizer = SourceSpec(ref="t", fingerprint="0")
    found = terms_in(CorpusSpec(kind="broad", sources=(source,), tokenizer=tokenizer, teacher="x"))
    assert any(t.commercial == "no" for t in found) is refused
