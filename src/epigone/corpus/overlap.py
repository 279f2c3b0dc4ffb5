"""Which items of benchmarks a corpus holds, and how early: what is asked must not be learnt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epigone.corpus.contamination import RUN, Index, Item, words
from epigone.corpus.stage import items_in
from epigone.files import write_jsonl
from epigone.schema import Progress
from epigone.study import train_file
from epigone.study.specs import OverlapSpec

NAME = "overlap.jsonl"


def run(
    spec: OverlapSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Find the items of `inputs["items"]` in `inputs["corpus"]`; writes overlap.jsonl.

    A row is the first place of an item: the teacher's tokens before it, and what is shared.
    """
    items = list(items_in(inputs["items"]))
    index, owners = Index(items), _owners(items)
    first: dict[str, dict[str, Any]] = {}
    tokens = 0
    rows = train_file.read(inputs["corpus"] / train_file.NAME)
    for done, (conversation, _) in enumerate(rows, 1):
        prompts = [m.content for m in conversation.messages if m.role != "assistant"]
        replies = [m.content for m in conversation.messages if m.role == "assistant"]
        found = index.runs(prompts) | {r for r in index.runs(replies) if len(r) >= RUN}
        # A question of one word, as of a task that asks none, is a prompt of many conversations.
        for passage in (r for r in found if len(r) > 1):
            for name in owners[passage]:
                row = {"item": name, "tokens_before": tokens, "conversation": conversation.id,
                       "shared": " ".join(passage)[:200]}  # fmt: skip
                first.setdefault(name, row)
        tokens += conversation.tokens
        progress(done, done, f"{len(first)} of {len(items)} items")
    write_jsonl(out / NAME, first.values())
    return {"items": len(items), "in_the_corpus": len(first)}


def _owners(items: list[Item]) -> Mapping[tuple[str, ...], list[str]]:
    """Every item that has a passage: questions on one text share most of it."""
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for item in items:
        asked = tuple(words(item.question))
        text = words(item.text or item.question)
        runs = {tuple(text[i : i + RUN]) for i in range(len(text) - RUN + 1)}
        for passage in runs | {asked}:
            found[passage].append(item.name)
    return found
