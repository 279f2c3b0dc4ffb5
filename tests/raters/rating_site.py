"""A rating site on a free port of this machine, and comparisons to fill it with."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from epigone.raters import people, plans, serving
from epigone.raters.admin import link
from epigone.raters.app import build_app
from epigone.raters.comparisons import Output, Pair, compare, read_checks
from epigone.raters.site import Settings
from epigone.raters.store import Store
from epigone.raters.workforces import Door
from epigone.schema import Message

SECRET, ADMIN = "s" * 32, "a" * 32


def outputs(model: str, texts: Sequence[str]) -> dict[str, Output]:
    return {
        f"i{n}": Output(f"i{n}", model, (Message("user", f"Question {n}?"),), text)
        for n, text in enumerate(texts)
    }


def pairs(n: int, models: Sequence[str] = ("student",), teacher: str = "teacher") -> list[Pair]:
    made = [outputs(m, [f"{m} says {i}" for i in range(n)]) for m in (teacher, *models)]
    return compare(made[0], made[1:])


@dataclass
class Served:
    url: str
    store: Store
    settings: Settings

    def invitation(self, label: str = "") -> str:
        (secret,) = people.invite(self.store, [label], self.settings.clock(), who="test")
        return link(self.url, SECRET, secret)


def filled(folder: Path, made: Sequence[Pair], *, checks: bool = True, **plan: int) -> Store:
    store = Store(folder / "ratings.db")
    extra = read_checks() if checks else []
    plans.prepare(store, "test", [*made, *extra], now=time.time(), **plan)
    return store


@contextmanager
def serving_site(
    store: Store, doors: Sequence[Door] = (), **rates: tuple[float, float]
) -> Iterator[Served]:
    sock = serving.bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    settings = Settings(SECRET, ADMIN, url, **rates)
    app = build_app(store, settings, [*serving.doors(store, settings, public=True), *doors])
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Served(url, store, settings)
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()
