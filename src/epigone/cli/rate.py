"""epigone rate: people compare two unknown outputs in a browser."""

from __future__ import annotations

import difflib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from epigone.cli import rate_results, rate_workforces
from epigone.cli.common import Json, Runs, StudyArgument, say_json, table
from epigone.cli.rate_filling import filled, read
from epigone.cli.rate_store import needs_extra, open_store, site_url
from epigone.errors import UnknownName, UserError

if TYPE_CHECKING:
    from epigone.api import Study
    from epigone.raters.comparisons import Output
    from epigone.raters.store import Store
    from epigone.raters.workforces import Door

Db = Annotated[str, typer.Argument(metavar="DB", help="A rating database: its file, or its URL.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")]
Url = Annotated[str, typer.Option(help="Address that people type, if a proxy stands before it.")]
PublicLink = Annotated[bool, typer.Option("--public", help="Let in whoever has the open link.")]
SecretFile = Annotated[
    Path | None, typer.Option("--secret-file", help="Where the signing key is kept.")
]
Prolific = Annotated[
    Path | None, typer.Option(help="Let in participants of a Prolific study, by its settings.")
]
MTurk = Annotated[
    Path | None, typer.Option(help="Let in workers of a HIT of Mechanical Turk, by its settings.")
]
PER_ITEM = typer.Option(min=1, max=100, help="Raters of each comparison.")
PER_RATER = typer.Option(min=1, help="Most items of one rater.")
PAIRS = typer.Option(help="With the teacher, or all with all.")
N = Annotated[int | None, typer.Option("-n", min=1, help="Prompts that are drawn.")]
Checks = Annotated[
    Path | None, typer.Option(help="Training, gold and attention tasks: YAML or JSONL.")
]
CheckEvery = Annotated[int, typer.Option(min=0, help="One check in so many items; 0 for none.")]
Lease = Annotated[float, typer.Option(min=1, help="Minutes until a task goes to another rater.")]
DropLeaks = Annotated[
    bool, typer.Option("--drop-leaks", help="Leave out items of which an output names a model.")
]


class _StudyOrVerb(TyperGroup):
    """A group in which a word that is no verb is a study."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb, or the hidden one of a study."""
        word = args[0] if args else ""
        if word and not word.startswith("-") and word not in self.commands:
            verbs = [n for n, command in self.commands.items() if not command.hidden]
            if not Path(word).exists() and difflib.get_close_matches(word, verbs, cutoff=0.6):
                raise UnknownName("verb of rate", word, verbs)
            args = ["study", *args]
        return super().resolve_command(ctx, args)


rate_app = typer.Typer(
    cls=_StudyOrVerb,
    help="Let people compare two unknown outputs in a browser.\n\n"
    "epigone rate STUDY serves a study's answers; the verbs below work on a rating database.",
    no_args_is_help=True,
    subcommand_metavar="STUDY | COMMAND [ARGS]...",
)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    rate_results.register(rate_app)
    rate_workforces.register(rate_app)
    app.add_typer(rate_app, name="rate")


