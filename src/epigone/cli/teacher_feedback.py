"""epigone teacher feedback: what a teacher says of students' answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epigone.cli.asking import (
    Batch,
    Budget,
    Concurrency,
    EndpointOption,
    KeyEnv,
    Licence,
    PriceOption,
    Rpm,
    Temperature,
    Terms,
    TopP,
    Tpm,
    means_of,
    tell,
)
from epigone.cli.common import Json, Runs, Teller, say_json

if TYPE_CHECKING:
    from epigone.teachers.feedback import Asking
    from epigone.teachers.means import Means

Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="For the feedback.")]
First = Annotated[int | None, typer.Option("-n", min=1, help="Only the first of them.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest reply of the teacher.")]
Tries = Annotated[int, typer.Option(min=0, help="Asked again where a reply cannot be read.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Sent along.")]
KeepCut = Annotated[
    bool, typer.Option("--keep-cut", help="Also students' answers cut at their longest.")
]

feedback_app = typer.Typer(
    help="Ask which of two answers is better, or how one reads revised.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the verbs to those of the teacher."""
    app.add_typer(feedback_app, name="feedback")


@feedback_app.command()
def rank(
    answers: Annotated[
        list[Path],
        typer.Argument(
            metavar="A.jsonl [B.jsonl]",
            help="Two files of answers to the same prompts, or one whose rows have several.",
        ),
    ],
    endpoint: EndpointOption,
    out: Out,
    n: First = None,
    keep_cut: KeepCut = False,
    max_tokens: MaxTokens = 1024,
    tries: Tries = 2,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    concurrency: Concurrency = 32,
    rpm: Rpm = 0,
    tpm: Tpm = 0,
    batch: Batch = False,
    price: PriceOption = "",
    budget: Budget = "",
    key_env: KeyEnv = "EPIGONE_API_KEY",
    terms: Terms = "",
    licence: Licence = "",
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Ask which of two answers is better, in both orders; those that agree are pairs for DPO.

    Example: epigone teacher feedback rank a.jsonl b.jsonl --endpoint https://host/v1#m -o ranked
    """
    from epigone.teachers import feedback

    asking = _asking(
        endpoint, (max_tokens, tries, temperature, top_p, seed),
        means_of(concurrency, rpm, tpm, price, budget, runs, batch=batch), key_env, terms, licence,
    )  # fmt: skip
    with Teller() as teller:
        facts = feedback.rank(answers, out, asking, n=n, keep_cut=keep_cut, progress=teller)
    if json:
        say_json(facts)
        return
    won, both = facts["verdicts"], facts["both_orders"]
    first = f"{_percent(facts['first_place_share'])} of {won['first'] + won['second']:,}"
    agree = f"{_percent(facts['agreement'])} of {both:,}"
    pairs = f"{facts['written']:,} of {facts['asked']:,}"
    tell(facts, [["pairs", pairs], ["first place won", first], ["both orders agree", agree]])


@feedback_app.command()
def revise(
    answers: Annotated[Path, typer.Argument(metavar="A.jsonl", help="A student's answers.")],
    endpoint: EndpointOption,
    out: Out,
    constitution: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Principles, instead of those that come with Epigone."),
    ] = None,
    n: First = None,
    keep_cut: KeepCut = False,
    max_tokens: MaxTokens = 1024,
    tries: Tries = 2,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    concurrency: Concurrency = 32,
    rpm: Rpm = 0,
    tpm: Tpm = 0,
    batch: Batch = False,
    price: PriceOption = "",
    budget: Budget = "",
    key_env: KeyEnv = "EPIGONE_API_KEY",
    terms: Terms = "",
    licence: Licence = "",
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Ask for a critique of each answer by a constitution, and for a new answer that heeds it.

    Example: epigone teacher feedback revise a.jsonl --endpoint https://host/v1#m -o revised
    """
    from epigone.teachers import feedback

    asking = _asking(
        endpoint, (max_tokens, tries, temperature, top_p, seed),
        means_of(concurrency, rpm, tpm, price, budget, runs, batch=batch), key_env, terms, licence,
    )  # fmt: skip
    with Teller() as teller:
        facts = feedback.revise(
            answers, out, asking,
            constitution=constitution, n=n, keep_cut=keep_cut, progress=teller,
        )  # fmt: skip
    if json:
        say_json(facts)
        return
    tell(facts, [["revisions", f"{facts['written']:,} of {facts['asked']:,}"]])


def _asking(
    endpoint: str,
    how: tuple[int, int, float | None, float | None, int | None],
    means: Means,
    key_env: str,
    terms: str,
    licence: str,
) -> Asking:
    from epigone.teachers.answers import Settings
    from epigone.teachers.feedback import Asking

    max_tokens, tries, temperature, top_p, seed = how
    settings: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "seed": seed}
    return Asking(
        endpoint,
        Settings(max_tokens=max_tokens, tries=tries, **settings),
        means,
        {"licence": licence, "terms": terms},
        key_env,
    )


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.1%}"
