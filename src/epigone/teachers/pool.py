"""The pool that a corpus's prompts are drawn from: what may be asked, in what order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from epigone.corpus.contamination import Index, Item
from epigone.corpus.language import language, prose
from epigone.errors import CorpusError
from epigone.files import canonical
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
    # Dialogues that begin alike are one prompt where only their beginning is asked.
    seen = {_content(_cut(p, spec)) for p in read.prompts if p.id in asked}

    def drawn() -> Iterator[Prompt | str]:
        for prompt in sorted(read.prompts, key=lambda p: _draw(spec.draw, p)):
            if prompt.id in asked:
                continue
            cut = _cut(prompt, spec)
            if _content(cut) in seen:
                yield "asked already"
            else:
                seen.add(_content(cut))
                yield _fit(cut, spec, index)

    return Fitting(drawn(), Counter(read.skipped))


def choose(
    read: Prompts, spec: AskSpec, items: Sequence[Item], chosen: Sequence[str] | None = None
) -> Prompts:
    """The `size` prompts that are asked, or those that were `chosen` by their names.

    Raises CorpusError where there are fewer, or fewer than all rounds together ask.
    """
    if chosen is not None:
        known = {p.id: p for p in read.prompts}
        found = [_cut(known[name], spec) for name in chosen]
        return Prompts(tuple(found), Counter(read.skipped))
    fit = fitting(read, spec, items)
    found = enough(fit, max(spec.size, spec.of), len(read.prompts))
    return Prompts(tuple(found[: spec.size]), fit.skipped)


def enough(fit: Fitting, wanted: int, of: int, most: int = 0) -> list[Prompt]:
    """So many of the prompts, or up to `most`; raises CorpusError where there are fewer."""
    found = fit.up_to(max(wanted, most))
    if len(found) < wanted:
        raise CorpusError(
            f"only {len(found):,} of {of:,} prompts can be asked",
            value=f"size={wanted}",
            fix=", ".join(f"{n} {why}" for why, n in fit.skipped.items()) or "lower the size",
        )
    return found


def _content(prompt: Prompt) -> str:
    return canonical([[(m.role, m.content) for m in prompt.given], prompt.turns])


def _fit(prompt: Prompt, spec: AskSpec, index: Index) -> Prompt | str:
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
