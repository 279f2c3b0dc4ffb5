"""epigone rate mturk: HITs on Mechanical Turk; nothing is paid unasked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    from epigone.raters.workforces.mturk_client import Client as Amazon


def mturk_create(
    out: Out,
    name: Title,
    description: Description,
    url: Site,
    reward: Reward,
    minutes: Minutes,
    places: Places,
    live: Annotated[
        bool, typer.Option("--live", help="For real money, not in the sandbox.")
    ] = False,
    approved: Annotated[
        int | None, typer.Option(min=0, max=100, help="Per cent of a worker's assignments that "
                                 "were approved; 97, and 0 in the sandbox.")
    ] = None,
    known: Annotated[
        int | None, typer.Option(min=0, help="Of how many; 500, and 0 in the sandbox.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="How long workers see it.")] = 7,
    pays_after: Annotated[
        int, typer.Option(min=1, max=30, help="Days until Amazon pays what nobody looked at.")
    ] = 7,
    db: Needs = "",
    yes: Yes = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Make a HIT, which workers see at once; made twice under one name, it is one.

    Example: epigone rate mturk create -o mturk.json --name "Compare answers" --description
    "Which of two answers is better?" --url https://rate.example.org --reward 200 --minutes 30
    --places 9
    """
    from epigone.raters.workforces.mturk_client import Draft, Settings, checked, cost

    entry = site_url(url) + "/in/mturk"
    asked = ((97 if live else 0) if approved is None else approved,
             (500 if live else 0) if known is None else known)  # fmt: skip
    draft = Draft(name, f"epigone: {name}", description, entry, reward, minutes, places, days,
                  *asked, pays_after)  # fmt: skip
    checked(draft)
    few_enough(db, "mturk", places)
    before = Settings.read(out) if writable(out) else None
    client = _mturk(live)
    there = client.find(draft)
    if before is not None and before != Settings(there, live):
        raise UserError("the file is of another HIT", value=str(out), fix="name another -o")
    if live and not there:
        account = f"; the account has {client.balance()}"
        spend(f"{places} assignments", bill(cost(reward, places)) + account, yes)
    hit, new = (there, False) if there else client.create(draft)
    Settings(hit, live).write(out)
    if json:
        total = cost(reward, places).total if live and new else 0
        say_json({"hit": hit, "new": new, "cost_cents": total, "file": str(out)})
        return
    print(f"{'made' if new else 'found'} the HIT {hit}{'' if live else ' in the sandbox'}")
    print(f"next: epigone rate serve DB --mturk {out} --url {url}")


def mturk_assignments(settings: SettingsFile, db: Db = "", json: Json = False) -> None:
    """Who handed in what; with --db also their answers, what speaks against them, and strangers.

    Example: epigone rate mturk assignments mturk.json --db ratings.db
    """
    client, hit = _hit(settings)
    rows = client.assignments(hit)
    listed([(a.id, a.worker, a.status) for a in rows], "mturk", db, json,
          lambda one: client.status(one) == "")  # fmt: skip


def mturk_approve(settings: SettingsFile, ids: Ids, yes: Yes = False) -> None:
    """Pay for assignments.

    Example: epigone rate mturk approve mturk.json 3TMFV4NEP8DPIPCI8H9VUFHJG8V8W3 --yes
    """
    from epigone.raters.workforces.mturk_client import cost

    client, hit = _hit(settings)
    payable(ids, {a.id: a.status for a in client.assignments(hit)}, "Submitted")
    if client.live:
        reward, places = client.draft(hit)
        spend(f"{len(ids)} assignments", bill(cost(reward, places, len(ids))), yes)
    for one in ids:
        client.approve(one)
        print(f"{one} is approved")


def mturk_reject(settings: SettingsFile, one: One, reason: Reason) -> None:
    """Turn an assignment down.

    Example: epigone rate mturk reject mturk.json 3TMFV4NEP8DPIPCI8H9VUFHJG8V8W3 --reason "…"
    """
    client, hit = _hit(settings)
    payable([one], {a.id: a.status for a in client.assignments(hit)}, "Submitted")
    client.reject(one, reason)
    print(f"{one} is rejected")


def mturk_bonus(settings: SettingsFile, bonuses: Bonuses, reason: Reason, yes: Yes = False) -> None:
    """Pay bonuses, once for each assignment.

    Example: epigone rate mturk bonus mturk.json 3TMFV4NEP8DPIPCI8H9VUFHJG8V8W3=50 --reason thanks
    """
    from epigone.raters.workforces.mturk_client import cost

    client, hit = _hit(settings)
    known = {a.id: a for a in client.assignments(hit)}
    paid = amounts(bonuses)
    for one in paid:
        if one not in known:
            raise UserError("no assignment of this HIT that was handed in", value=one)
    if client.live:
        bills = [cost(cents, 1) for cents in paid.values()]
        total = sum(b.rewards for b in bills), sum(b.fees for b in bills)
        spend(f"{len(paid)} bonuses", f"{sum(total) / 100:.2f}", yes)
    for one, cents in paid.items():
        new = client.bonus(known[one], cents, reason)
        print(f"{one} {'gets' if new else 'has had'} a bonus")


def _mturk(live: bool) -> Amazon:
    from epigone.raters.workforces.mturk_client import Client

    return Client(live=live)


def _hit(file: Path) -> tuple[Amazon, str]:
    from epigone.raters.workforces.mturk_client import Settings

    settings = Settings.read(file)
    return _mturk(settings.live), settings.hit
