"""What a judge is asked of answers, and what its verdicts come to: ratings, scores."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from epigone.errors import CorpusError
from epigone.evaluation.judge.ask import Question, Verdict
from epigone.evaluation.judge.held import marks
from epigone.evaluation.judge.verdicts import CORRECT, PREFERENCES
from epigone.schema import SAME_TEXT, Family, Rating, Sample, Score
from epigone.study.judge import COMPARING, PROTOCOLS, Protocol

Answers = Mapping[str, Sample]
# Which answers are right, by item: any of them will do.
References = Mapping[str, Sequence[str]]


def comparisons(protocol: Protocol, one: Answers, other: Answers, n: int | None) -> list[Question]:
    """Two questions for each item that both have: in one order and in the other.

    Raises CorpusError where there is no such item, or where it is another prompt.
    """
    items = [item for item in other if item in one][:n]
    if not items:
        names = {s.model for s in (*one.values(), *other.values())}
        raise CorpusError("no item has answers of both", value=", ".join(sorted(names)))
    found = []
    for item in items:
        a, b = one[item], other[item]
        if a.prompt and b.prompt and a.prompt != b.prompt:
            raise CorpusError(f"an item that {a.model} and {b.model} were asked differently",
                              value=item)  # fmt: skip
        for first, second in ((a, b), (b, a)):
            found.append(
                Question(protocol, item, (first.model, second.model), a.prompt or b.prompt,
                         (first.output, second.output))
            )  # fmt: skip
    return found


def singles(
    protocol: Protocol, answers: Answers, n: int | None, references: References
) -> list[Question]:
    """One question for each item, but for what references tell."""
    rows = list(answers.items())[:n]
    return [
        Question(protocol, item, (s.model,), s.prompt, (s.output,))
        for item, s in rows
        if not (protocol == "correct" and item in references)
    ]


def questions(
    protocols: Iterable[str],
    model: Answers,
    against: Answers | None,
    n: int | None,
    references: References,
) -> list[Question]:
    """All that is asked of a model: its comparisons with another, and what looks at it alone."""
    found: list[Question] = []
    for protocol in protocols:
        name: Any = protocol
        if protocol not in COMPARING:
            found += singles(name, model, n, references)
        elif against is not None:
            found += comparisons(name, model, against, n)
    return found


def ratings(verdicts: Iterable[Verdict], judge: str) -> list[Rating]:
    """What a judge prefers, one row for each order, sorted.

    Of scores, the higher is preferred; by how much says nothing. They are of a rater of their own,
    "JUDGE by score".
    """
    found = []
    for verdict in verdicts:
        asked = verdict.question
        if asked.protocol not in COMPARING:
            continue
        first = asked.models[0]
        a, b = sorted(asked.models)
        told = _preference(verdict)
        left: Literal["a", "b"] = "a" if first == a else "b"
        found.append(
            Rating(
                item=asked.item,
                rater=judge if asked.protocol == "pairwise" else f"{judge} by score",
                a=a,
                b=b,
                preference=told if told is None or first == a else -told,
                left=left,
                workforce="judge",
                reasons=(SAME_TEXT,) if verdict.tries == 0 else (),
            )
        )
    return sorted(found, key=lambda r: (r.item, r.a, r.b, r.rater, r.left))


def _preference(verdict: Verdict) -> int | None:
    """Of the first answer over the second."""
    told = verdict.told
    if told is None:
        return None
    if verdict.question.protocol == "pairwise":
        return PREFERENCES[told["verdict"]]
    first, second = float(told["first"]), float(told["second"])
    return 2 * ((first > second) - (first < second))


def scores(
    verdicts: Sequence[Verdict],
    judge: str,
    model: str,
    against: str,
    answers: Answers,
    n: int | None,
    references: References,
) -> list[Score]:
    """Scores of one model; none of them is primary: a judge's opinion is no measurement.

    A comparison counts where both orders have a verdict; without `against`, those with all others
    do. What is preferred is told by ratings.
    """
    found: list[Score] = []
    own = [v for v in verdicts if model in v.question.models]
    by = {p: [v for v in own if v.question.protocol == p] for p in PROTOCOLS}
    by["score"] = [v for v in by["score"] if not against or against in v.question.models]
    if by["score"]:
        rated = _both_orders(by["score"], partial(_rated, model=model))
        found.append(replace(_score("score", model, "preference", rated, judge), scale=10.0))
    if by["tone"]:
        tone = {v.question.item: float(v.told["authoritative"]) for v in by["tone"] if v.told}
        found.append(_score("tone", model, "style", tone, judge))
    if by["correct"]:
        marked = {v.question.item: CORRECT[v.told["verdict"]] for v in by["correct"] if v.told}
        known = {item: mark for item, mark in marked.items() if mark is not None}
        found.append(_score("correct", model, "capability", known, judge))
    if references:
        right = marks(answers, n, references)
        found.append(_score("correct by reference", model, "capability", right, "references"))
    return found


def rated_together(
    verdicts: Iterable[Verdict], model: str, against: str
) -> tuple[dict[str, float], dict[str, float]]:
    """A model's and another's scores by item where both were shown together, in both orders.

    Vicuna's review tells the share that the sum of one is of the other's.
    """
    pair = {model, against}
    own = [v for v in verdicts if v.question.protocol == "score" and set(v.question.models) == pair]
    one, other = (_both_orders(own, partial(_rated, model=who)) for who in (model, against))
    return one, other


def unread(verdicts: Sequence[Verdict]) -> int:
    """How many questions a judge was asked, where no reply to any of them can be read; else 0."""
    asked = [v for v in verdicts if v.tries]
    return 0 if any(v.told is not None for v in asked) else len(asked)


def missing(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many questions are without a verdict, by the reason."""
    return dict(sorted(Counter(v.missing for v in verdicts if v.missing).items()))


def _both_orders(
    verdicts: Iterable[Verdict], value: Callable[[Verdict], float | None]
) -> dict[str, float]:
    """Values by item, averaged over the two orders of each pair; no pair where one is missing."""
    found: dict[tuple[str, frozenset[str]], list[float | None]] = defaultdict(list)
    for v in verdicts:
        found[v.question.item, frozenset(v.question.models)].append(value(v))
    means: dict[str, list[float]] = defaultdict(list)
    for (item, _), values in found.items():
        known = [v for v in values if v is not None]
        if len(known) == 2:
            means[item].append(sum(known) / 2)
    return {item: sum(v) / len(v) for item, v in means.items()}


def _rated(verdict: Verdict, model: str) -> float | None:
    if verdict.told is None:
        return None
    place = "first" if verdict.question.models[0] == model else "second"
    return float(verdict.told[place])


def _score(
    metric: str,
    model: str,
    family: Family,
    values: Mapping[str, float],
    judge: str,
) -> Score:
    return Score(
        metric=metric,
        model=model,
        family=family,
        value=sum(values.values()) / len(values) if values else None,
        n=len(values),
        values=values,
        task="judge",
        primary=False,
        method=judge,
    )
