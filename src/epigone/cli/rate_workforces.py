"""epigone rate prolific and mturk: studies on crowdsourcing platforms; nothing is paid unasked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epigone.cli import rate_mturk
from epigone.cli.common import Json, say_json
from epigone.cli.rate_platforms import (
    Bonuses,
    Db,
    Description,
    Ids,
    Minutes,
    Needs,
    One,
    Out,
    Places,
    Reason,
    Reward,
    SettingsFile,
    Site,
    Title,
    Yes,
    amounts,
    bill,
    few_enough,
    listed,
    payable,
    spend,
    writable,
)
from epigone.cli.rate_store import site_url
from epigone.errors import UserError

if TYPE_CHECKING:
    from epigone.raters.workforces.prolific_client import Client as Prolific


def register(group: typer.Typer) -> None:
    """Add the verbs."""
    prolific = typer.Typer(help="Raters from Prolific.", no_args_is_help=True)
    mturk = typer.Typer(help="Raters from Mechanical Turk, in its sandbox unless told otherwise.",
                        no_args_is_help=True)  # fmt: skip
    verbs: list[Callable[..., None]] = [
        prolific_create, prolific_publish, prolific_places, prolific_submissions,
        prolific_approve, prolific_reject, prolific_bonus,
        rate_mturk.mturk_create, rate_mturk.mturk_assignments, rate_mturk.mturk_approve,
        rate_mturk.mturk_reject, rate_mturk.mturk_bonus,
    ]  # fmt: skip
    for verb in verbs:
        platform, _, name = verb.__name__.partition("_")
        (prolific if platform == "prolific" else mturk).command(name)(verb)
    group.add_typer(prolific, name="prolific")
    group.add_typer(mturk, name="mturk")


def prolific_create(
    out: Out,
    name: Title,
    description: Description,
    url: Site,
    reward: Reward,
    minutes: Minutes,
    places: Places,
    db: Needs = "",
    json: Json = False,
) -> None:
    """Make a draft on Prolific, which costs nothing; made twice under one name, it is one.

    Example: epigone rate prolific create -o prolific.json --name "Compare answers" --description
    "Which of two answers is better?" --url https://rate.example.org --reward 200 --minutes 12
    --places 30
    """
    from epigone.raters.workforces.prolific_client import Draft, Settings, checked

    entry = site_url(url) + "/in/prolific"
    draft = Draft(name, f"epigone: {name}", description, entry, reward, minutes, places)
    checked(draft)
    few_enough(db, "prolific", places)
    before = Settings.read(out) if writable(out) else None
    client = _prolific()
    there = client.find(draft)
    if before is not None and before != there:
        raise UserError("the file is of another study", value=str(out), fix="name another -o")
    settings, new = (there, False) if there else client.create(draft)
    settings.write(out)
    status = str(client.study(settings.study)["status"])
    cost = client.cost(reward, places, minutes)
    if json:
        say_json({"study": settings.study, "new": new, "status": status,
                  "cost_cents": cost.total, "file": str(out)})  # fmt: skip
        return
    print(f"{'made' if new else 'found'} {settings.study}, {status}; its codes are in {out}")
    if status != "UNPUBLISHED":
        print(f"it costs {bill(cost)}")
        return
    print(f"published, it costs {bill(cost)}: {60 * reward / minutes / 100:.2f} an hour")
    print(f"next: epigone rate serve DB --prolific {out} --url {url}")
    print(f"then: epigone rate prolific publish {out} --yes")


def prolific_publish(settings: SettingsFile, db: Needs = "", yes: Yes = False) -> None:
    """Show the study to participants, which sets its cost aside.

    Example: epigone rate prolific publish prolific.json --yes
    """
    client, study = _prolific(), _study(settings)
    row = client.study(study)
    places = int(row["total_available_places"])
    few_enough(db, "prolific", places)
    cost = client.cost(int(row["reward"]), places, int(row["estimated_completion_time"]))
    spend(f"{places} places", bill(cost), yes)
    print(f"{study} is {client.publish(study)}")


def prolific_places(
    settings: SettingsFile,
    places: Annotated[int, typer.Argument(min=1, help="How many people in all.")],
    db: Needs = "",
    yes: Yes = False,
) -> None:
    """Admit more people; places only grow.

    Example: epigone rate prolific places prolific.json 40 --yes
    """
    client, study = _prolific(), _study(settings)
    few_enough(db, "prolific", places)
    row = client.study(study)
    more = places - int(row["total_available_places"])
    if more > 0:
        minutes = int(row["estimated_completion_time"])
        spend(f"{more} more places", bill(client.cost(int(row["reward"]), more, minutes)), yes)
    before = client.grow(study, places)
    print(f"{study} has {places} places, before {before}")


def prolific_submissions(settings: SettingsFile, db: Db = "", json: Json = False) -> None:
    """Who sent what; with --db also their answers, what speaks against them, and strangers.

    Example: epigone rate prolific submissions prolific.json --db ratings.db
    """
    rows = _prolific().submissions(_study(settings))
    listed([(s.id, s.participant, s.status) for s in rows], "prolific", db, json)


def prolific_approve(settings: SettingsFile, ids: Ids, yes: Yes = False) -> None:
    """Pay for submissions.

    Example: epigone rate prolific approve prolific.json 60d9aadeb86739de712faee0 --yes
    """
    client, study = _prolific(), _study(settings)
    payable(ids, {s.id: s.status for s in client.submissions(study)}, "AWAITING REVIEW")
    row = client.study(study)
    cost = client.cost(int(row["reward"]), len(ids), int(row["estimated_completion_time"]))
    spend(f"{len(ids)} submissions", bill(cost), yes)
    for one in ids:
        print(f"{one} is {client.approve(one)}")


def prolific_reject(
    settings: SettingsFile,
    one: One,
    reason: Reason,
    category: Annotated[str, typer.Option(help="FAILED_CHECK, TOO_QUICKLY, LOW_EFFORT, …")],
) -> None:
    """Turn a submission down, with a reason of 100 characters or more.

    Example: epigone rate prolific reject prolific.json 60d9aadeb86739de712faee0 --category
    FAILED_CHECK --reason "Both attention checks …"
    """
    client, study = _prolific(), _study(settings)
    payable([one], {s.id: s.status for s in client.submissions(study)}, "AWAITING REVIEW")
    print(f"{one} is {client.reject(one, reason, category)}")


def prolific_bonus(settings: SettingsFile, bonuses: Bonuses, yes: Yes = False) -> None:
    """Pay bonuses, once for each submission.

    Example: epigone rate prolific bonus prolific.json 60d9aadeb86739de712faee0=50 --yes
    """
    from epigone.raters.workforces.kept import claim
    from epigone.raters.workforces.prolific_wire import Unclear

    study, paid = _study(settings), amounts(bonuses)
    noted = settings.with_suffix(".bonuses")
    for one in paid:
        if (noted / one).exists():
            raise _begun(noted / one, one)
    spend(f"{len(paid)} bonuses", f"{sum(paid.values()) / 100:.2f} and Prolific's fees", yes)
    client = _prolific()
    bonus, cost = client.prepare_bonus(study, paid)
    claimed: list[Path] = []
    try:
        for one, cents in paid.items():
            # Prolific pays later than it answers, and twice if it is asked twice.
            if not claim(noted / one, f"{cents} cents by {bonus}\n"):
                raise _begun(noted / one, one)
            claimed.append(noted / one)
        client.pay_bonus(bonus)
    except Unclear:
        raise
    except UserError:
        for file in claimed:
            file.unlink()
        raise
    print(f"{len(paid)} bonuses are being paid: {bill(cost)}")


def _begun(note: Path, submission: str) -> UserError:
    return UserError("a bonus was paid, or begun, for this submission", value=submission,
                     fix=f"look on Prolific's pages; if it has none, remove {note}")  # fmt: skip


def _prolific() -> Prolific:
    from epigone.raters.workforces.prolific_client import Client

    return Client()


def _study(file: Path) -> str:
    from epigone.raters.workforces.prolific_client import Settings

    return Settings.read(file).study
