"""What the verbs of all platforms share: their options, what they spend, and their lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epigone.cli.common import say_json, table
from epigone.cli.rate_store import open_store
from epigone.errors import UserError

if TYPE_CHECKING:
    from epigone.raters.workforces.mturk_client import Cost
    from epigone.raters.workforces.platforms import Came
    from epigone.raters.workforces.prolific_client import Cost as ProlificCost

SettingsFile = Annotated[
    Path, typer.Argument(metavar="SETTINGS", help="The file that `create` wrote.")
]
Out = Annotated[Path, typer.Option("-o", "--out", help="For the door's settings; owner only.")]
Title = Annotated[str, typer.Option("--name", help="What people see in the list of studies.")]
Description = Annotated[str, typer.Option(help="What they read before they begin.")]
Reward = Annotated[int, typer.Option(min=1, help="What one person gets, in cents.")]
Minutes = Annotated[int, typer.Option(min=1, help="How long it takes.")]
Places = Annotated[int, typer.Option(min=1, help="How many people.")]
Site = Annotated[str, typer.Option("--url", help="The rating site, https://…")]
Ids = Annotated[list[str], typer.Argument(metavar="ID…", help="Submissions or assignments.")]
One = Annotated[str, typer.Argument(metavar="ID", help="A submission or assignment.")]
Bonuses = Annotated[list[str], typer.Argument(metavar="ID=CENTS…", help="Whom to pay what.")]
Reason = Annotated[str, typer.Option("--reason", help="Which the person reads.")]
Yes = Annotated[bool, typer.Option("--yes", help="Spend the money that it says.")]
Db = Annotated[str, typer.Option(help="Rating database: tells who sent what, and what was seen.")]
Needs = Annotated[str, typer.Option("--db", help="Refuse more places than its comparisons need.")]


def amounts(words: list[str]) -> dict[str, int]:
    """Cents by id, of ID=CENTS; raises UserError."""
    found: dict[str, int] = {}
    for word in words:
        name, _, cents = word.partition("=")
        if not name or not cents.isascii() or not cents.isdigit() or len(cents) > 6:
            raise UserError("a bonus is ID=CENTS", value=word)
        if name in found:
            raise UserError("two bonuses for one", value=name)
        found[name] = int(cents)
    return found


def bill(cost: Cost | ProlificCost) -> str:
    """A cost in words."""
    parts = f"{cost.rewards / 100:.2f} for people, {cost.fees / 100:.2f} fees"
    return f"{cost.total / 100:.2f} ({parts})"


def spend(what: str, bill: str, yes: bool) -> None:
    """Say what is spent; raises UserError unless the user has said yes to it."""
    if not yes:
        raise UserError(f"{what} cost {bill}; nothing is spent yet", fix="add --yes")
    print(f"{what}: {bill}")


def listed(
    rows: list[tuple[str, str, str]], workforce: Any, db: str, json: bool,
    working: Callable[[str], bool] = lambda one: False,
) -> None:  # fmt: skip
    """Show a platform's submissions beside what the database knows of them.

    `answers` came on that submission and count; those of an excluded rater stand apart.
    A worker's id is shown to the requester, who has it from the platform, and kept nowhere.
    """
    seen: dict[tuple[str, str], Came] = {}
    unknown: list[Came] = []
    if db:
        from epigone.cli.rate_store import open_store
        from epigone.raters.workforces import platforms

        store = open_store(db)
        who = platforms.came(store, workforce)
        store.close()
        # Not by the submission alone: somebody else may have come in with it.
        seen = {(c.submission, c.worker): c for c in who}
        unknown = platforms.strangers(who, {one: worker for one, worker, _ in rows}, working)
    found = [
        {
            "id": one, "worker": worker, "status": status,
            "rater": c.rater if (c := seen.get((one, worker))) else "",
            "answers": c.answers if c and not c.excluded else 0,
            "excluded": c.answers if c and c.excluded else 0,
            "against": [*c.against] if c else [],
        }
        for one, worker, status in rows
    ]  # fmt: skip
    strangers = [{"rater": c.rater, "submission": c.submission} for c in unknown]
    if json:
        say_json({"submissions": found, "strangers": strangers})
        return
    columns = ("id", "worker", "status", "rater", "answers", "excluded", "against")
    table("", columns, [[_cell(row[c]) for c in columns] for row in found])
    for c in unknown:
        print(f"{c.rater} came with {c.submission}, which the platform does not know as theirs; "
              f"epigone rate exclude {db} {c.rater} --why 'not known to the platform'")  # fmt: skip


def _cell(value: Any) -> str:
    return "; ".join(value) if isinstance(value, list) else str(value)


def few_enough(db: str, workforce: Any, places: int) -> None:
    """Raise UserError for more places than a database's comparisons need; without one, nothing."""
    if not db:
        return
    store = open_store(db)
    from epigone.raters import plans

    most = plans.people_needed(store, workforce)
    store.close()
    if places > most:
        raise UserError("more people than the comparisons need: the last would find nothing to do",
                        value=places, fix=f"{most} at most, or a larger --per-item")  # fmt: skip


def writable(out: Path) -> bool:
    """Whether a file of settings is there already; raises UserError where none can be written."""
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UserError("the settings cannot be written", value=str(out), fix="name another -o")
    return out.exists()


def payable(ids: Sequence[str], status: Mapping[str, str], waiting: str) -> None:
    """Raise UserError unless each id is a study's own, once, and waits for a decision."""
    for one in ids:
        if ids.count(one) > 1:
            raise UserError("an id is named twice", value=one)
        if one not in status:
            raise UserError("not handed in to this study", value=one)
        if status[one] != waiting:
            raise UserError(f"it is {status[one]} already", value=one, fix="leave it out")
