"""A rating database is filled from files of samples, and what is in it then is told."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epigone.cli.common import say_json
from epigone.errors import UserError

if TYPE_CHECKING:
    from epigone.raters.comparisons import Output
    from epigone.raters.store import Store
    from epigone.study.rating import Raters


def read(word: str) -> dict[str, Output]:
    """The samples of FILE or NAME=FILE; a file that is there may have = in its name."""
    from epigone.raters.comparisons import read_outputs

    label, equals, file = word.partition("=")
    if not equals or Path(word).is_file():
        label, file = "", word
    return read_outputs(Path(file), label)


def filled(
    db: str,
    name: str,
    teacher: dict[str, Output],
    models: list[dict[str, Output]],
    asked: Raters,
    *,
    checks: Path | None,
    check_every: int,
    lease: float,
    drop_leaks: bool,
    json: bool,
    alone: bool = False,
) -> Store:
    """The database with what is asked for in it; told as JSON where nothing `alone` follows it."""
    from epigone.raters import plans
    from epigone.raters.comparisons import compare, differing, read_checks
    from epigone.raters.leaks import leaks, without
    from epigone.raters.store import Store

    out = sys.stderr if json else sys.stdout
    every = compare(teacher, models, pairs=asked.pairs, n=asked.n, seed=asked.seed,
                    tell=lambda line: print(_short(line, 200), file=out))  # fmt: skip
    found = leaks(every)
    kept = without(every, found) if drop_leaks else every
    if not kept:
        raise UserError("every item has an output that names a model")
    if found:
        gone = len({pair.item for pair in every}) - len({pair.item for pair in kept})
        _tell_leaks(found, gone if drop_leaks else None, out)
    made, same = differing(kept)
    if not made:
        raise UserError("all outputs are equal: there is nothing to compare")
    for names, n in same.items():
        print(f"{_short(names, 200)}: {n} comparisons left out, whose texts are equal: "
              "ties without asking", file=out)  # fmt: skip
    if asked.n is not None and (items := len({pair.item for pair in made})) < asked.n:
        print(f"{asked.n} items were asked for, {items} can be compared", file=out)
    store = Store(db)
    done = plans.prepare(
        store, name, [*made, *read_checks(checks)], now=time.time(), seed=asked.seed,
        per_item=asked.per_item, per_rater=asked.per_rater, check_every=check_every,
        lease=60 * lease,
    )  # fmt: skip
    if json and alone:
        say_json({"db": store.shown, "comparisons": done.comparisons, "per_item": asked.per_item,
                  "new": done.new, "taken_out": done.retired, "leaks": len(found),
                  "items": len({pair.item for pair in made}), "equal": same.total()})  # fmt: skip
    else:
        more = f", {done.retired} taken out" if done.retired else ""
        print(f"{done.comparisons} comparisons, {asked.per_item} raters each, in {store.shown} "
              f"({done.new} new{more})", file=out)  # fmt: skip
    return store


def _tell_leaks(found: Sequence[Any], dropped: int | None, out: Any) -> None:
    itself = sum(leak.itself for leak in found)
    print(f"{len(found)} outputs may give their model away, {itself} of them by a name as their "
          "own:", file=out)  # fmt: skip
    for leak in sorted(found, key=lambda leak: not leak.itself)[:8]:
        kind = "speaks as" if leak.itself else "mentions"
        whose = _short(leak.model) or "an earlier answer"
        print(f"  item {_short(leak.item)}, {whose}: {kind} {_short(leak.says)!r}", file=out)
    print("kept; --drop-leaks leaves them out" if dropped is None
          else f"{dropped} items left out, for all models", file=out)  # fmt: skip


def _short(text: str, most: int = 60) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:most])
