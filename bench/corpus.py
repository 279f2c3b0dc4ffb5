"""Building a corpus, against FastChat's steps; near duplicates, against datasketch.

    pip install --no-deps --target peers fschat==0.2.36 markdownify==0.11.6 beautifulsoup4 six \\
        soupsieve tqdm datasketch==2.0.0
    python bench/corpus.py peers --runs 5
    python bench/corpus.py --only ray

FastChat's steps are those of its `prepare_all`: cleaning, splitting at 2,048 tokens, filtering of
wrong formats; its language step needs packages that have to be compiled and is left out, in its
favour. It gets the rows it can read as whole JSON, a recursion limit that its HTML step does not
run into, and no files between the steps. Epigone runs once with the same steps, and once with all
it does by default: languages, near duplicates, decontamination. Both get all cores and count with
the same tokenizer. The dirt is planted in rows of our own.

`--only ray` builds the part, and the part several times over with other words in it, by this
machine's processes and with Ray Data, and compares the bytes and the memory of each process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from epigone.corpus import duplicates, selection
from epigone.corpus.readers import File
from epigone.corpus.rows import Row
from epigone.corpus.values import Lost, Values
from epigone.files import sha256_file
from epigone.models.references import locate
from epigone.schema import Message
from epigone.study import train_file

BASE = "smollm2-135m-instruct"

EPIGONE = """
import json, sys
from epigone import api
settings = json.loads(sys.argv[3])
api.build_corpus([sys.argv[1]], sys.argv[2], held_out=0, teacher="chatgpt", **settings)
"""
ALL = {"max_tokens": 2048, "decontaminate": ["facts", "choices"]}
SAME = {
    "max_tokens": 2048,
    "rules": {"language": False, "near_query": False},
}
FASTCHAT = """
import contextlib, io, json, sys, warnings
warnings.filterwarnings("ignore")
sys.setrecursionlimit(100_000)
import transformers
from fastchat.data.clean_sharegpt import clean_html_all
from fastchat.data.filter_wrong_format import should_skip
from fastchat.data.split_long_conversation import filter_invalid_roles, split_all
transformers.logging.set_verbosity_error()
rows = json.load(open(sys.argv[1]))
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    rows = clean_html_all(rows, None, None)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        sys.argv[3], model_max_length=2048, padding_side="right", use_fast=False)
    rows = filter_invalid_roles(split_all(rows, None, None, tokenizer, 2048))
rows = [row for row in rows if not should_skip(row)]
json.dump(rows, open(sys.argv[2], "w"), indent=2, ensure_ascii=False)
"""


def repaired(path: Path, out: Path) -> int:
    """The rows of a file that FastChat can read, as one JSON array; their number is returned."""
    rows: list[Any] = []
    with Values(path, lambda value: True) as values:
        for item in values:
            if isinstance(item, Lost) or not isinstance(item.value, dict):
                continue
            if "id" in item.value and isinstance(item.value.get("conversations"), list):
                rows.append(item.value)
    out.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return len(rows)


def timed(code: str, *arguments: object, path: Path | None = None) -> tuple[float, float]:
    """Seconds, and the largest memory of all its processes together in bytes."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, **({"PYTHONPATH": str(path)} if path else {})},
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


