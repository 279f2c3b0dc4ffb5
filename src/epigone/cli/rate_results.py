"""epigone rate export, agreement, exclude and include: what raters said, and how far they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from epigone.cli.common import Json, number, say_json, table
from epigone.cli.rate_store import open_store
from epigone.errors import UnknownName
from epigone.schema import Interval, Rating

Database = Annotated[
    str, typer.Argument(metavar="DB", help="The rating database: a file, or postgresql://…")
]
Rater = Annotated[str, typer.Argument(help="The rater's opaque name, as in the export.")]
Why = Annotated[str, typer.Option("--why", help="The reason, which is kept and exported.")]
Who = Annotated[str, typer.Option("--who", help="Who decided, for the log.")]


def register(group: typer.Typer) -> None:
    """Add the verbs."""
    group.command("export")(export)
    group.command("agreement")(agreement)
    group.command("exclude")(exclude)
    group.command("include")(include)


def export(
    db: Database,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help=".jsonl or .csv")],
    json: Json = False,
) -> None:
    """Write every rating of a database, excluded ones too, whatever workforce it comes from.

    Example: epigone rate export runs/pocket/ratings.db -o ratings.csv
    """
    store = open_store(db)
    from epigone.raters import people
    from epigone.raters.export import write_ratings

    try:
        n = write_ratings(out, people.ratings(store))
    finally:
        store.close()
    say_json({"ratings": n, "file": str(out)}) if json else print(f"{n} ratings in {out}")


def exclude(db: Database, rater: Rater, why: Why, who: Who = "command line") -> None:
    """Let a rater's votes not count, and free their places; nothing is deleted.

    Example: epigone rate exclude ratings.db r-1f09 --why "3 of 8 known answers right"
    """
    _change(db, "exclude", rater, why, who)
    print(f"{rater} is excluded; take it back with: epigone rate include")


def include(db: Database, rater: Rater, why: Why, who: Who = "command line") -> None:
    """Let an excluded rater's votes count again.

    Example: epigone rate include ratings.db r-1f09 --why "the known answer was wrong"
    """
    _change(db, "include", rater, why, who)
    print(f"{rater} counts again")


def _change(db: str, what: str, rater: str, why: str, who: str) -> None:
    import time

    store = open_store(db)
    from epigone.raters import people

    try:
        change = people.exclude if what == "exclude" else people.include
        change(store, rater, why, time.time(), who=who)
    finally:
        store.close()


def agreement(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Ratings, .jsonl or .csv, of anyone.")
    ],
    fast: Annotated[
        float, typer.Option(min=0, help="Seconds in which nobody has read two outputs.")
    ] = 4.0,
    against: Annotated[
        str, typer.Option(help="The model that others are compared with, if not the commonest.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the intervals.")] = 0,
    json: Json = False,
) -> None:
    """Which models are preferred, how far raters agree, and how far judges agree with people.

    Reads people's and judges' ratings, mixed, in the schema of `rate export`; excluded ones do not
    count. Exclusions are proposed, not made.

    Example: epigone rate agreement people.jsonl judge.jsonl
    """
    from epigone.findings import Judged, judged
    from epigone.raters import quality
    from epigone.raters.agreement import judges
    from epigone.raters.export import read_ratings

    read = read_ratings(files)
    ratings = read.ratings
    with_whom, why = _compared_with(ratings, against)
    preferences = judged(ratings, with_whom, {}, seed=seed) if with_whom else Judged((), ())
    found = {
        "ratings": len(ratings),
        "repeated": read.repeated,
        "preferences": asdict(preferences),
        "against": with_whom,
        "against_why": why,
        "agreement": _agreements(ratings, seed),
        "judges": [asdict(j) for j in judges(ratings, seed=seed)],
        "raters": [asdict(c) for c in quality.conduct(ratings, fast)],
        "proposed": [asdict(p) for p in quality.proposed(ratings, fast)],
        "excluded": [asdict(e) for e in quality.excluded(ratings)],
    }
    say_json(found) if json else _show(found)


def _compared_with(ratings: Sequence[Rating], against: str) -> tuple[str, str]:
    """The model that others are compared with, and why it; empty where it has to be named."""
    from epigone.raters.agreement import counts

    pairs = sorted({(r.a, r.b) for r in ratings if counts(r)})
    of = Counter(m for pair in pairs for m in pair)
    if against and against not in of:
        raise UnknownName("model of these ratings", against, of)
    if against:
        return against, "--against"
    if not of:
        return "", "no rating counts as an answer"
    first = sorted(m for m in of if of[m] == max(of.values()))
    if len(pairs) == 1:
        return first[-1], "the last by name of one pair; --against names the other"
    if len(first) > 1:
        return "", (f"no preferences without --against: {', '.join(first)} were compared with "
                    "equally many others")  # fmt: skip
    return first[0], "compared with more others than all the rest"


def _agreements(ratings: Sequence[Rating], seed: int) -> list[dict[str, Any]]:
    """Of people; of each workforce, where there are several; and of judges, where there are two."""
    from epigone.raters.agreement import krippendorff

    forces = sorted({r.workforce for r in ratings})
    people = [f for f in forces if f != "judge"]
    groups: dict[str, Sequence[str]] = {"people": people} if people else {}
    if len(people) > 1:
        groups |= {force: (force,) for force in people}
    if "judge" in forces:
        groups["judges"] = ("judge",)
    return [
        {"of": name, **asdict(krippendorff([r for r in ratings if r.workforce in of], seed=seed))}
        for name, of in groups.items()
    ]


def _show(found: dict[str, Any]) -> None:
    repeated = f", {found['repeated']} more stood twice" if found["repeated"] else ""
    print(f"{found['ratings']} ratings{repeated}\n")
    if not found["ratings"]:
        return
    whom = f"against {found['against']}: " if found["against"] else ""
    print(f"{whom}{found['against_why']}\n")
    _show_preferences(found["preferences"])
    table(
        "Agreement",
        ("of", "alpha (ordinal)", "95%", "same choice", "same direction", "raters", "items",
         "comparisons", "note"),
        [
            [a["of"], number(a["alpha"]), _bounds(a["low"], a["high"]), _percent(a["pairwise"]),
             _percent(a["direction"]), str(a["n_raters"]), str(a["n_items"]), str(a["n_units"]),
             a["note"]]
            for a in found["agreement"]
        ],
    )  # fmt: skip
    print()
    if found["judges"]:
        table(
            "Judges beside people",
            ("judge", "same direction", "95%", "kappa", "95%", "a person beside the others",
             "95%", "the judge beside them", "95%", "comparisons", "without both orders"),
            [
                [j["judge"], *_interval(j["direction"]), *_interval(j["kappa"]),
                 *_interval(j["person"]), *_interval(j["in_place"]), str(j["n_units"]),
                 str(j["dropped"])]
                for j in found["judges"]
            ],
        )  # fmt: skip
        print()
    table(
        "Raters",
        ("rater", "from", "answers", "excluded", "gold", "attention", "seconds", "fast", "left",
         "one choice", "with others"),
        [
            [c["rater"], c["workforce"], str(c["n"]), str(c["excluded"]),
             f"{c['gold']}/{c['golds']}", f"{c['attention']}/{c['attentions']}",
             "-" if c["seconds"] is None else f"{c['seconds']:.0f}",
             *map(_percent, (c["fast"], c["left"], c["same"], c["agreement"]))]
            for c in found["raters"]
        ],
    )  # fmt: skip
    for name, columns in (
        ("excluded", ("rater", "reason", "n")),
        ("proposed", ("rater", "reason")),
    ):
        if found[name]:
            print()
            title = "Excluded" if name == "excluded" else "Exclusions to think about"
            head = ("excluded", *columns[1:]) if name == "excluded" else ("proposed", "reason")
            table(title, head, [[str(row[c]) for c in columns] for row in found[name]])


def _show_preferences(found: dict[str, Any]) -> None:
    if found["pairs"]:
        table(
            "Preference, a tie as half a win",
            ("by", "model", "against", "win rate", "95%", "equal or better", "95%", "items",
             "raters"),
            [
                [p["rater"], p["preference"]["model"], p["preference"]["against"],
                 *_interval(p["preference"]["win_rate"]),
                 *_interval(p["preference"]["equal_or_better"]),
                 str(p["preference"]["win_rate"]["n"]), str(p["preference"]["raters"])]
                for p in found["pairs"]
            ],
        )  # fmt: skip
        print()
    if len(found["pairs"]) > 1:
        table(
            "Strength: log-odds of winning (Bradley-Terry), 0 for the model compared with",
            ("by", "model", "strength", "95%", "comparisons"),
            [
                [rater, s["model"], *_interval(s["strength"]), str(s["strength"]["n"])]
                for rater, s in found["strengths"]
            ],
        )
        print()


def _interval(of: dict[str, Any]) -> tuple[str, str]:
    interval = Interval(**of)
    return number(interval.value), _bounds(interval.low, interval.high)


def _bounds(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "-"
    first, last = ("…" if end is None else f"{end:.3f}" for end in (low, high))
    return f"{first} to {last}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
