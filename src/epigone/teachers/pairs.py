"""Pairs of a question and its answer: parsed from what a teacher wrote, and told apart."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from epigone.corpus.contamination import Index, words

# From so much overlap on two questions count as one (Wang et al. 2022, "Self-Instruct", 2.2).
NEAR = 0.7
# Code as chat models write it: in a fence, or between single marks.
_FENCE = re.compile(r"(`{3,})[^\n`]*\n(?P<block>(?:(?!\1).)*)\1|`(?P<inline>[^`\n]+)`", re.DOTALL)


_BETWEEN = re.compile(r"\s*(?:[-*_]{3,}|\(?\d{1,4}[.):])\s*")


@dataclass(frozen=True, slots=True)
class Pair:
    """What is asked, and what is answered."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Unpaired:
    """A part of a text that is no pair, and why."""

    why: str
    text: str


@dataclass(frozen=True, slots=True)
class Labels:
    """What a task calls the halves of a pair, as "Question" and "Answer"."""

    question: str = "Question"
    answer: str = "Answer"

    def shown(self, pairs: Sequence[Pair]) -> str:
        """Pairs as a teacher is shown them."""
        return "\n\n".join(
            f"{self.question}: {p.question}\n{self.answer}: {p.answer}" for p in pairs
        )

    def parse(self, text: str) -> Iterator[Pair | Unpaired]:
        """The pairs of a text, and in their places what lacks a half.

        Numbers, bullets and bold type around the labels do not matter, nor does their case, and at
        the beginning of a line their first letter stands for them. A half goes on until the next
        label: answers may be of several lines. Of one that is all in a fence
        of code, the code counts.
        """
        halves = [*self._halves(text)]
        if not halves:
            yield Unpaired("no pair in it", text)
        asked: str | None = None
        for is_question, content in halves:
            if is_question:
                if asked is not None:
                    yield Unpaired("a question without an answer", asked)
                asked = content
            elif asked is None:
                yield Unpaired("an answer without a question", content)
            else:
                whole = asked and content
                yield Pair(asked, content) if whole else Unpaired("an empty half", asked or content)
                asked = None
        if asked is not None:
            yield Unpaired("a question without an answer", asked)

    def _halves(self, text: str) -> Iterator[tuple[bool, str]]:
        """Whether it is a question, and its text, of each labelled part."""
        names = [re.escape(self.question), re.escape(self.answer)]
        if names[0][0].lower() != names[1][0].lower():
            names = [f"{name}|{name[0]}" for name in names]
        # Possessive, so that a line of a million stars takes no time.
        label = re.compile(
            r"^[ \t>*#_-]*+(?:\(?\d{1,4}[.):]?[ \t]*+)?[*_]*+"
            rf"(?:(?P<q>{names[0]})|(?P<a>{names[1]}))"
            r"[ \t]*+(?:#?\d{1,4})?[ \t]*+[*_]*+[ \t]*+:[*_]*+"
            # An answer may stand behind its question, and then has its whole name.
            rf"|(?<=\s)[*_]*+(?P<b>{re.escape(self.answer)})[*_]*+:[*_]*+",
            re.IGNORECASE | re.MULTILINE,
        )
        marks = [*label.finditer(text)]
        for mark, after in zip(marks, [*marks, None][1:], strict=True):
            content = text[mark.end() : after.start() if after else None]
            yield mark["q"] is not None, _trimmed(content)


def _trimmed(text: str) -> str:
    # What follows an answer's own paragraph, as the number of the next pair or a rule, is none of
    # it. Only the last line is looked at: an answer may be a million empty ones.
    text = text.strip()
    head, _, last = text.rpartition("\n")
    if head and _BETWEEN.fullmatch(last):
        text = head.rstrip()
    text = text.removesuffix("**").strip()
    if fence := _FENCE.fullmatch(text):
        return (fence["block"] or fence["inline"] or "").strip()
    # The end of a fence around all pairs.
    return text.removesuffix("```").strip() if text.count("```") == 1 else text


class Pool:
    """Questions that are there already: no other may be one of them, or nearly."""

    def __init__(self, avoid: Index | None = None) -> None:
        """An empty one; `avoid` holds what is asked later, of which none may be in it."""
        self._avoid = avoid or Index(())
        self._said: list[list[str]] = []
        self._answers: list[list[str]] = []
        self._same: set[tuple[str, ...]] = set()
        # For each word the questions that have it.
        self._with: defaultdict[str, list[int]] = defaultdict(list)

    def refuse(self, pair: Pair) -> str:
        """Why a pair may not join, empty where it may."""
        said = words(pair.question)
        if not said:
            return "a question without words"
        if tuple(said) in self._same:
            return "asked already"
        if name := self._avoid.find([pair.question], [pair.answer]):
            return f"an item of the evaluation: {name}"
        if self._near(said, words(pair.answer)):
            return "nearly asked already"
        return ""

    def add(self, pair: Pair) -> None:
        """It is there from now on."""
        said = words(pair.question)
        self._answers.append(words(pair.answer))
        for word in set(said):
            self._with[word].append(len(self._said))
        self._said.append(said)
        self._same.add(tuple(said))

    def _near(self, said: list[str], answer: list[str]) -> bool:
        """Whether ROUGE-L of any other question reaches NEAR, and it is no question of its own."""
        own = Counter(said)
        shared: Counter[int] = Counter()
        for word in own:
            shared.update(self._with.get(word, ()))
        for other, distinct in shared.items():
            told = self._said[other]
            least = NEAR * (len(said) + len(told)) / 2
            # Words that both have bound the longest common subsequence; of distinct ones, loosely.
            if distinct + (len(said) - len(own)) < least:
                continue
            if rouge_l(said, told) >= NEAR and not (
                answer != self._answers[other] and apart(said, told)
            ):
                return True
        return False


def apart(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether each of two questions has a word of its own that names something.

    The capital of Spain is no copy of the capital of France, which has another answer.
    """
    return all(
        any(len(word) > 3 or word.isdigit() for word in {*a} - {*b})
        for a, b in ((one, other), (other, one))
    )


def rouge_l(one: Sequence[str], other: Sequence[str]) -> float:
    """ROUGE-L F1 of two texts' words (Lin 2004): twice their longest common subsequence by both
    lengths.
    """
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for j, told in enumerate(other, 1):
            before, row[j] = row[j], before + 1 if word == told else max(row[j], row[j - 1])
    both = len(one) + len(other)
    return 2 * row[-1] / both if both else 0.0