def cleaning(file: Path, runs: int, folder: Path, peers: Path) -> None:
    whole = folder / "whole.json"
    count = repaired(file, whole)
    print(f"\ncleaning: {count:,} conversations, {whole.stat().st_size / 1e6:.0f} MB")
    found: dict[str, list[tuple[float, float]]] = {"fastchat": [], "same": [], "all": []}
    for run in range(runs):
        for name, settings in (("same", SAME), ("all", ALL)):
            out = folder / f"{name}{run}"
            found[name].append(timed(EPIGONE, whole, out, json.dumps(settings)))
        theirs = folder / "fastchat.json"
        found["fastchat"].append(timed(FASTCHAT, whole, theirs, locate(BASE), path=peers))
    kept = {
        name: sum(1 for _ in train_file.read(folder / f"{name}0" / train_file.NAME))
        for name in ("same", "all")
    }
    kept["fastchat"] = len(json.loads((folder / "fastchat.json").read_text()))
    print("| steps | rows | median s | median MB | time ratio | memory ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, rows in found.items():
        pairs = list(zip(found["fastchat"], rows, strict=True))
        times = [theirs[0] / ours[0] for theirs, ours in pairs]
        memories = [theirs[1] / ours[1] for theirs, ours in pairs]
        print(
            f"| {name} | {kept[name]:,} | {statistics.median(t for t, _ in rows):.1f} | "
            f"{statistics.median(m for _, m in rows) / 1e6:.0f} | {spread(times)} | "
            f"{spread(memories)} |",
            flush=True,
        )


def spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


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


def dirt(folder: Path, peers: Path) -> None:
    rows, left = planted(random.Random(0))
    file = folder / "planted.json"
    file.write_text(json.dumps(rows, ensure_ascii=False))
    timed(EPIGONE, file, folder / "planted", "{}")
    timed(FASTCHAT, file, folder / "planted-fastchat.json", locate(BASE), path=peers)
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


def near(file: Path, runs: int, peers: Path) -> None:
    sys.path.append(str(peers))
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

    found: dict[str, list[tuple[float, float]]] = {"datasketch": [], "epigone": []}
    results: dict[str, set[str]] = {}
    for _ in range(runs):
        for name, work in (("epigone", ours), ("datasketch", theirs)):
            results[name], seconds, memory = forked(work)
            found[name].append((seconds, memory))
    a, b = results["epigone"], results["datasketch"]
    print(
        f"\nnear duplicates among {len(queries):,} queries: "
        f"epigone {len(a)}, datasketch {len(b)}, both {len(a & b)}"
    )
    print("| library | median s | median MB | time ratio | memory ratio |")
    print("| --- | --- | --- | --- | --- |")
    for name, rows in found.items():
        pairs = list(zip(found["datasketch"], rows, strict=True))
        print(
            f"| {name} | {statistics.median(t for t, _ in rows):.1f} | "
            f"{statistics.median(m for _, m in rows) / 1e6:.0f} | "
            f"{spread([x[0] / y[0] for x, y in pairs])} | "
            f"{spread([x[1] / y[1] for x, y in pairs])} |"
        )


def forked(work: Callable[[], set[str]]) -> tuple[set[str], float, float]:
    """What a function returns in a process of its own, its seconds, and the bytes that it added."""
    context = multiprocessing.get_context("fork")
    ours, other = context.Pipe(duplex=False)

    def run() -> None:
        # Resident pages, not the high-water mark, which a child inherits from its parent.
        before = resident()
        peak, done = [0.0], threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                peak[0] = max(peak[0], resident())

        watcher = threading.Thread(target=watch)
        watcher.start()
        begun = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - begun
        done.set()
        watcher.join()
        other.send((result, seconds, peak[0] - before))

    child = context.Process(target=run)
    child.start()
    answer: tuple[set[str], float, float] = ours.recv()
    child.join()
    return answer


def resident() -> float:
    return float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


ON = """
import sys
from epigone import api
api.build_corpus(
    [sys.argv[1]], sys.argv[2], teacher="chatgpt", decontaminate=["facts", "choices"],
    on=sys.argv[3])
"""
FILES = ("train.parquet", "held_out.jsonl", "audit.json", "README.md")


def repeated(file: Path, times: int, out: Path) -> None:
    """A file's rows several times as JSON lines; copies have every fifth word from elsewhere.

    One copy in twenty stays as it is, so that there are copies far from one another.
    """
    rng = random.Random(0)

    def other(text: str, own: list[str]) -> str:
        words = text.split(" ")
        for i in range(rng.randrange(5), len(words), 5):
            words[i] = rng.choice(own)
        return " ".join(words)

    with open(out, "w", encoding="utf-8") as lines:
        for time_ in range(times):
            with Values(file, lambda value: True) as values:
                for item in values:
                    if isinstance(item, Lost) or not isinstance(item.value, dict):
                        continue
                    row = item.value
                    turns = row.get("conversations") or row.get("items") or []
                    if time_ and rng.random() >= 0.05:
                        own = " ".join(turn["value"] for turn in turns).split() or [""]
                        turns = [{**turn, "value": other(turn["value"], own)} for turn in turns]
                    made = {"id": f"{row.get('id', '')}{time_ or ''}", "conversations": turns}
                    lines.write(json.dumps(made) + "\n")


def watched(*arguments: object) -> tuple[float, float, float, float]:
    """Seconds, and the largest MB of the process that asks, of any other, and of all together."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", ON, *map(str, arguments)], stdout=subprocess.DEVNULL
    )
    most = [0.0, 0.0, 0.0]
    while process.poll() is None:
        first, *others = alone(process.pid)
        now = (first, max(others, default=0.0), first + sum(others))
        most = [max(a, b) for a, b in zip(most, now, strict=True)]
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"failed with {process.returncode}")
    return time.perf_counter() - begun, *(m / 1e6 for m in most)


def alone(pid: int) -> list[float]:
    """Proportional set sizes of a process and of each of its descendants."""
    found = [0.0]
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                found[0] = 1024 * float(line.split()[1])
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += alone(int(child))
    except OSError:
        pass
    return found


def on_ray(part: Path, times: Sequence[int], folder: Path) -> None:
    print("| times | rows | on | s | asking MB | largest other MB | all MB | bytes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for n in times:
        file = folder / f"times{n}.jsonl"
        repeated(part, n, file)
        first: dict[str, str] = {}
        for on in ("local", "ray"):
            out = folder / f"{on}{n}"
            seconds, asking, largest, together = watched(file, out, on)
            found = {name: sha256_file(out / name) for name in FILES}
            first = first or found
            rows = json.loads((out / "audit.json").read_text())["sources"][0]["read"]
            print(
                f"| {n} | {rows:,} | {on} | {seconds:.0f} | {asking:.0f} | {largest:.0f} | "
                f"{together:.0f} | {'the same' if found == first else 'OTHERS'} |",
                flush=True,
            )
        print(first)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "peers", type=Path, nargs="?", help="where fschat and datasketch are installed"
    )
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--file", default="sharegpt-v3-part")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=("cleaning", "dirt", "near", "ray"))
    options = parser.parse_args()
    if options.peers is None and options.only != "ray":
        parser.error("peers are needed but for --only ray")
    file = locate(options.file)
    print(f"{len(os.sched_getaffinity(0))} cores, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as name:
        if options.only == "ray":
            on_ray(file, options.times, Path(name))
        if options.only in (None, "dirt"):
            dirt(Path(name), options.peers)
        if options.only in (None, "near"):
            near(file, options.runs, options.peers)
        if options.only in (None, "cleaning"):
            cleaning(file, options.runs, Path(name), options.peers)


if __name__ == "__main__":
    main()
