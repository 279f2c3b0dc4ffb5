"""TLDR-synthetic: a teacher's summaries of given passages (Gudibande et al. 2023, section 3)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from epigone.corpus.contamination import Index, Item, words
from epigone.models.endpoint import KEY
from epigone.models.received import sound
from epigone.schema import Progress, silent
from epigone.teachers.answers import Settings
from epigone.teachers.collect import ask_prompts
from epigone.teachers.means import Means
from epigone.teachers.prompts import Prompt, Prompts, read_texts
from epigone.teachers.wordings import wording

# Where a passage stands in a row, the first that is there.
_PASSAGES = ("passage", "post", "content", "body", "article", "document", "text", "prompt")
# A passage of fewer words needs no summary.
_SHORTEST = 20
SETTINGS = Settings(max_tokens=160)


def summarize(
    passages: str | Path,
    out: str | Path,
    endpoint: str,
    size: int | None = None,
    settings: Settings = SETTINGS,
    *,
    avoid: Iterable[Item] = (),
    means: Means | None = None,
    about: Mapping[str, str] | None = None,
    key_env: str = KEY,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Ask for summaries of a file's passages, the first `size` that can be asked.

    Passages are lines of a text file, or JSON: texts, or objects with a passage, post, content,
    body, article, document, text or prompt. Files are written as by `ask_teacher`.
    """
    read = read_passages(Path(passages), size, Index(avoid))
    return ask_summaries(
        read, out, endpoint, settings, means=means, about=about, key_env=key_env,
        progress=progress,
    )  # fmt: skip


def ask_summaries(
    passages: Prompts, out: str | Path, endpoint: str, settings: Settings = SETTINGS, **told: Any
) -> dict[str, Any]:
    """As `summarize`, for passages that are read already, each the turn of a prompt."""
    version = {"task": "tldr", "wording_version": wording("tldr").version}
    asked = Prompts(asked_with(passages.prompts), passages.skipped)
    return ask_prompts(asked, out, endpoint, settings, check=check, told=version, **told)


def asked_with(passages: Iterable[Prompt]) -> tuple[Prompt, ...]:
    """Passages in the words that ask for their summary."""
    text = wording("tldr")
    return tuple(
        replace(p, turns=tuple(text.fill(passage=turn) for turn in p.turns)) for p in passages
    )


def read_passages(path: Path, size: int | None = None, avoid: Index | None = None) -> Prompts:
    """The first `size` passages of a file, each as the turn of a prompt.

    Raises CorpusError for a file without any.
    """
    skipped: Counter[str] = Counter()
    found: dict[str, Prompt] = {}
    for passage in map(str.strip, read_texts(path, _PASSAGES, skipped)):
        own = hashlib.sha256(passage.encode("utf-8", "replace")).hexdigest()[:16]
        if len(found) == size:
            break
        if sound(passage) != passage or "\x00" in passage:
            skipped["characters that no text has"] += 1
        elif len(words(passage)) < _SHORTEST:
            skipped[f"fewer than {_SHORTEST} words"] += 1
        elif own in found:
            skipped["asked already"] += 1
        elif avoid is not None and avoid.find([passage]):
            skipped["an item of the evaluation"] += 1
        else:
            found[own] = Prompt(own, (), (passage,))
    return Prompts.of(path, found.values(), skipped)


def check(prompt: Prompt, summary: str) -> str:
    """What is wrong with a summary: it is no shorter than its passage, or a copy of its text."""
    (asked,) = prompt.turns
    said, told = words(summary), words(asked)
    frame = len(words(wording("tldr").fill(passage="")))
    if 2 * len(said) > len(told) - frame:
        return "hardly shorter than its passage"
    if len(said) > 8 and f" {' '.join(said)} " in f" {' '.join(told)} ":
        return "copied from its passage"
    return ""
