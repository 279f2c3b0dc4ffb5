"""Building a corpus, against FastChat's cleaner; near duplicates, against datasketch.

    pip install --no-deps fschat==0.2.36 datasketch==2.0.0      # and tqdm, bs4, markdownify
    python bench/corpus.py --runs 5

Both cleaners get the same repaired file (FastChat's needs JSON that is whole, and an id on every
row) and all cores. Epigone does more: it reads the broken file as well, tells languages, compares
queries, counts tokens and writes an account; FastChat's language step needs packages that have to
be compiled and is left out, in its favour. The dirt is planted in rows of our own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from epigone.corpus import duplicates, selection
from epigone.corpus.readers import File
from epigone.corpus.rows import Row
from epigone.corpus.values import Lost, Values
from epigone.models.references import locate
from epigone.schema import Message
from epigone.study import train_file

EPIGONE = """
import sys
from epigone import api
api.build_corpus([sys.argv[1]], sys.argv[2], held_out=0, teacher="chatgpt", decontaminate=())
"""
FASTCHAT = """
import contextlib, io, json, sys
from fastchat.data.clean_sharegpt import clean_html_all
rows = json.load(open(sys.argv[1]))
with contextlib.redirect_stdout(io.StringIO()):
    rows = clean_html_all(rows, None, None)
