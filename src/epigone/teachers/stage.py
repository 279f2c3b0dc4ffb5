"""The stage `ask`: what a study asks its teacher for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from epigone.corpus.contamination import Index, Item
from epigone.corpus.language import language, prose
from epigone.corpus.stage import items_in
from epigone.errors import CorpusError
from epigone.models.references import locate_data
from epigone.schema import Message, Progress
from epigone.study.specs import AskSpec, DataSpec
from epigone.teachers import synthesize, tldr
from epigone.teachers.answers import Settings
from epigone.teachers.collect import ask_prompts
from epigone.teachers.means import means_of
from epigone.teachers.prompts import Prompt, Prompts, read_prompts
from epigone.teachers.synthesis import Growth
from epigone.teachers.task import read
from epigone.teachers.wordings import built_in


def run(spec: AskSpec, inputs: Mapping[str, Path], out: Path, progress: Progress) -> dict[str, Any]:
    """See `epigone.teachers.run`; writes answers.jsonl, rejected.jsonl and asked.json."""
    items = [item for _, folder in sorted(inputs.items()) for item in items_in(folder)]
    endpoint = spec.model.ref.removeprefix("endpoint:")
    told: dict[str, Any] = {
        "means": means_of(spec.model.means),
        "key_env": spec.model.means.key_env if spec.model.means else "",
        "about": {"teacher": spec.model.name, "licence": "", "terms": spec.terms},
        "progress": progress,
    }
    if spec.task == "tldr":
        settings = settings_of(spec, tldr.SETTINGS)
        return tldr.summarize(
            _located(spec.data, progress), out, endpoint, spec.size, settings, avoid=items, **told
        )
    if spec.task == "answers":
        prompts = choose(read_prompts(_located(spec.data, progress), spec.system), spec, items)
        settings = settings_of(spec, Settings())
        return ask_prompts(prompts, out, endpoint, settings, **told)
    folder = built_in()[spec.task] if spec.task else _located(spec.data, progress)
    seeds = None if spec.seeds is None else _located(spec.seeds, progress)
    return synthesize.synthesize_task(
        read(folder, seeds), out, endpoint, Growth(spec.size, spec.shown, spec.each, spec.seed),
        settings_of(spec, synthesize.SETTINGS), avoid=items, **told,
    )  # fmt: skip


def _located(data: DataSpec | None, progress: Progress) -> Path:
    assert data is not None
    return locate_data(data.ref, progress, fingerprint=data.fingerprint)


def settings_of(spec: AskSpec, usual: Settings) -> Settings:
    """The settings of a spec, the usual ones where it names none."""
    told = {name: getattr(spec, name) for name in ("max_tokens", "temperature", "top_p")}
    told = {name: value for name, value in told.items() if value is not None}
    return replace(usual, seed=spec.seed, cut=spec.keep_cut, **told)


def choose(read: Prompts, spec: AskSpec, items: Sequence[Item]) -> Prompts:
    """The `size` prompts that are asked, drawn by the hash of the seed and each one's name.

    What an evaluation asks, and what is in another language, is left out before anything is paid.
    Raises CorpusError where there are fewer.
    """
    index, skipped = Index(items), Counter(read.skipped)
    found: list[Prompt] = []
    for prompt in sorted(read.prompts, key=lambda p: _draw(spec.seed, p)):
        turns = prompt.turns[: spec.turns or None]
        told = language(prose(tuple(Message("user", t) for t in turns)), spec.languages)
        if spec.languages and told and told not in spec.languages:
            skipped["another language"] += 1
        elif index.find([*(m.content for m in prompt.given), *turns]):
            skipped["an item of the evaluation"] += 1
        else:
            found.append(replace(prompt, turns=turns))
        if len(found) == spec.size:
            return Prompts(tuple(found), skipped)
    raise CorpusError(
        f"only {len(found):,} of {len(read.prompts):,} prompts can be asked",
        value=f"size={spec.size}",
        fix=", ".join(f"{n} {why}" for why, n in skipped.items()) or "lower the size",
    )


def _draw(seed: int, prompt: Prompt) -> bytes:
    return hashlib.sha256(f"{seed}:{prompt.id}".encode()).digest()
