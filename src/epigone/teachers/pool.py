"""The pool that a corpus's prompts are drawn from: what may be asked, in what order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from epigone.corpus.contamination import Index, Item
from epigone.corpus.language import language, prose
from epigone.errors import CorpusError
from epigone.schema import Message
from epigone.study.specs import AskSpec
from epigone.teachers.prompts import Prompt, Prompts

# The file that names the prompts that are asked.
CHOSEN = "chosen.jsonl"


@dataclass(slots=True)
class Fitting:
    """Prompts that may be asked, drawn by the hash of the seed and each one's name.

    What is skipped, and why, is known of those that were drawn so far.
    """

    drawn: Iterator[Prompt | str]
    skipped: Counter[str] = field(default_factory=Counter)

    def up_to(self, most: int) -> list[Prompt]:
        """The first of them."""
        found: list[Prompt] = []
        while len(found) < most and (made := next(self.drawn, None)) is not None:
            if isinstance(made, str):
                self.skipped[made] += 1
            else:
                found.append(made)
        return found


def fitting(
    read: Prompts, spec: AskSpec, items: Sequence[Item], asked: Collection[str] = ()
) -> Fitting:
    """What may be asked: not yet asked, of the right language, and no item of an evaluation."""
    index = Index(items)

    def drawn() -> Iterator[Prompt | str]:
        for prompt in sorted(read.prompts, key=lambda p: _draw(spec.seed, p)):
            if prompt.id not in asked:
                yield _fit(prompt, spec, index)

    return Fitting(drawn(), Counter(read.skipped))


def choose(
    read: Prompts, spec: AskSpec, items: Sequence[Item], chosen: Sequence[str] | None = None
) -> Prompts:
    """The `size` prompts that are asked, or those that were `chosen` by their names.

    Raises CorpusError where there are fewer.
    """
    if chosen is not None:
        known = {p.id: p for p in read.prompts}
        found = [_cut(known[name], spec) for name in chosen]
        return Prompts(tuple(found), Counter(read.skipped))
    fit = fitting(read, spec, items)
    found = fit.up_to(spec.size)
    if len(found) < spec.size:
        raise CorpusError(
            f"only {len(found):,} of {len(read.prompts):,} prompts can be asked",
            value=f"size={spec.size}",
            fix=", ".join(f"{n} {why}" for why, n in fit.skipped.items()) or "lower the size",
        )
    return Prompts(tuple(found), fit.skipped)


def _fit(prompt: Prompt, spec: AskSpec, index: Index) -> Prompt | str:
    prompt = _cut(prompt, spec)
    told = language(prose(tuple(Message("user", t) for t in prompt.turns)), spec.languages)
    if spec.languages and told and told not in spec.languages:
        return "another language"
    if index.find([*(m.content for m in prompt.given), *prompt.turns]):
        return "an item of the evaluation"
    return prompt


def _cut(prompt: Prompt, spec: AskSpec) -> Prompt:
    return replace(prompt, turns=prompt.turns[: spec.turns or None])


def _draw(seed: int, prompt: Prompt) -> bytes:
    return hashlib.sha256(f"{seed}:{prompt.id}".encode()).digest()
