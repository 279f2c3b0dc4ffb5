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
    from epigone.raters.comparisons import compare, read_checks
    from epigone.raters.leaks import leaks, without
    from epigone.raters.store import Store

    made = compare(teacher, models, pairs=asked.pairs, n=asked.n, seed=asked.seed)
    found = leaks(made)
    if drop_leaks:
        made = without(made, found)
        if not made:
            raise UserError("every comparison has an output that names a model")
    out = sys.stderr if json else sys.stdout
    if found:
        _tell_leaks(found, len(made), drop_leaks, out)
    store = Store(db)
    done = plans.prepare(
        store, name, [*made, *read_checks(checks)], now=time.time(), seed=asked.seed,
        per_item=asked.per_item, per_rater=asked.per_rater, check_every=check_every,
        lease=60 * lease,
    )  # fmt: skip
    if json and alone:
        say_json({"db": store.shown, "comparisons": done.comparisons, "per_item": asked.per_item,
                  "new": done.new, "taken_out": done.retired, "leaks": len(found)})  # fmt: skip
    else:
        more = f", {done.retired} taken out" if done.retired else ""
        print(f"{done.comparisons} comparisons, {asked.per_item} raters each, in {store.shown} "
              f"({done.new} new{more})", file=out)  # fmt: skip
    return store


def _tell_leaks(found: Sequence[Any], left: int, dropped: bool, out: Any) -> None:
    itself = sum(leak.itself for leak in found)
    print(f"{len(found)} outputs name a model or its maker, {itself} of them as themselves:",
          file=out)  # fmt: skip
    for leak in sorted(found, key=lambda leak: not leak.itself)[:8]:
        kind = "speaks as" if leak.itself else "mentions"
        print(f"  item {_short(leak.item)}, {_short(leak.model)}: {kind} {_short(leak.says)!r}",
              file=out)  # fmt: skip
    end = (
        f"left out; {left} comparisons remain" if dropped else "kept; --drop-leaks leaves them out"
    )
    print(end, file=out)


def _short(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:60])
