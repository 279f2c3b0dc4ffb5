"""Many raters at once, while their server is killed: is every vote kept, once, and how fast?

    python bench/raters.py [--db URL]… [--raters 300] [--votes 20] [--kills 2] [--think 10]

Without a database, a new file of SQLite; PostgreSQL by its URL, an empty database. Afterwards each
database is compared with what raters were told: a vote that was acknowledged and is not there, or
is another one, is lost; a vote that was sent again after a kill and was written again is there
twice. Times are from the first try of a request to its answer, waiting for the server included.
Exit 1 if a vote is lost or there twice, or an item has more than its number.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
from sqlalchemy import text

from epigone.raters import people, plans
from epigone.raters.admin import link
from epigone.raters.comparisons import Output, compare
from epigone.raters.secret import ADMIN_ENV, SECRET_ENV
from epigone.raters.serving import bind
from epigone.raters.store import Store
from epigone.schema import Message

SECRET = "only for this measurement, on 127.0.0.1"
PER_ITEM = 3


def prepare(store: Store, comparisons: int, votes: int) -> None:
    def outputs(model: str) -> dict[str, Output]:
        words = f"{model} answers at some length. " * 20
        return {
            f"i{n}": Output(f"i{n}", model, (Message("user", f"Question {n}?"),), words)
            for n in range(comparisons)
        }

    pairs = compare(outputs("teacher"), [outputs("student")])
    plans.prepare(store, "load", pairs, now=time.time(), per_item=PER_ITEM, per_rater=votes,
                  check_every=0)  # fmt: skip


def serve(db: str, port: int) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-m", "epigone", "rate", "serve", db, "--port", str(port)],
        stdout=subprocess.PIPE, text=True,
        env={**os.environ, SECRET_ENV: SECRET, ADMIN_ENV: SECRET},
    )  # fmt: skip
    assert started.stdout is not None
    while "serving until" not in (line := started.stdout.readline()):
        if not line:
            raise SystemExit("the server ended")
    return started


class Tally:
    def __init__(self) -> None:
        self.said: dict[str, int] = {}
        self.seconds: list[float] = []
        self.again = 0


async def ask(client: httpx.AsyncClient, method: str, path: str, tally: Tally, **kw: object) -> str:
    """One request, again until it is answered; the page that it leads to."""
    began = time.monotonic()
    while True:
        try:
            response = await client.request(method, path, **kw)  # type: ignore[arg-type]
        except httpx.TransportError:
            tally.again += 1
            await asyncio.sleep(0.2)
            continue
        if response.status_code in (429, 503):
            tally.again += 1
            await asyncio.sleep(0.5)
            continue
        response.raise_for_status()
        tally.seconds.append(time.monotonic() - began)
        return response.text


async def rate(url: str, way: str, tally: Tally, think: float, seed: int) -> None:
    rng = random.Random(seed)
    await asyncio.sleep(rng.uniform(0, 2 * think))
    # Each from an address of its own, as the proxy before the server would tell.
    told = {"X-Forwarded-For": f"10.0.{seed >> 8}.{seed & 255}"}
    async with httpx.AsyncClient(
        base_url=url, headers=told, follow_redirects=True, timeout=60, trust_env=False
    ) as client:
        page = await ask(client, "GET", way, tally)
        while "<h1>Thank you!" not in page:
            form = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
            if "task" not in form:
                page = await ask(client, "POST", "/begin", tally, data=form)
                continue
            await asyncio.sleep(rng.uniform(0, 2 * think))
            chosen = rng.choice((-2, -1, 0, 1, 2))
            page = await ask(client, "POST", "/vote", tally, data={**form, "preference": chosen})
            tally.said[form["task"]] = chosen


async def raters(
    url: str, ways: list[str], asked: argparse.Namespace, db: str, server: subprocess.Popen[str]
) -> tuple[Tally, subprocess.Popen[str]]:
    tally = Tally()
    work = asyncio.gather(*(rate(url, way, tally, asked.think, n) for n, way in enumerate(ways)))
    for kill in range(1, asked.kills + 1):
        while len(tally.said) < kill * asked.votes * len(ways) // (asked.kills + 1):
            await asyncio.sleep(0.05)
        server.send_signal(signal.SIGKILL)
        server.wait()
        server = await asyncio.to_thread(serve, db, int(url.rpartition(":")[2]))
    await work
    return tally, server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", action="append")
    parser.add_argument("--raters", type=int, default=300)
    parser.add_argument("--votes", type=int, default=20)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--think", type=float, default=10.0, help="seconds a vote, on average")
    asked = parser.parse_args()
    columns = ("database", "raters", "think s", "kills", "votes", "lost", "twice", "above k",
               "sent again", "wall s", "votes/s", "median s", "p95 s", "p99 s")  # fmt: skip
    print("|".join(("", *columns, "")), "|".join(("", *["---"] * len(columns), "")), sep="\n")
    sound = True
    with tempfile.TemporaryDirectory() as folder:
        for db in asked.db or [str(Path(folder) / "ratings.db")]:
            sound &= measure(db, asked)
    raise SystemExit(0 if sound else 1)


def measure(db: str, asked: argparse.Namespace) -> bool:
    store = Store(db)
    prepare(store, asked.raters * asked.votes // PER_ITEM + 100, asked.votes)
    secrets = people.invite(store, ["load"] * asked.raters, time.time(), who="bench")
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = serve(db, port)
    began = time.monotonic()
    ways = [link("", SECRET, secret) for secret in secrets]
    try:
        tally, server = asyncio.run(raters(url, ways, asked, db, server))
    finally:
        server.kill()
        server.wait()
    sound = report(store, tally, time.monotonic() - began, asked)
    store.close()
    return sound


def report(store: Store, tally: Tally, wall: float, asked: argparse.Namespace) -> bool:
    columns = 'public, rater_id, comparison_id, preference, "left"'
    query = text(f"SELECT {columns} FROM task WHERE state = 'done'")
    rows = store.read(lambda session: session.execute(query).all())
    kept = {r[0]: r[3] if r[4] == "a" else -r[3] for r in rows}
    lost = sum(kept.get(task) != said for task, said in tally.said.items())
    # Nobody here changes a vote: a second row of a task is a vote that was written again.
    written = store.read(lambda session: session.execute(text("SELECT task_id FROM vote")).all())
    twice = sum(n > 1 for n in Counter(r[0] for r in written).values())
    above = sum(n > PER_ITEM for n in Counter(r[2] for r in rows).values())
    cuts = statistics.quantiles(tally.seconds, n=100)
    cells = (
        store.url.get_backend_name(), asked.raters, asked.think, asked.kills, f"{len(kept):,}",
        lost, twice, above, f"{tally.again:,}", f"{wall:.0f}", f"{len(kept) / wall:.0f}",
        f"{cuts[49]:.3f}", f"{cuts[94]:.3f}", f"{cuts[98]:.3f}",
    )  # fmt: skip
    print("|".join(("", *map(str, cells), "")), flush=True)
    return not (lost or twice or above)


if __name__ == "__main__":
    main()
