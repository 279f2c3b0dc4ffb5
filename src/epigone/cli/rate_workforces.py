"""epigone rate prolific and mturk: studies on crowdsourcing platforms; nothing is paid unasked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epigone.cli.common import Json, say_json, table
from epigone.errors import UserError

if TYPE_CHECKING:
    from epigone.raters.workforces.mturk_client import Client as Amazon
    from epigone.raters.workforces.mturk_client import Cost
    from epigone.raters.workforces.platforms import Came
    from epigone.raters.workforces.prolific_client import Client as Prolific
    from epigone.raters.workforces.prolific_client import Cost as ProlificCost

Settings = Annotated[Path, typer.Argument(metavar="SETTINGS", help="The file that `create` wrote.")]
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


def register(group: typer.Typer) -> None:
    """Add the verbs."""
    prolific = typer.Typer(help="Raters from Prolific.", no_args_is_help=True)
    mturk = typer.Typer(help="Raters from Mechanical Turk, in its sandbox unless told otherwise.",
                        no_args_is_help=True)  # fmt: skip
    verbs: list[Callable[..., None]] = [
        prolific_create, prolific_publish, prolific_places, prolific_submissions,
        prolific_approve, prolific_reject, prolific_bonus,
        mturk_create, mturk_assignments, mturk_approve, mturk_reject, mturk_bonus,
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
    json: Json = False,
) -> None:
    """Make a draft on Prolific, which costs nothing; made twice under one name, it is one.

    Example: epigone rate prolific create -o prolific.json --name "Compare answers" --description
    "Which of two answers is better?" --url https://rate.example.org --reward 200 --minutes 12
    --places 30
    """
    from epigone.raters.workforces.prolific_client import Draft

    client = _prolific()
    entry = url.rstrip("/") + "/in/prolific"
    draft = Draft(name, f"epigone: {name}", description, entry, reward, minutes, places)
    settings, new = client.create(draft)
    settings.write(out)
    cost = client.cost(reward, places, minutes)
    if json:
        say_json({"study": settings.study, "new": new, "cost_cents": cost.total, "file": str(out)})
        return
    print(f"{'made' if new else 'found'} the draft {settings.study}; its codes are in {out}")
    print(f"published, it costs {_bill(cost)}: {60 * reward / minutes / 100:.2f} an hour")
    print(f"next: epigone rate serve DB --prolific {out} --url {url}")
    print(f"then: epigone rate prolific publish {out} --yes")


def prolific_publish(settings: Settings, yes: Yes = False) -> None:
    """Show the study to participants, which sets its cost aside.

    Example: epigone rate prolific publish prolific.json --yes
    """
    client, study = _prolific(), _study(settings)
    row = client.study(study)
    places = int(row["total_available_places"])
    cost = client.cost(int(row["reward"]), places, int(row["estimated_completion_time"]))
    _spend(f"{places} places", _bill(cost), yes)
    print(f"{study} is {client.publish(study)}")


def prolific_places(
    settings: Settings,
    places: Annotated[int, typer.Argument(min=1, help="How many people in all.")],
    yes: Yes = False,
) -> None:
    """Admit more people; places only grow.

    Example: epigone rate prolific places prolific.json 40 --yes
    """
    client, study = _prolific(), _study(settings)
    row = client.study(study)
    more = places - int(row["total_available_places"])
    if more > 0:
        minutes = int(row["estimated_completion_time"])
        _spend(f"{more} more places", _bill(client.cost(int(row["reward"]), more, minutes)), yes)
    before = client.grow(study, places)
    print(f"{study} has {places} places, before {before}")


def prolific_submissions(settings: Settings, db: Db = "", json: Json = False) -> None:
    """Who sent what; with --db also their answers, what speaks against them, and strangers.

    Example: epigone rate prolific submissions prolific.json --db ratings.db
    """
    rows = _prolific().submissions(_study(settings))
    _list([(s.id, s.participant, s.status) for s in rows], "prolific", db, json)


def prolific_approve(settings: Settings, ids: Ids, yes: Yes = False) -> None:
    """Pay for submissions.

    Example: epigone rate prolific approve prolific.json 60d9aadeb86739de712faee0 --yes
    """
    client, study = _prolific(), _study(settings)
    row = client.study(study)
    cost = client.cost(int(row["reward"]), len(ids), int(row["estimated_completion_time"]))
    _spend(f"{len(ids)} submissions", _bill(cost), yes)
    for one in ids:
        print(f"{one} is {client.approve(one)}")


def prolific_reject(
    settings: Settings,
    one: One,
    reason: Reason,
    category: Annotated[str, typer.Option(help="FAILED_CHECK, TOO_QUICKLY, LOW_EFFORT, …")],
) -> None:
    """Turn a submission down, with a reason of 100 characters or more.

    Example: epigone rate prolific reject prolific.json 60d9aadeb86739de712faee0 --category
    FAILED_CHECK --reason "Both attention checks …"
    """
    _study(settings)
    print(f"{one} is {_prolific().reject(one, reason, category)}")


def prolific_bonus(settings: Settings, bonuses: Bonuses, yes: Yes = False) -> None:
    """Pay bonuses, once for each submission.

    Example: epigone rate prolific bonus prolific.json 60d9aadeb86739de712faee0=50 --yes
    """
    client = _prolific()
    bonus, cost = client.prepare_bonus(_study(settings), _amounts(bonuses))
    _spend(f"{len(bonuses)} bonuses", _bill(cost), yes)
    client.pay_bonus(bonus)
    print(f"{len(bonuses)} bonuses are being paid")


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
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make a HIT, which workers see at once; made twice under one name, it is one.

    Example: epigone rate mturk create -o mturk.json --name "Compare answers" --description
    "Which of two answers is better?" --url https://rate.example.org --reward 200 --minutes 30
    --places 9
    """
    from epigone.raters.workforces.mturk_client import Draft, Settings, checked, cost

    entry = url.rstrip("/") + "/in/mturk"
    draft = Draft(name, f"epigone: {name}", description, entry, reward, minutes, places)
    checked(draft)
    client = _mturk(live)
    if live:
        _spend(f"{places} assignments", _bill(cost(reward, places)), yes)
    hit, new = client.create(draft)
    Settings(hit, live).write(out)
    if json:
        total = cost(reward, places).total if live else 0
        say_json({"hit": hit, "new": new, "cost_cents": total, "file": str(out)})
        return
    print(f"{'made' if new else 'found'} the HIT {hit}{'' if live else ' in the sandbox'}")
    print(f"next: epigone rate serve DB --mturk {out} --url {url}")


