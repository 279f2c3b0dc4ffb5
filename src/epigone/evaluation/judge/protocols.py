"""What a judge is asked of answers, and what its verdicts come to: ratings, scores."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from epigone.errors import CorpusError
from epigone.evaluation.judge.ask import Question, Verdict
from epigone.evaluation.judge.verdicts import CORRECT, PREFERENCES
from epigone.schema import Family, Rating, Sample, Score
from epigone.study.judge import COMPARING, PROTOCOLS, Protocol

Answers = Mapping[str, Sample]
# Which answers are right, by item: any of them will do.
References = Mapping[str, Sequence[str]]
SAME = "same text"
_WORDS = re.compile(r"[^\W_]+")


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
                reasons=(SAME,) if verdict.tries == 0 else (),
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

    A comparison counts where both orders have a verdict.
    """
    found: list[Score] = []
    own = [v for v in verdicts if model in v.question.models]
    by = {p: [v for v in own if v.question.protocol == p] for p in PROTOCOLS}
    by |= {p: [v for v in by[p] if against in v.question.models] for p in COMPARING}
    if by["pairwise"]:
        wins = _both_orders(by["pairwise"], partial(_win, model=model))
        found.append(_score("win_rate", model, "preference", wins, judge, ceiling=0.5))
        no_worse = _both_orders(by["pairwise"], partial(_no_worse, model=model))
        found.append(_score("equal_or_better", model, "preference", no_worse, judge))
    if by["score"]:
        rated = _both_orders(by["score"], partial(_rated, model=model))
        found.append(_score("score", model, "preference", rated, judge))
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


def relative_score(
    verdicts: Iterable[Verdict], model: str, against: str
) -> tuple[float, float] | None:
    """Sums of a model's and another's scores where both were shown together, in both orders.

    None where there are none. Vicuna's review tells the share that one is of the other.
    """
    pair = {model, against}
    own = [v for v in verdicts if v.question.protocol == "score" and set(v.question.models) == pair]
    sums = [sum(_both_orders(own, partial(_rated, model=who)).values()) for who in (model, against)]
    return (sums[0], sums[1]) if sums[1] else None


def marks(answers: Answers, n: int | None, references: References) -> dict[str, float]:
    """Whether an answer holds one of its references, word for word, where there are any."""
    return {
        item: float(any(_holds(sample.output, right) for right in references[item]))
        for item, sample in list(answers.items())[:n]
        if item in references
    }


def missing(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many questions are without a verdict, by the reason."""
    return dict(sorted(Counter(v.missing for v in verdicts if v.missing).items()))


def _both_orders(
    verdicts: Iterable[Verdict], value: Callable[[Verdict], float | None]
) -> dict[str, float]:
    """Values by item, averaged over its two orders; none where a verdict is missing."""
    found: dict[str, list[float | None]] = defaultdict(list)
    for v in verdicts:
        found[v.question.item].append(value(v))
    told = {i: [v for v in values if v is not None] for i, values in found.items()}
    return {i: sum(v) / 2 for i, v in told.items() if len(v) == 2}


def _win(verdict: Verdict, model: str) -> float | None:
    told = _preference(verdict)
    if told is None:
        return None
    own = told if verdict.question.models[0] == model else -told
    return 0.5 if own == 0 else float(own > 0)


def _no_worse(verdict: Verdict, model: str) -> float | None:
    win = _win(verdict, model)
    return None if win is None else float(win > 0)


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
    ceiling: float | None = None,
) -> Score:
    return Score(
        metric=metric,
        model=model,
        family=family,
        value=sum(values.values()) / len(values) if values else None,
        n=len(values),
        values=values,
        ceiling=ceiling,
        task="judge",
        primary=False,
        method=judge,
    )


def _holds(text: str, reference: str) -> bool:
    said, wanted = _words(text), _words(reference)
    return bool(wanted) and f" {' '.join(wanted)} " in f" {' '.join(said)} "


def _words(text: str) -> list[str]:
    return _WORDS.findall(unicodedata.normalize("NFKC", text).casefold())
