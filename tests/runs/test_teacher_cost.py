"""What a plan says that a teacher costs, counted beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from tests.study.test_teacher import TEXT, Asking

from epigone.errors import UserError
from epigone.models import references
from epigone.runs.teacher_cost import asking, check_budget, told
from epigone.study.file import parse
from epigone.study.specs import AskSpec
from epigone.study.step import Step
from epigone.study.steps import expand
from epigone.teachers.estimate import ANSWER, expected


class Here(Asking):
    """References are files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def reference(self, ref: str) -> str:
        return str(self.folder / ref) if "." in ref and ":" not in ref else ref


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Step]]:
    monkeypatch.setenv("EPIGONE_HOME", str(tmp_path / "cache"))
    # No tokenizer is here: four bytes are a token.
    monkeypatch.setattr(
        "epigone.runs.teacher_cost.references.here",
        lambda ref: Path(ref) if Path(ref).is_absolute() and Path(ref).exists() else None,
    )
    rows = [{"prompt": "x" * (4 * n)} for n in range(20, 32)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def expand_(text: str) -> list[Step]:
        return [*expand(parse(text), Here(tmp_path)).steps]

    return expand_


TALK = TEXT.replace("prompts: p.jsonl}", "prompts: p.jsonl, max_tokens: 300}").replace(
    "size: 10", "size: 12"
)


def test_tokens_and_dollars_of_answers(steps: Callable[[str], list[Step]]) -> None:
    asks = {a.step.rpartition("-")[0]: a for a in asking(steps(TALK))}
    talk = asks["ask/talk"]
    # Twelve prompts of 20 to 31 tokens, four more around each; 250 tokens an answer.
    assert (talk.requests, talk.prompt_tokens, talk.tokens) == (
        12, sum(range(20, 32)) + 12 * 4, 12 * ANSWER,
    )  # fmt: skip
    dollars = (talk.prompt_tokens * Decimal("0.15") + talk.tokens * Decimal("0.6")) / 10**6
    most = (talk.prompt_tokens * Decimal("0.15") + 12 * 300 * Decimal("0.6")) / 10**6
    assert talk.usd == pytest.approx(float(dollars))
    assert talk.most_usd == pytest.approx(float(most))
    assert asks["benchmark/facts_t"].requests > 0
    assert "4 bytes a token" in talk.assumed
    # Four held-out prompts a second time, for no more than the first were asked for.
    second = asks["second/t"]
    assert (second.requests, second.tokens) == (4, 4 * 300)
    assert second.usd is not None


def test_batches_are_half_the_price_and_what_is_measured_is_not(
    steps: Callable[[str], list[Step]],
) -> None:
    whole = asking(steps(TALK))
    half = asking(steps(TALK.replace("minute: 60", "minute: 60, batch: true")))
    for one, other in zip(whole, half, strict=True):
        share = 0.5 if one.step.startswith("ask/") else 1.0
        assert one.usd is not None
        assert other.usd == pytest.approx(share * one.usd)


def test_what_is_not_here_is_assumed_and_said(
    steps: Callable[[str], list[Step]], tmp_path: Path
) -> None:
    (tmp_path / "p.jsonl").unlink()
    (talk, *_) = asking(steps(TALK))
    assert "not here yet" in talk.assumed
    assert talk.requests == 12


def test_no_price_is_told_and_no_budget_without_one(
    steps: Callable[[str], list[Step]],
) -> None:
    unknown = steps(TALK.replace("price: [0.15, 0.6], ", ""))
    assert "its price is not known" in "\n".join(told(asking(unknown)))
    check_budget(unknown, None)
    with pytest.raises(UserError, match="a budget needs the price"):
        check_budget(unknown, Decimal(5))
    known = steps(TALK.replace("price: [0.15, 0.6], ", "").replace("model: m", "model: gpt-4o"))
    check_budget(known, Decimal(5))
    lines = [*told(asking(known))]
    assert lines[0].startswith("the teacher is asked ")
    assert "$" in lines[0]


def test_a_pool_counts_what_it_shows(tmp_path: Path) -> None:
    model = next(s.spec for s in expand(parse(TEXT), Asking()).steps if s.slug == "quiz")
    assert isinstance(model, AskSpec)
    seen: list[str] = []

    def count(text: str) -> int:
        seen.append(text)
        return len(text)

    found = expected(model, None, None, count)
    assert found.requests == -(-model.size // 2)
    assert any("Write 5 more examples" in text for text in seen)
    assert found.most_tokens == found.requests * 1024


def test_what_is_here_is_found_without_the_network(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{}")
    assert references.here(str(tmp_path / "x.jsonl")) == tmp_path / "x.jsonl"
    assert references.here("hf:org/name") is None