json.dump(rows, open(sys.argv[2], "w"), indent=2, ensure_ascii=False)
"""


def repaired(path: Path, out: Path) -> int:
    """The whole rows of a file as one JSON array; their number is returned."""
    rows: list[Any] = []
    with Values(path, lambda value: True) as values:
        for item in values:
            if not isinstance(item, Lost):
                rows.append(item.value)
    out.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return len(rows)


def timed(code: str, *arguments: Path) -> tuple[float, float]:
    """Seconds, and the largest memory of all its processes together in bytes."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.DEVNULL
    )
    most = 0.0
    while process.poll() is None:
        most = max(most, memory(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"failed with {process.returncode}")
    return time.perf_counter() - begun, most


def memory(pid: int) -> float:
    """Proportional set size of a process and its descendants."""
    total = 0.0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += 1024 * float(line.split()[1])
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += memory(int(child))
    except OSError:
        pass
    return total


def cleaning(file: Path, runs: int, folder: Path) -> None:
    whole = folder / "whole.json"
    count = repaired(file, whole)
    print(f"\ncleaning: {count:,} conversations, {whole.stat().st_size / 1e6:.0f} MB")
    found: dict[str, list[tuple[float, float]]] = {"epigone": [], "fastchat": []}
    for run in range(runs):
        found["epigone"].append(timed(EPIGONE, whole, folder / f"out{run}"))
        found["fastchat"].append(timed(FASTCHAT, whole, folder / "fastchat.json"))
    kept = sum(1 for _ in train_file.read(folder / "out0" / train_file.NAME))
    theirs = len(json.loads((folder / "fastchat.json").read_text()))
    print(f"kept: epigone {kept:,}, fastchat {theirs:,}")
    report(found)


def report(found: dict[str, list[tuple[float, float]]]) -> None:
    print("| tool | median s | spread | median MB |")
    print("| --- | --- | --- | --- |")
    for name, rows in found.items():
        times = [t for t, _ in rows]
        megabytes = statistics.median(m for _, m in rows) / 1e6
        print(
            f"| {name} | {statistics.median(times):.1f} | {min(times):.1f}-{max(times):.1f} | "
            f"{megabytes:.0f} |"
        )
    ours, theirs = found.values()
    ratios = [b[0] / a[0] for a, b in zip(ours, theirs, strict=True)]
    sizes = [b[1] / a[1] for a, b in zip(ours, theirs, strict=True)]
    print(
        f"time ratio {statistics.median(ratios):.2f}, memory ratio {statistics.median(sizes):.2f}"
    )


TEXT = (
    "weather mountain river harvest engine letter window garden market winter bridge signal "
    "painter village kitchen morning teacher history island journey machine number question"
)
WORDS = TEXT.split()


def planted(rng: random.Random) -> tuple[list[dict[str, Any]], Callable[[Any], set[str]]]:
    """Rows with dirt of many kinds, and what finds the kinds that a cleaned row still has."""

    def sentence(n: int) -> str:
        return "Please tell me about the " + " and the ".join(rng.choices(WORDS, k=n)) + "."

    rows: list[dict[str, Any]] = []

    def add(kind: str, *turns: tuple[str, str]) -> None:
        conversations = [{"from": who, "value": text} for who, text in turns]
        rows.append({"id": f"{kind}{len(rows)}", "conversations": conversations})

    def ask(kind: str) -> tuple[str, str]:
        return "human", f"[{kind} {len(rows)}] {sentence(9)}"

    answer = ("gpt", "It is as you say, and there is more to it than can be seen at once.")
    for _ in range(200):
        add("clean", ask("clean"), answer)
        add(
            "html",
            ask("html"),
            ("gpt", '<div class="markdown prose"><p>It is <strong>so</strong></p></div>'),
        )
        add("button", ask("button"), ("gpt", "```python\nCopy code\nprint(1)\n```"))
        add("counter", (ask("counter")[0], ask("counter")[1] + "2 / 2"), answer)
        add("chars", (ask("chars")[0], ask("chars")[1]), ("gpt", "It is so.Copy24 chars / 5 words"))
        add("error", ask("error"), ("gpt", "Too many requests in 1 hour. Try again later."))
        add("empty", ask("empty"), ("gpt", "\u200b"))
        add("leading", answer, ask("leading"), answer)
        add("trailing", ask("trailing"), answer, ("human", "and then?"))
        twice = ask("twice")
        add("twice", twice, answer)
        add("twice", twice, answer)
        near = " ".join(sentence(12) for _ in range(5))
        add("near", ("human", f"[near {len(rows)}] {near}"), answer)
        add(
            "near",
            ("human", f"{near} [near {len(rows)}]"),
            ("gpt", "So it is, said in other words."),
        )
        fork = [turn for _ in range(4) for turn in (ask("fork"), answer)]
        add("fork", *fork)
        add("fork", *fork[2:])
        add(
            "german",
            (
                "human",
                f"[german {len(rows)}] Wie wird das Wetter morgen in den Bergen und am Fluss?",
            ),
            (
                "gpt",
                "Morgen wird es sonnig und warm, am Abend kommt etwas Wind aus dem Westen auf.",
            ),
        )
        add(
            "key",
            ask("key"),
            ("gpt", f"Use sk-{''.join(rng.choices('abcdefgh0123', k=40))} for it."),
        )
        add(
            "mail",
            ask("mail"),
            ("gpt", f"Write to jane{rng.randrange(999)}@weather-office.net, she knows."),
        )
    rng.shuffle(rows)

    def left(conversations: Any) -> set[str]:
        found: set[str] = set()
        texts = [turn["value"] for turn in conversations]
        roles = [turn["from"] for turn in conversations]
        whole = "\n".join(texts)
        checks = {
            "html": "<div" in whole or "<strong>" in whole,
            "button": "Copy code" in whole,
            "counter": any("2 / 2" in t for t in texts),
            "chars": "chars / " in whole,
            "error": "Too many requests" in whole,
            "empty": any(not t.strip("\u200b \n") for t in texts),
            "leading": roles[0] in ("gpt", "assistant"),
            "trailing": roles[-1] in ("human", "user"),
            "german": "Wetter" in whole,
            "key": "sk-" in whole,
            "mail": "weather-office" in whole,
        }
        found |= {kind for kind, bad in checks.items() if bad}
        return found

    return rows, left


def copies(rows: list[Any]) -> dict[str, int]:
    """How many planted copies are still there, by kind."""
    found = {"twice": 0, "near": 0, "fork": 0}
    firsts: dict[str, int] = {}
    for conversations in rows:
        first = next(t["value"] for t in conversations if t["from"] in ("human", "user"))
        kind = first.rpartition("[")[2].split()[0]
        if kind in found:
            found[kind] += 1
        firsts[first] = firsts.get(first, 0) + 1
    # Of each planted pair one stays.
    return {kind: max(0, n - 200) for kind, n in found.items()}


def dirt(folder: Path) -> None:
    rows, left = planted(random.Random(0))
    file = folder / "planted.json"
    file.write_text(json.dumps(rows, ensure_ascii=False))
    timed(EPIGONE, file, folder / "planted")
    timed(FASTCHAT, file, folder / "planted-fastchat.json")
    ours = [
        [{"from": m.role, "value": m.content} for m in conversation.messages]
        for conversation, _ in train_file.read(folder / "planted" / train_file.NAME)
    ]
    theirs = [
        row["conversations"] for row in json.loads((folder / "planted-fastchat.json").read_text())
    ]
    clean = sum("[clean" in t["value"] for c in ours for t in c)
    print(f"\nplanted dirt, 200 of each kind among {len(rows):,} rows; rows that still have it:")
    print(f"(of 200 clean rows epigone keeps {clean})")
    print("| kind | epigone | fastchat |\n| --- | --- | --- |")
    counts = []
    for kept in (ours, theirs):
        tally = dict(copies(kept))
        for conversations in kept:
            for kind in left(conversations):
                tally[kind] = tally.get(kind, 0) + 1
        counts.append(tally)
    for kind in sorted(set(counts[0]) | set(counts[1])):
        print(f"| {kind} | {counts[0].get(kind, 0)} | {counts[1].get(kind, 0)} |")
    print(f"| all | {sum(counts[0].values())} | {sum(counts[1].values())} |")


def near(file: Path, runs: int) -> None:
    from datasketch import MinHash, MinHashLSH

    queries: list[str] = []
    with File(file) as found:
        for row in found:
            if isinstance(row, Row):
                queries += [m.content for m in row.turns if m.role == "user"][:1]
    queries = sorted(set(queries))
    plain = [
        selection.entry(str(i), [Message("user", q)], part=False, source=0, place=i)
        for i, q in enumerate(queries)
    ]
    ranked = sorted(plain, key=lambda e: e.rank)

    def ours() -> set[str]:
        entries = [
            replace(entry, bands=keys)
            for start in range(0, len(plain), 1_000)
            for entry, keys in zip(
                plain[start : start + 1_000],
                duplicates.bands(queries[start : start + 1_000]),
                strict=True,
            )
        ]
        return {e.id for e, _ in duplicates.near_query(entries, lambda e: queries[e.place]).copies}

    def theirs() -> set[str]:
        index = MinHashLSH(params=(32, 4), num_perm=128)
        sets: dict[str, frozenset[str]] = {}
        copies: set[str] = set()
        for entry in ranked:
            own = duplicates.shingles(queries[entry.place])
            if not own:
                continue
            hashed = MinHash(num_perm=128)
            hashed.update_batch([s.encode() for s in sorted(own)])
            near_ones = index.query(hashed)
            if any(duplicates.jaccard(own, sets[k]) >= duplicates.SIMILAR for k in near_ones):
                copies.add(entry.id)
                continue
            index.insert(entry.id, hashed)
            sets[entry.id] = own
        return copies

    times: dict[str, list[float]] = {"epigone": [], "datasketch": []}
    results: dict[str, set[str]] = {}
    for _ in range(runs):
        for name, work in (("epigone", ours), ("datasketch", theirs)):
            begun = time.perf_counter()
            results[name] = work()
            times[name].append(time.perf_counter() - begun)
    a, b = results["epigone"], results["datasketch"]
    print(
        f"\nnear duplicates among {len(queries):,} queries: "
        f"epigone {len(a)}, datasketch {len(b)}, both {len(a & b)}"
    )
    for name, spent in times.items():
        print(f"| {name} | {statistics.median(spent):.2f} s | {min(spent):.2f}-{max(spent):.2f} |")
    ratios = [y / x for x, y in zip(times["epigone"], times["datasketch"], strict=True)]
    print(f"time ratio {statistics.median(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", default="sharegpt-v3-part")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=("cleaning", "dirt", "near"))
    options = parser.parse_args()
    file = locate(options.file)
    print(f"{len(os.sched_getaffinity(0))} cores, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as name:
        if options.only in (None, "dirt"):
            dirt(Path(name))
        if options.only in (None, "near"):
            near(file, options.runs)
        if options.only in (None, "cleaning"):
            cleaning(file, options.runs, Path(name))


if __name__ == "__main__":
    main()
