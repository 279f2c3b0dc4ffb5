from __future__ import annotations

import gzip
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epigone import clusters
from epigone.corpus import blocks, build, components, duplicates, on_ray, selection
from epigone.corpus.contamination import Item
from epigone.corpus.engine import STEPS
from epigone.corpus.selection import Entry
from epigone.errors import CorpusError, MissingExtra, UserError
from epigone.files import read_json
from epigone.schema import Message, silent
from epigone.study.specs import CorpusSpec, DataSpec

Make = Callable[..., CorpusSpec]
SECRET = "what does the old book of winds say of the storms that come in the late autumn"
SENTENCES = (
    "the weather in the mountains will be sunny and warm with some wind from the west",
    "a cold sea is far from the old town and nobody there has ever seen a ship in winter",
    "please write a letter to my neighbour about the garden and about the noise of his dog",
    "how do people build a bridge over a river that is deep and wide and fast in spring",
)
FOREIGN = (
    "Wie wird das Wetter morgen in den Bergen und unten am Fluss?",
    "Quel temps fera-t-il demain dans les montagnes et au bord de la mer?",
    "\u4eca\u5929\u7684\u5929\u6c14\u600e\u4e48\u6837\uff0c\u660e\u5929\u4f1a\u4e0b\u96e8\u5417",
)


def talk(*texts: str, **more: Any) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[i % 2], "value": t} for i, t in enumerate(texts)]
    return {**more, "conversations": turns}


def trap(rng: random.Random, n: int) -> list[Any]:
    """Rows with copies of many kinds, other languages, and dirt."""

    def said() -> str:
        words = rng.choice(SENTENCES).split()
        for _ in range(6):
            words[rng.randrange(len(words))] = rng.choice(rng.choice(SENTENCES).split())
        return " ".join(words)

    rows: list[Any] = []
    for i in range(n):
        turns = [said() for _ in range(2 * rng.randint(1, 4))]
        rows.append(talk(*turns, id=f"r{i}"))
        match i % 6:
            case 0:
                rows.append(talk(*turns, id=f"again{i}"))
            case 1:
                rows.append(talk("hello there my friend", "hi", *turns[:6], id=f"fork{i}"))
            case 2:
                long = f"{turns[0]} {said()} {said()} {said()}"
                rows += [talk(long, said()), talk(f"{long} please", said())]
            case 3:
                rows.append(talk(turns[0].upper() + " ?", said(), said(), said()))
            case 4:
                rows.append(talk(rng.choice(FOREIGN), rng.choice(FOREIGN), id=f"foreign{i}"))
    rows += [
        talk("is this the right key?", "yes, sk-abcdefghijklmnopqrstuv42 is the right key"),
        talk("so it is said2 / 2", "Too many requests in 1 hour. Try again later."),
        talk(f"{SECRET} tell me now", "much about the west, and more than that of the south"),
        talk("with a \x00 in it", "yes"),
        {"conversations": [{"from": "gpt", "value": "so it goes"}]},
        {"nothing": 1},
        3,
    ]
    rng.shuffle(rows)
    return rows


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    before = signal.getsignal(signal.SIGTERM)
    # Another processor is another worker, which takes seconds to begin.
    with mock.patch.object(clusters, "cores", return_value=1), clusters.start() as ray:
        assert signal.getsignal(signal.SIGTERM) == before
        yield ray