def mturk_assignments(settings: Settings, db: Db = "", json: Json = False) -> None:
    """Who handed in what; with --db also their answers, what speaks against them, and strangers.

    Example: epigone rate mturk assignments mturk.json --db ratings.db
    """
    client, hit = _hit(settings)
    rows = client.assignments(hit)
    _list([(a.id, a.worker, a.status) for a in rows], "mturk", db, json,
          lambda one: client.status(one) == "")  # fmt: skip


def mturk_approve(settings: Settings, ids: Ids, yes: Yes = False) -> None:
    """Pay for assignments.

    Example: epigone rate mturk approve mturk.json 3TMFV4NEP8DPIPCI8H9VUFHJG8V8W3 --yes
    """
    from epigone.raters.workforces.mturk_client import cost

    client, hit = _hit(settings)
    if client.live:
        reward, places = client.draft(hit)
        _spend(f"{len(ids)} assignments", _bill(cost(reward, places, len(ids))), yes)
    for one in ids:
        client.approve(one)
        print(f"{one} is approved")


def mturk_reject(settings: Settings, one: One, reason: Reason) -> None:
    """Turn an assignment down.

    Example: epigone rate mturk reject mturk.json 3TMFV4NEP8DPIPCI8H9VUFHJG8V8W3 --reason "…"
    """
    _hit(settings)[0].reject(one, reason)
    print(f"{one} is rejected")


def mturk_bonus(settings: Settings, bonuses: Bonuses, reason: Reason, yes: Yes = False) -> None:
    """Pay bonuses, once for each assignment.

    Example: epigone rate mturk bonus mturk.json 3TMFV4NEP8DPIPCI8H9VUFHJG8V8W3=50 --reason thanks
    """
    from epigone.raters.workforces.mturk_client import cost

    client, hit = _hit(settings)
    known = {a.id: a for a in client.assignments(hit)}
    amounts = _amounts(bonuses)
    for one in amounts:
        if one not in known:
            raise UserError("no assignment of this HIT that was handed in", value=one)
    if client.live:
        bills = [cost(cents, 1) for cents in amounts.values()]
        total = sum(b.rewards for b in bills), sum(b.fees for b in bills)
        _spend(f"{len(amounts)} bonuses", f"{sum(total) / 100:.2f}", yes)
    for one, cents in amounts.items():
        paid = client.bonus(known[one], cents, reason)
        print(f"{one} {'gets' if paid else 'has had'} a bonus")


def _prolific() -> Prolific:
    from epigone.raters.workforces.prolific_client import Client

    return Client()


def _study(file: Path) -> str:
    from epigone.raters.workforces.prolific_client import Settings

    return Settings.read(file).study


def _mturk(live: bool) -> Amazon:
    from epigone.raters.workforces.mturk_client import Client

    return Client(live=live)


def _hit(file: Path) -> tuple[Amazon, str]:
    from epigone.raters.workforces.mturk_client import Settings

    settings = Settings.read(file)
    return _mturk(settings.live), settings.hit


def _amounts(words: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        name, _, cents = word.partition("=")
        if not name or not cents.isascii() or not cents.isdigit() or len(cents) > 6:
            raise UserError("a bonus is ID=CENTS", value=word)
        if name in found:
            raise UserError("two bonuses for one", value=name)
        found[name] = int(cents)
    return found


def _bill(cost: Cost | ProlificCost) -> str:
    parts = f"{cost.rewards / 100:.2f} for people, {cost.fees / 100:.2f} fees"
    return f"{cost.total / 100:.2f} ({parts})"


def _spend(what: str, bill: str, yes: bool) -> None:
    """Say what is spent; raises UserError unless the user has said yes to it."""
    if not yes:
        raise UserError(f"{what} cost {bill}; nothing is spent yet", fix="add --yes")
    print(f"{what}: {bill}")


def _list(
    rows: list[tuple[str, str, str]], workforce: Any, db: str, json: bool,
    working: Callable[[str], bool] = lambda one: False,
) -> None:  # fmt: skip
    """Show a platform's submissions beside what the database knows of them.

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
            "answers": c.answers if c else 0,
            "against": list(c.against) if c else [],
        }
        for one, worker, status in rows
    ]  # fmt: skip
    strangers = [{"rater": c.rater, "submission": c.submission} for c in unknown]
    if json:
        say_json({"submissions": found, "strangers": strangers})
        return
    columns = ("id", "worker", "status", "rater", "answers", "against")
    table("", columns, [[_cell(row[c]) for c in columns] for row in found])
    for c in unknown:
        print(f"{c.rater} came with {c.submission}, which the platform does not know as theirs; "
              f"epigone rate exclude {db} {c.rater} --why 'not known to the platform'")  # fmt: skip


def _cell(value: Any) -> str:
    return "; ".join(value) if isinstance(value, list) else str(value)
