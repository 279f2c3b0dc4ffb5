"""epigone judge: what a model as judge says of answers."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from epigone import api
from epigone.cli.asking import Budget, Concurrency, KeyEnv, PriceOption, Rpm, Tpm, means_of
from epigone.cli.common import Json, Runs, Teller, number, say_json, table
from epigone.errors import UserError
from epigone.study.judge import PROTOCOLS


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("judge")(judge)


def _show_rubrics(wanted: bool) -> None:
    if wanted:
        from epigone.evaluation.judge.rubrics import shipped

        print(shipped(), end="")
        raise typer.Exit


def judge(
    teacher: Annotated[Path, typer.Argument(metavar="TEACHER.jsonl", help="Its answers.")],
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL.jsonl…", help="Models' answers to the same.")
    ],
    by: Annotated[
        str, typer.Option("--judge", metavar="endpoint:URL#MODEL", help="Who judges.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="For the verdicts.")
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option("--protocol", help=f"{', '.join(PROTOCOLS)}; may be said several times."),
    ] = None,
    name: Annotated[str, typer.Option(help="What the judge is called in tables.")] = "",
    rubric: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rubrics of your own, by protocol.")
    ] = None,
    _: Annotated[
        bool,
        typer.Option(
            "--show-rubric",
            is_eager=True,
            callback=_show_rubrics,
            help="Print the rubrics that --rubric replaces.",
        ),
    ] = False,
    references: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Right answers by item, JSONL, for correct."),
    ] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="Only the first items.")] = None,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Compare all models, not only with the teacher.")
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only tell what would be asked, and its cost.")
    ] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest verdict.")] = 512,
    tries: Annotated[
        int, typer.Option(min=1, max=10, help="Asked so often before a verdict is missing.")
    ] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the intervals' resampling.")] = 0,
    concurrency: Concurrency = 8,
    rpm: Rpm = 0,
    tpm: Tpm = 0,
    price: PriceOption = "",
    budget: Budget = "",
    key_env: KeyEnv = "EPIGONE_API_KEY",
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Ask a judge which answers are better, how good, how sure of themselves, or how right.

    Every pair is judged in both orders. What was ever answered is not asked, or paid for, again.

    Example: epigone judge teacher.jsonl student.jsonl --judge endpoint:https://host/v1#m -o judged
    """
    from epigone.evaluation.judge.stage import check_read

    means = means_of(concurrency, rpm, tpm, price, budget, runs)
    asked = api.read_judging(
        teacher, models, by,
        protocols=protocol or ["pairwise"], rubric=rubric, references_file=references, name=name,
        n=n, all_pairs=all_pairs, max_tokens=max_tokens, tries=tries, key_env=key_env,
        concurrency=concurrency,
    )  # fmt: skip
    cost = api.judge_cost(asked, means, out)
    _warn(cost, means.budget)
    if estimate:
        say_json(cost) if json else print(_cost(asked.name, cost))
        return
    if out is None:
        raise UserError("a folder for the verdicts is needed", fix="-o DIR; --estimate needs none")
    print(_cost(asked.name, cost), file=sys.stderr)
    with Teller() as teller:
        told = api.judge(asked, out, means, seed=seed, progress=teller)
    if json:
        say_json(told)
    else:
        _tell(told, out)
    check_read(told["unread"], told["judge"])


def _warn(cost: dict[str, Any], budget: Decimal | None) -> None:
    if budget is not None and cost["spent"] + cost["usd"] > budget:
        print(
            f"warning: ${cost['spent']:,.4f} is spent already, and about ${cost['usd']:,.4f} more "
            f"is over the budget of ${budget}",
            file=sys.stderr,
        )


def _cost(name: str, cost: dict[str, Any]) -> str:
    if not name:
        return "no judge is asked: references tell all"
    money = "its price is not known"
    if cost["usd"] is not None:
        money = (
            f"${cost['usd']:,.2f}, or ${cost['most_usd']:,.2f} if no reply can be read and each is "
            f"as long as it may be (price {cost['price']})"
        )
    return (
        f"{name} is asked {cost['requests']:,} times, about {cost['prompt_tokens']:,} tokens in, "
        f"{cost['tokens']:,} out: {money}"
        + (f"; {cost['answered']:,} questions are answered already" if cost["answered"] else "")
    )