def sources(folder: Path) -> list[Path]:
    """A folder of several files with copies across them, a packed one, and one that is cut off."""
    rng = random.Random(5)
    data = folder / "data"
    data.mkdir(parents=True)
    rows = trap(rng, 40)
    (data / "a.json").write_text(json.dumps(rows))
    # The same dialogues again in another file, and others between them.
    more = [*rng.sample(rows, 20), *trap(rng, 20)]
    (data / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    (data / "c.jsonl").write_text('{"nothing": "of a known format"}\n')
    (data / "notes.txt").write_text("no data")
    with gzip.open(folder / "packed.json.gz", "wt") as file:
        file.write(json.dumps([*rng.sample(rows, 9), *trap(rng, 6)])[:-700])
    return [data, folder / "packed.json.gz"]


@pytest.mark.slow
def test_the_bytes_are_those_of_the_local_way_though_a_worker_is_killed(
    cluster: Any, tmp_path: Path, tokenizer: Path, spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "_ITEMS", 30)
    monkeypatch.setattr(on_ray, "_KEYS", 500)
    monkeypatch.setattr(on_ray, "_TOGETHER", 40)
    files = sources(tmp_path)
    given = (
        DataSpec(ref="one", fingerprint="0"),
        DataSpec(ref="two", fingerprint="1", terms="openai", cap=2),
    )
    asked = spec(sources=given, held_out=9, max_tokens=60, seed=3)
    items = [Item("facts/7", SECRET)]
    build(files, asked, tokenizer, tmp_path / "local", items=items)
    killed: list[int] = []

    def progress(done: float, total: float, note: str = "") -> None:
        if not killed and note.startswith("reading"):
            children = {p.name(): p for p in psutil.Process().children(recursive=True)}
            # One that cleans, else one that just has.
            names = ("ray::MapBatches(_clean)", "ray::IDLE")
            worker = next(children[name] for name in names if name in children)
            killed.append(worker.pid)
            worker.kill()

    with clusters.asking("ray"):
        build(files, asked, tokenizer, tmp_path / "ray", progress, items)
    assert killed
    names = sorted(p.name for p in (tmp_path / "local").iterdir())
    assert sorted(p.name for p in (tmp_path / "ray").iterdir()) == names
    for name in names:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    audit = read_json(tmp_path / "ray" / "audit.json")
    # The traps were there, and were met.
    for rule in ("language", "contaminated", "forks", "same_query", "near_query", "over_cap"):
        assert audit["rules"][rule]["conversations_dropped"], rule
    assert audit["rules"]["secrets"]["conversations_changed"]
    assert [s["file"] for s in audit["skipped"]] == ["notes.txt", "c.jsonl"]
    assert [s["lost_stretches"] for s in audit["sources"]] == [0, 0, 1]
    assert all(s["invalid"] for s in audit["sources"])


def test_a_users_mistake_is_the_same_line_as_locally(
    cluster: Any, tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    file = tmp_path / "no.json"
    file.write_text('{"nothing": 1}')
    lines = set()
    for on in clusters.PLACES:
        with clusters.asking(on), pytest.raises(CorpusError) as caught:
            build([file], spec(), tokenizer, tmp_path / on)
        lines.add(str(caught.value))
        assert not any((tmp_path / on).iterdir())
    assert len(lines) == 1 and "no known format" in lines.pop()


def test_nobody_else_can_reach_the_cluster(cluster: Any) -> None:
    assert [node["NodeManagerAddress"] for node in cluster.nodes()] == ["127.0.0.1"]
    heard = {
        c.laddr.ip.removeprefix("::ffff:")
        for p in psutil.Process().children(recursive=True)
        for c in p.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN
    }
    assert heard == {"127.0.0.1"}
    assert "RAY_USAGE_STATS_ENABLED" in os.environ


def test_what_cannot_be_asked_for_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="did you mean 'ray'"), clusters.asking("rya"):
        pass
    with pytest.raises(UserError, match="with --on ray only"), clusters.asking("", "auto"):
        pass
    with pytest.raises(UserError, match=r"no Ray cluster answers: 127\.0\.0\.1:1 "):
        clusters._begin(None, "127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"epigone\[ray\]"), clusters.asking("ray"):
        pass
    assert clusters.asked() is None
    with pytest.raises(MissingExtra, match=r"epigone\[ray\]"), clusters.start():
        pass


def entries_of(dialogues: list[tuple[bool, list[str]]]) -> tuple[list[Entry], dict[int, str]]:
    entries, openings = [], {}
    for i, (part, texts) in enumerate(dialogues):
        turns = [Message(("user", "assistant")[k % 2], t) for k, t in enumerate(texts)]
        openings[7 * i] = texts[0]
        entries.append(
            selection.entry(
                f"{i}", turns, part=part, source=0, place=7 * i,
                bands=duplicates.bands([texts[0]])[0],
            )
        )  # fmt: skip
    return entries, openings


def apart(
    rule: str, entries: list[Entry], openings: dict[int, str], most: int
) -> duplicates.Sorted:
    """What `OnRay` does, in one process."""
    own = [components.keys(rule, entry) for entry in entries]
    key = np.concatenate([np.empty(0, np.uint64), *own])
    place = np.repeat(np.array([e.place for e in entries], np.int64), [len(k) for k in own])
    found = components.pairs(key, place)
    if not len(found.places):
        return components.resolved(entries, [], rule == "forks")
    nodes, labels = components.components(found)
    group = components.groups(labels, most)
    copies = []
    by_place = {entry.place: entry for entry in entries}
    for number in set(group.tolist()):
        members = [by_place[p] for p in nodes[group == number].tolist()]
        done = STEPS[rule](members, lambda entry: openings[entry.place])
        copies += [(a.place, b.place) for a, b in done.copies]
    slim = [blocks.slim(entry) for entry in entries]
    return components.resolved(slim, copies, rule == "forks")


def told(found: duplicates.Sorted) -> tuple[list[int], list[tuple[int, int]]]:
    return [e.place for e in found.kept], [(a.place, b.place) for a, b in found.copies]


WORDS = st.lists(st.sampled_from(["wind", "sea", "old"]), min_size=4, max_size=9).map(" ".join)
TALKS = st.lists(
    st.tuples(st.booleans(), st.lists(WORDS | st.sampled_from("abc"), min_size=2, max_size=6)),
    max_size=12,
)


@given(TALKS, st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_resolved_apart_is_resolved_at_once(
    dialogues: list[tuple[bool, list[str]]], most: int
) -> None:
    entries, openings = entries_of(dialogues)
    for rule in ("forks", "near_query"):
        at_once = STEPS[rule](entries, lambda entry: openings[entry.place])
        assert told(apart(rule, entries, openings, most)) == told(at_once)


@given(TALKS)
@settings(deadline=None, max_examples=30)
def test_forks_apart_are_those_of_brute_force(dialogues: list[tuple[bool, list[str]]]) -> None:
    entries, openings = entries_of(dialogues)
    kept: list[Entry] = []
    copies: dict[int, int] = {}
    for entry in sorted(entries, key=lambda e: (-len(e.exchanges), e.rank)):
        own = dict(zip(entry.exchanges, entry.sizes, strict=True))
        shares = [sum(s for x, s in own.items() if x in other.exchanges) for other in kept]
        if shares and max(shares) > 0 and max(shares) >= duplicates.FORKED * sum(own.values()):
            copies[entry.place] = kept[shares.index(max(shares))].place
        else:
            kept.append(entry)
    found = told(apart("forks", entries, openings, 1))
    assert found == ([e.place for e in kept], list(copies.items()))


def test_a_block_that_is_done_again_is_the_same(
    tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    from epigone.corpus.audit import Audit
    from epigone.corpus.clean import Work
    from epigone.corpus.reading import Reading

    data, _ = sources(tmp_path)
    asked = spec(sources=(DataSpec(ref="one", fingerprint="0"),))
    parts = tuple(Reading([data], asked, Audit(), silent, 1.0).parts)
    seen = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        job = blocks.Job("1", asked, parts, tokenizer, (), tmp_path / name, 25)
        work = Work(asked, tokenizer, ())
        chunks = [chunk for chunk in blocks.chunks(0, job) if isinstance(chunk, blocks.Chunk)]
        assert len(chunks) > 2
        for chunk in chunks:
            blocks.block(chunk, job, work)
        seen.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert seen[0] == seen[1]
