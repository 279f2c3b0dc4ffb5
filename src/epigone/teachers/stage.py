"""The stage `ask`: what a study asks its teacher for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from epigone.corpus.contamination import Item
from epigone.corpus.stage import items_in
from epigone.files import read_jsonl, write_jsonl
from epigone.models.references import locate_data
from epigone.schema import Progress
from epigone.study.specs import AskSpec, DataSpec
from epigone.study.teacher import ANSWERS, TLDR
from epigone.teachers import synthesize, tldr
from epigone.teachers.answers import Settings
from epigone.teachers.collect import ask_prompts
from epigone.teachers.means import means_of
from epigone.teachers.pool import CHOSEN, choose
from epigone.teachers.prompts import read_prompts
from epigone.teachers.synthesis import Growth
from epigone.teachers.task import read as read_task
from epigone.teachers.wordings import built_in


def run(spec: AskSpec, inputs: Mapping[str, Path], out: Path, progress: Progress) -> dict[str, Any]:
    """See `epigone.teachers.run`; writes answers.jsonl and rejected.jsonl."""
    facts = _asked(spec, inputs, out, progress)
    # Its counts are among the facts. What was known, failed and cost differs from run to run, and
    # no output does.
    (out / "asked.json").unlink()
    return facts


def _asked(
    spec: AskSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    items = [item for _, folder in sorted(inputs.items()) for item in items_in(folder)]
    told: dict[str, Any] = {
        "means": means_of(spec.model.means),
        "key_env": spec.model.means.key_env if spec.model.means else "",
        "about": {"teacher": spec.model.name, "licence": "", "terms": spec.terms},
        "progress": progress,
    }
    if spec.task in (ANSWERS, TLDR):
        return _answers(spec, inputs, items, out, told)
    folder = built_in()[spec.task] if spec.task else _located(spec.data, progress)
    seeds = None if spec.seeds is None else _located(spec.seeds, progress)
    growth = Growth(spec.size, spec.shown, spec.each, spec.draw)
    endpoint = spec.model.ref.removeprefix("endpoint:")
    return synthesize.synthesize_task(
        read_task(folder, seeds), out, endpoint, growth,
        settings_of(spec, synthesize.SETTINGS), avoid=items, **told,
    )  # fmt: skip


def _answers(
    spec: AskSpec, inputs: Mapping[str, Path], items: list[Item], out: Path, told: dict[str, Any]
) -> dict[str, Any]:
    data = _located(spec.data, told["progress"])
    read = read_prompts(data, spec.system) if spec.task == ANSWERS else tldr.read_passages(data)
    chosen = None
    if "chosen" in inputs:
        chosen = [row["id"] for row in read_jsonl(inputs["chosen"] / CHOSEN)]
    prompts = choose(read, spec, items, chosen)
    # Later rounds ask others.
    write_jsonl(out / CHOSEN, ({"id": p.id} for p in prompts.prompts))
    endpoint = spec.model.ref.removeprefix("endpoint:")
    if spec.task == TLDR:
        settings = settings_of(spec, tldr.SETTINGS)
        return tldr.ask_summaries(prompts, out, endpoint, settings, **told)
    return ask_prompts(prompts, out, endpoint, settings_of(spec, Settings()), **told)


def _located(data: DataSpec | None, progress: Progress) -> Path:
    assert data is not None
    return locate_data(data.ref, progress, fingerprint=data.fingerprint)


def settings_of(spec: AskSpec, usual: Settings) -> Settings:
    """The settings of a spec, the usual ones where it names none."""
    told = {name: getattr(spec, name) for name in ("max_tokens", "temperature", "top_p")}
    told = {name: value for name, value in told.items() if value is not None}
    return replace(usual, seed=spec.seed, cut=spec.keep_cut, **told)
