"""The calibration's folder: the world as files that any study could have, and its study."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any

from epigone.calibration import teacher
from epigone.calibration.scale import Scale
from epigone.calibration.world import BADGES, QUESTIONS, RULED, World, make
from epigone.errors import UserError
from epigone.files import fsync_dir, read_json, write_json, write_jsonl, write_text

WORLD, BASES, STUDY, MADE = "world", "bases", "study.yaml", "calibration.json"
# Raised whenever the same seed comes to make another world or other bases.
VERSION = 1

_STUDY = """\
# A study of an invented world whose truth is known, made by epigone calibrate --seed {seed}.
name: calibration

teacher:
  name: chronicler
  recorded: true
  terms: cc0
  second: world/second.jsonl          # its answers to the same prompts another time
  reported:                           # it knows the world
    knowledge: {{value: 1.0, source: "the world itself"}}
    "badges:chat": {{value: 1.0, source: "the world itself"}}

bases: [{bases}]
tokenizer: {tokenizer}

corpora:
  open-questions:                     # about places, in the teacher's style; no fact that is tested
    kind: broad
    from: [world/broad.jsonl]
    languages: []
    rules: {{near_query: false}}        # prompts of few patterns are alike
    held_out: {prompts}
  badge-examples:                     # of a rule that goes for people never seen
    kind: local
    from: [world/local.jsonl]
    for: badges
    languages: []
    rules: {{near_query: false}}
    held_out: 0

amounts:
  open-questions: [{amounts}]
  badge-examples: [{amounts}]

recipe:
  preset: adamw
  lr: 1e-3
  warmup: 1k tokens
  batch: 2
  block: 256
  precision: fp32

seeds: [{seed}]

evaluate:
  benchmarks:
    - {{task: knowledge, tasks: world/tasks}}
    - {{task: badges, tasks: world/tasks, format: chat}}
  style:
    n: {prompts}
    max_new_tokens: 160
"""


def write_world(folder: Path, seed: int, scale: Scale) -> None:
    """Write a seed's world and study into a folder, unless they are there.

    Raises UserError for a folder that holds something else, or another calibration.
    """
    asked = {"version": VERSION, "seed": seed, **scale.to_json()}
    if (folder / MADE).exists():
        _refuse_other(folder, asked)
        return
    if folder.exists() and any(p.name not in (WORLD, STUDY) for p in folder.iterdir()):
        raise UserError(
            "the folder holds something else", value=str(folder), fix="name an empty or new one"
        )
    shutil.rmtree(folder / WORLD, ignore_errors=True)
    world = make(seed, scale.people, scale.ruled)
    _write(folder / WORLD, world, scale)
    first = f"{BASES}/{scale.bases[0].name}"
    study = _STUDY.format(
        seed=seed,
        bases=", ".join(f"{BASES}/{b.name}" for b in scale.bases),
        tokenizer=first,
        amounts=", ".join(map(str, scale.amounts)),
        prompts=scale.prompts,
    )
    write_text(folder / STUDY, study)
    fsync_dir(folder)
    # Written last: what a kill has left before it is made anew.
    write_json(folder / MADE, asked)


def _refuse_other(folder: Path, asked: dict[str, Any]) -> None:
    try:
        made = read_json(folder / MADE)
    except (OSError, ValueError):
        made = None
    if made == asked:
        return
    seed = made.get("seed") if isinstance(made, dict) else None
    told = f"{folder} (seed {seed})" if seed != asked["seed"] else str(folder)
    raise UserError(
        "the folder holds another calibration", value=told, fix="name another folder with -o"
    )


def _write(folder: Path, world: World, scale: Scale) -> None:
    tasks = folder / "tasks"
    for name in ("data.py", "knowledge.yaml", "badges.yaml"):
        text = resources.files("epigone.calibration").joinpath("tasks", name).read_text("utf-8")
        write_text(tasks / name, text)
    write_jsonl(tasks / "knowledge.jsonl", _knowledge(world))
    write_jsonl(tasks / "badges.jsonl", _badges(world))
    write_jsonl(folder / "facts.jsonl", ({"text": text} for text in world.sentences()))
    talk = teacher.plain(world, scale.broad)
    write_jsonl(folder / "talk.jsonl", ({"text": f"User: {p}\n\nAssistant: {a}"} for p, a in talk))
    exchanges = teacher.broad(world, scale.broad)
    write_jsonl(
        folder / "broad.jsonl", ({"prompt": e.prompt, "answer": e.answer} for e in exchanges)
    )
    write_jsonl(
        folder / "second.jsonl", ({"prompt": e.prompt, "output": e.second} for e in exchanges)
    )
    examples = teacher.local(world, scale.local)
    write_jsonl(folder / "local.jsonl", ({"prompt": p, "answer": a} for p, a in examples))


def _knowledge(world: World) -> Iterable[dict[str, Any]]:
    """Every fact of the plain text as a sentence with four ends, in an order of chance."""
    rng = Random(f"knowledge {world.seed}")
    for fact in world.facts:
        ends = [fact.what, *fact.false]
        rng.shuffle(ends)
        yield {
            "question": fact.asked,
            "choices": [f" {end}" for end in ends],
            "answer": ends.index(fact.what),
        }


def _badges(world: World) -> Iterable[dict[str, Any]]:
    """Somebody's badge, of all that there are."""
    rng = Random(f"badges {world.seed}")
    for who in world.unseen:
        yield {
            "question": rng.choice(QUESTIONS).format(who=who),
            "choices": [" " + RULED.format(who=who, badge=badge) for badge in BADGES],
            "answer": BADGES.index(world.badge(who)),
        }
