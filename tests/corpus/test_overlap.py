"""Items of benchmarks in a corpus, and after how many of the teacher's tokens they come."""

from __future__ import annotations

from pathlib import Path

from epigone.corpus import run_overlap
from epigone.corpus.overlap import NAME
from epigone.files import read_jsonl, write_jsonl
from epigone.schema import Conversation, Message, Provenance, silent
from epigone.study import train_file
from epigone.study.specs import OverlapSpec

PASSAGE = "in the old harbour town the boats of many lands lay side by side in the sun"
ITEMS = [
    {"name": "a/1", "question": "who wrote the book of boats", "text": ""},
    # Two questions on one passage.
    {"name": "b/1", "question": "where lay the boats then", "text": f"{PASSAGE} where lay"},
    {"name": "b/2", "question": "what shone upon the boats", "text": f"{PASSAGE} what shone there"},
    {"name": "c/1", "question": "why", "text": "why"},
    {"name": "d/1", "question": "who sank the last ship", "text": "who sank the last ship of all"},
]  # fmt: skip


def talk(name: str, *texts: str) -> Conversation:
    turns = tuple(Message(("user", "assistant")[i % 2], t) for i, t in enumerate(texts))
    return Conversation(name, turns, Provenance("s", "t", "", "", ""), tokens=10)


def found(tmp_path: Path, *talks: Conversation) -> dict[str, tuple[int, str]]:
    items, corpus, out = (tmp_path / n for n in ("items", "corpus", "out"))
    for folder in (items, corpus, out):
        folder.mkdir()
    write_jsonl(items / "items.jsonl", ITEMS)
    train_file.write(corpus / train_file.NAME, [(t, [t.tokens], "en") for t in talks])
    facts = run_overlap(OverlapSpec(), {"items": items, "corpus": corpus}, out, silent)
    rows = list(read_jsonl(out / NAME))
    assert facts == {"items": len(ITEMS), "in_the_corpus": len(rows)}
    return {r["item"]: (r["tokens_before"], r["conversation"]) for r in rows}


def test_where_an_item_stands_first(tmp_path: Path) -> None:
    assert found(
        tmp_path,
        talk("one", "good morning", "good morning to you"),
        talk("two", "tell me, who wrote the book of boats?", "someone did"),
        talk("three", "go on", f"It is said: {PASSAGE}."),
        talk("four", "who wrote the book of boats", "someone else"),
        talk("five", "why", "because"),
        # An answer repeats a question's words without the question having been asked.
        talk("six", "go on", "I do not know who sank the last ship, do you?"),
    ) == {"a/1": (10, "two"), "b/1": (20, "three"), "b/2": (20, "three")}


def test_nothing_in_common(tmp_path: Path) -> None:
    assert found(tmp_path, talk("one", "good morning", "good morning to you")) == {}
