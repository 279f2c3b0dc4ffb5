"""Raters who all come at once, on SQLite and on PostgreSQL, with the server killed in between.

    python bench/raters.py --raters 300 --items 20 --postgres postgresql://user:password@host/empty

Each rater comes in by the public link, is trained, and rates until nothing is left, by the JSON
interface and without a pause: harder than people. After a third and after two thirds of all votes
the server is killed with -9 and started anew. Then the database is compared with what raters were
told: no vote that was acknowledged is lost or other, none counts twice, no item has more than k.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from epigone.raters.store import Store
from sqlalchemy import text

PER_ITEM = 3
KILLS = (1 / 3, 2 / 3)


@dataclass
class Load:
    """What all raters saw together."""

    url: str
    goal: int
    acknowledged: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    again: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--raters", type=int, default=300)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--postgres", help="an empty database")
    parser.add_argument("--only", choices=["postgres"])
    told = parser.parse_args()
    print("| database | raters | votes | seconds | votes a second | p50 ms | p95 ms | p99 ms | "
          "killed | asked again | lost | twice | above k |")  # fmt: skip
    print("|" + " --- |" * 13)
    with tempfile.TemporaryDirectory(prefix="epigone-raters-") as place:
        folder = Path(place)
        if told.only != "postgres":
            measure("SQLite", str(folder / "ratings.db"), folder / "lite", told)
        if told.postgres:
            measure("PostgreSQL", told.postgres, folder / "post", told)


def measure(name: str, url: str, folder: Path, told: argparse.Namespace) -> None:
    """One database under the whole load, as a row of the table."""
    folder.mkdir()
    environment = os.environ | {"EPIGONE_RATERS_SECRET": "s" * 40, "EPIGONE_RATERS_ADMIN": "a" * 40}
    make(url, folder, told, environment)
    port = free_port()
    load = Load(f"http://127.0.0.1:{port}", told.raters * told.items)
    started = time.monotonic()
    killed = asyncio.run(work(load, told, [*serve_command(url, port)], environment))
    seconds = time.monotonic() - started
    lost, twice, above, votes = compare(url, load)
    took = sorted(1000 * second for second in load.seconds["vote"])
    p50, p95, p99 = (took[min(len(took) - 1, int(len(took) * q))] for q in (0.5, 0.95, 0.99))
    cells = [
        name, told.raters, f"{votes:,}", f"{seconds:.0f}", f"{votes / seconds:.0f}", f"{p50:.0f}",
        f"{p95:.0f}", f"{p99:.0f}", killed, f"{sum(load.again.values()):,}", lost, twice, above,
    ]  # fmt: skip
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def make(url: str, folder: Path, told: argparse.Namespace, environment: dict[str, str]) -> None:
    """A database with as many comparisons as the raters will rate, and a few more."""
    items = -(-told.raters * told.items // PER_ITEM) + told.items
    for model in ("teacher", "student"):
        rows = (
            {"item": f"i{n}", "prompt": [{"role": "user", "content": f"What is {n}?"}],
             "output": f"The {model} says {n}. " + "It is a number. " * 20}
            for n in range(items)
        )  # fmt: skip
        lines = (json.dumps(row) for row in rows)
        (folder / f"{model}.jsonl").write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, "-m", "epigone", "rate", "tasks", str(folder / "teacher.jsonl"),
         str(folder / "student.jsonl"), "--db", url, "--per-item", str(PER_ITEM),
         "--per-rater", str(told.items)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)


def serve_command(url: str, port: int) -> Iterator[str]:
    """The server, as an administrator starts it."""
    yield from (sys.executable, "-m", "epigone", "rate", "serve", url, "--public")
    yield from ("--port", str(port))


async def work(
    load: Load, told: argparse.Namespace, command: list[str], environment: dict[str, str]
) -> int:
    """All raters to their ends; how often the server was killed."""
    with server(command, environment) as running:
        await ready(load.url)
        raters = [asyncio.create_task(rate(load, number)) for number in range(told.raters)]
        killed = 0
        for share in KILLS:
            while len(load.acknowledged) < share * load.goal and not all(r.done() for r in raters):
                await asyncio.sleep(0.05)
            os.kill(running[-1].pid, signal.SIGKILL)
            running[-1].wait()
            running.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
            killed += 1
        await asyncio.gather(*raters)
    return killed


@contextmanager
def server(
    command: list[str], environment: dict[str, str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)]
    try:
        yield running
    finally:
        running[-1].terminate()
        running[-1].wait(timeout=30)


async def ready(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(600):
            try:
                if (await client.get(url + "/healthz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    sys.exit("the server does not answer")


async def rate(load: Load, number: int) -> None:
    """One rater, with an address of the rater's own as a proxy would tell it."""
    rng = random.Random(number)
    headers = {"X-Forwarded-For": f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}"}
    async with httpx.AsyncClient(
        base_url=load.url, headers=headers, timeout=60, trust_env=False
    ) as client:
        await send(load, client, "GET", "/in/public")
        page = await send(load, client, "GET", "/welcome")
        csrf = page.text.partition('name="csrf" value="')[2].partition('"')[0]
        await send(load, client, "POST", "/begin", data={"csrf": csrf})
        token = (await send(load, client, "GET", "/api/session")).json()["csrf"]
        client.headers["X-CSRF-Token"] = token
        while True:
            told = (await send(load, client, "POST", "/api/next")).json()
            task = told["task"]
            if task is None:
                return
            vote = {"task": task["id"], "preference": rng.choice((-2, -1, 0, 1, 2))}
            answer = await send(load, client, "POST", "/api/vote", json=vote)
            if answer.status_code == 200 and not task["training"]:
                load.acknowledged[task["id"]] = vote["preference"]


async def send(
    load: Load, client: httpx.AsyncClient, method: str, path: str, **body: object
) -> httpx.Response:
    """An answer, asked for again while the server is away or asks to wait."""
    kind = path.rpartition("/")[2]
    while True:
        started = time.monotonic()
        try:
            answer = await client.request(method, path, **body)
        except httpx.TransportError:
            load.again["away"] += 1
            await asyncio.sleep(0.2)
            continue
        if answer.status_code in (429, 503):
            load.again[str(answer.status_code)] += 1
            await asyncio.sleep(1)
            continue
        load.seconds.setdefault(kind, []).append(time.monotonic() - started)
        if answer.status_code >= 400 and answer.status_code != 409:
            sys.exit(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer


def compare(url: str, load: Load) -> tuple[int, int, int, int]:
    """Votes lost or other than acknowledged, counted twice, above k; and how many there are."""
    store = Store(url, create=False)
    rows = store.read(lambda session: session.execute(text(
        "SELECT task.public, task.rater_id, task.comparison_id, task.preference, task.left, "
        "comparison.purpose FROM task JOIN comparison ON comparison.id = task.comparison_id "
        "WHERE task.state = 'done'"
    )).all())  # fmt: skip
    store.close()
    kept = {r[0]: r[3] if r[4] == "a" else -r[3] for r in rows}
    lost = sum(kept.get(task) != given for task, given in load.acknowledged.items())
    pairs = Counter((r[1], r[2]) for r in rows)
    items = Counter(r[2] for r in rows if r[5] == "item")
    return (
        lost, sum(n > 1 for n in pairs.values()), sum(n > PER_ITEM for n in items.values()),
        sum(r[5] != "training" for r in rows),
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