@rate_app.command("study", hidden=True)
def rate_study(
    study: StudyArgument,
    models: Annotated[
        list[str] | None, typer.Option("--models", help="A model of the study; repeatable.")
    ] = None,
    per_item: Annotated[int | None, PER_ITEM] = None,
    per_rater: Annotated[int | None, PER_RATER] = None,
    pairs: Annotated[Literal["teacher", "all"] | None, PAIRS] = None,
    n: N = None,
    checks: Checks = None,
    check_every: CheckEvery = 6,
    lease: Lease = 30.0,
    drop_leaks: DropLeaks = False,
    db: Annotated[str, typer.Option(help="Rating database, if not runs/STUDY/ratings.db.")] = "",
    host: Host = "127.0.0.1",
    port: Port = 8600,
    url: Url = "",
    public: PublicLink = False,
    prolific: Prolific = None,
    mturk: MTurk = None,
    secret_file: SecretFile = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Let people compare a study's answers with its teacher's, until ^C.

    Example: epigone rate studies/pocket.yaml --per-item 3
    """
    from epigone.api import Study
    from epigone.report.people import keep_place
    from epigone.study.rating import Raters

    needs_extra()
    loaded = Study.load(study, runs=runs)
    asked = loaded.declaration.evaluate.raters or Raters()
    told = {"per_item": per_item, "per_rater": per_rater, "pairs": pairs, "n": n,
            "models": models or None}  # fmt: skip
    asked = asked.model_copy(update={k: v for k, v in told.items() if v is not None})
    teacher, others = _answers(loaded, asked.models)
    site_url(url)
    store = filled(
        db or str(loaded.root / "ratings.db"), loaded.declaration.name, teacher, others, asked,
        checks=checks, check_every=check_every, lease=lease, drop_leaks=drop_leaks,
        json=json,
    )  # fmt: skip
    more = _platforms(store, prolific, mturk)
    place = (str(store.file.resolve()) if store.file else store.shown) if db else ""
    keep_place(loaded.root, place)
    _serve(store, host, port, url, public=public, secret_file=secret_file, json=json, more=more)


@rate_app.command()
def tasks(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="Samples: FILE or NAME=FILE.")],
    models: Annotated[list[str], typer.Argument(metavar="MODEL…", help="FILE or NAME=FILE.")],
    db: Annotated[str, typer.Option(help="The database to make: a file, or a URL.")],
    name: Annotated[str, typer.Option(help="What the raters' administrators call it.")] = "ratings",
    per_item: Annotated[int, PER_ITEM] = 3,
    per_rater: Annotated[int, PER_RATER] = 20,
    pairs: Annotated[Literal["teacher", "all"], PAIRS] = "teacher",
    n: N = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the prompts.")] = 0,
    checks: Checks = None,
    check_every: CheckEvery = 6,
    lease: Lease = 30.0,
    drop_leaks: DropLeaks = False,
    json: Json = False,
) -> None:
    """Make a rating database from files of samples; each line has item, prompt and output.

    Example: epigone rate tasks teacher.jsonl student=answers.jsonl --db ratings.db
    """
    from epigone.study.rating import Raters

    needs_extra()
    asked = Raters(per_item=per_item, per_rater=per_rater, n=n, seed=seed, pairs=pairs)
    store = filled(db, name, read(teacher), [read(word) for word in models], asked, checks=checks,
                   check_every=check_every, lease=lease, drop_leaks=drop_leaks, json=json,
                   alone=True)  # fmt: skip
    if not json:
        print(f"next: epigone rate serve {store.shown}")
    store.close()


@rate_app.command()
def serve(
    db: Db,
    host: Host = "127.0.0.1",
    port: Port = 8600,
    url: Url = "",
    public: PublicLink = False,
    prolific: Prolific = None,
    mturk: MTurk = None,
    secret_file: SecretFile = None,
    json: Json = False,
) -> None:
    """Serve a rating database until ^C; every vote survives a kill and a restart.

    Example: epigone rate serve ratings.db --url https://rate.example.org --public
    """
    site_url(url)
    store = open_store(db)
    more = _platforms(store, prolific, mturk)
    _serve(store, host, port, url, public=public, secret_file=secret_file, json=json, more=more)


@rate_app.command()
def invite(
    db: Db,
    n: Annotated[int, typer.Option("-n", min=1, max=10_000, help="How many links.")] = 1,
    label: Annotated[str, typer.Option(help="By which they can be revoked.")] = "",
    days: Annotated[
        float | None, typer.Option(min=0.01, max=3650, help="How long they work.")
    ] = None,
    url: Url = "http://127.0.0.1:8600",
    secret_file: SecretFile = None,
    json: Json = False,
) -> None:
    """Make invitation links, one a person; they are shown once and kept nowhere.

    Example: epigone rate invite ratings.db -n 5 --label students --url https://rate.example.org
    """
    site_url(url)
    store = open_store(db)
    from epigone.raters import people
    from epigone.raters.admin import link
    from epigone.raters.secret import SECRET_ENV, secret

    key = secret(SECRET_ENV, _secret_file(store, secret_file))
    made = people.invite(store, [label] * n, time.time(), days=days, who="command line")
    links = [link(url, key, one) for one in made]
    store.close()
    if json:
        say_json(links)
    else:
        print("\n".join(links))


@rate_app.command()
def revoke(
    db: Db,
    named: Annotated[str, typer.Argument(metavar="LABEL|NUMBER", help="Which invitations.")],
    json: Json = False,
) -> None:
    """Revoke invitations by their label, or one by its number; their sessions end at once.

    Example: epigone rate revoke ratings.db students
    """
    store = open_store(db)
    from epigone.raters import people

    count = people.revoke(store, named, time.time(), who="command line")
    rows = people.invitations(store)
    store.close()
    if json:
        say_json({"revoked": count})
    else:
        print(f"revoked {count}")
        states = [[str(i.id), i.label, "revoked" if i.revoked else "works"] for i in rows]
        table("", ("number", "label", "state"), states)


def _answers(
    loaded: Study, wanted: Sequence[str]
) -> tuple[dict[str, Output], list[dict[str, Output]]]:
    from epigone.raters.comparisons import read_outputs

    found: dict[str, dict[str, Output]] = {}
    for p in loaded.plan():
        if p.step.stage == "generate" and p.record is not None:
            file = loaded.store.folder(p.step) / "samples.jsonl"
            found[p.step.model] = read_outputs(file, p.step.model)
    teacher = loaded.declaration.teacher.name
    known = [s.model for s in loaded.expansion().subjects]
    for name in wanted:
        if name not in known:
            raise UnknownName("model", name, known)
        if name not in found:
            raise UserError("this model has not answered yet", value=name, fix="epigone run")
    if teacher not in found or len(found) < 2:
        raise UserError("no answers to compare yet", value=loaded.declaration.name,
                        fix="a study with evaluate.style, and epigone run")  # fmt: skip
    models = list(wanted) or [name for name in known if name in found]
    if not wanted and (missing := [name for name in known if name not in found]):
        print(f"not answered yet, and left out: {', '.join(missing)}", file=sys.stderr)
    return found[teacher], [found[name] for name in models]


def _secret_file(store: Store, named: Path | None) -> Path | None:
    # The whole name: st.A and st.B are two databases.
    return named if named or store.file is None else Path(f"{store.file}.secret")


def _platforms(store: Store, prolific: Path | None, mturk: Path | None) -> list[Door]:
    from epigone.raters.workforces import platforms

    more, blind = platforms.doors(store, prolific, mturk)
    for name in blind:
        print(f"{name} cannot be asked who comes, without a token or keys", file=sys.stderr)
    return more


def _serve(
    store: Store,
    host: str,
    port: int,
    url: str,
    *,
    public: bool,
    secret_file: Path | None,
    json: bool,
    more: Sequence[Door] = (),
) -> None:
    from epigone.raters import people, serving
    from epigone.raters.admin import link
    from epigone.raters.app import build_app
    from epigone.raters.secret import ADMIN_ENV, SECRET_ENV, secret
    from epigone.raters.site import Settings

    store.plan()
    file = _secret_file(store, secret_file)
    admin_file = file.with_name(f"{file.name.removesuffix('.secret')}.admin") if file else None
    key, admin = secret(SECRET_ENV, file), secret(ADMIN_ENV, admin_file)
    socket = serving.bind(host, port)
    url = site_url(url) or serving.url(socket, host)
    if serving.is_bare(url):
        print(f"{url} is without TLS: whoever is on the way can read and take over sessions",
              file=sys.stderr)  # fmt: skip
    settings = Settings(key, admin, url)
    first = ""
    # Elsewhere it would stand in a log.
    if (json or sys.stdout.isatty()) and not people.invitations(store):
        (made,) = people.invite(store, ["first"], time.time(), who="command line")
        first = link(url, key, made)
    app = build_app(store, settings, [*serving.doors(store, settings, public=public), *more])

    def ready() -> None:
        token = "" if ADMIN_ENV in os.environ else str(admin_file)
        if json:
            say_json(
                {"url": url, "admin": f"{url}/admin", "admin_token_file": token,
                 "invitation": first, "public": f"{url}/in/public" if public else ""}
            )  # fmt: skip
            sys.stdout.flush()
            return
        if first:
            print(f"rate here:      {first}")
        if public:
            print(f"open link:      {url}/in/public")
        label = "more raters:   " if first else "invite raters: "
        print(f"{label} epigone rate invite {store.shown} -n 5 --url {url}")
        print(f"administration: {url}/admin with the token in {token or '$' + ADMIN_ENV}")
        print("serving until ^C", flush=True)

    serving.serve(app, [socket], ready)
    store.close()