def _tell(told: dict[str, Any], out: Path) -> None:
    notes: dict[str, int] = {}
    if told["pairs"]:
        _tell_pairs(told, notes)
    rows = [
        [s["model"], s["metric"], _interval(s, notes), str(s["n"]), s["by"]] for s in told["scores"]
    ]
    rows += [
        [
            r["model"],
            f"score over {r['against']}'s",
            _interval(r, notes),
            str(r["n"]),
            told["judge"],
        ]
        for r in told["relative_scores"]
    ]
    if rows:
        table("Scores", ("model", "metric", "value", "n", "by"), rows)
    _tell_wrong(told["pairs"])
    print("".join(f"\n({mark}) {note}" for note, mark in notes.items()))
    missing = ", ".join(f"{why}: {count:,}" for why, count in told["missing"].items())
    by_reference = f"; {told['references']:,} items have references" if told["references"] else ""
    print(
        f"\n{told['questions']:,} questions, {told['tries']:,} times asked; "
        f"without a verdict: {missing or 'none'}; cost ${Decimal(told['cost']):.4f}"
        + (
            f", perhaps ${Decimal(told['may_cost_more']):.4f} more"
            if Decimal(told["may_cost_more"])
            else ""
        )
        + f"{by_reference}; every verdict is in {out}"
    )


def _tell_pairs(told: dict[str, Any], notes: dict[str, int]) -> None:
    table(
        "Preference (a tie is half a win; both orders of a prompt are one value)",
        ("rater", "model", "against", "win rate", "length-controlled", "equal or better", "n",
         "same text"),
        [
            [p["rater"], p["model"], p["against"], _interval(p["win_rate"], notes),
             _interval(p["length_controlled"], notes), _interval(p["equal_or_better"], notes),
             str(p["win_rate"]["n"]), str(p["same"])]
            for p in told["pairs"]
        ],
    )  # fmt: skip
    print()
    table(
        "The judge itself",
        ("rater", "model", "against", "orders disagree", "first place wins", "missing",
         "longer one wins", "length slope"),
        [
            [p["rater"], p["model"], p["against"], _of(p["flips"], p["both"]),
             number(p["first"]), _of(p["missing"], p["asked"]),
             f"{number(p['longer_wins'])} of {p['longer_n']}",
             _interval(p["length_slope"], notes)]
            for p in told["pairs"]
        ],
    )  # fmt: skip
    print()
    table(
        f"Strength in log-odds (Bradley-Terry), {told['teacher']} at 0",
        ("rater", "model", "strength", "comparisons"),
        [
            [s["rater"], s["model"], _interval(s["strength"], notes), str(s["strength"]["n"])]
            for s in told["strengths"]
        ],
    )
    print()


def _tell_wrong(pairs: list[dict[str, Any]]) -> None:
    for p in pairs:
        if (wrong := p["preferred_but_wrong"]) is None:
            continue
        few = ", ".join(wrong["items"][:10]) + (", …" if len(wrong["items"]) > 10 else "")
        others = (
            f" ({p['against']} is right on {len(wrong['other_right'])}, "
            f"wrong on {len(wrong['other_wrong'])})"
        )
        print(
            f"\npreferred but wrong, by {p['rater']}: {p['model']} over {p['against']} on "
            f"{_of(len(wrong['items']), wrong['share']['n'])} items"
            f"{others + ': ' + few if few else ''}"
        )


def _interval(told: dict[str, Any], notes: dict[str, int]) -> str:
    """A value with its bounds and the mark of its note, which is told below the tables."""
    note = told["note"]
    mark = f" ({notes.setdefault(note, len(notes) + 1)})" if note else ""
    if told["value"] is None:
        return f"not known{mark}"
    ends = [told["low"], told["high"]]
    if ends == [None, None]:
        return f"{number(told['value'])}{mark}"
    low, high = ("…" if end is None else f"{end:.3f}" for end in ends)
    return f"{told['value']:.3f} [{low}, {high}]{mark}"


def _of(count: int, n: int) -> str:
    return f"{count:,} of {n:,}"
