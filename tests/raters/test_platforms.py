"""Prolific and Mechanical Turk from the command line through the site's pages to payment."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("fastapi")

import typer
from sqlalchemy import text
from starlette.testclient import TestClient

from epigone.cli import app
from epigone.cli.rate import rate_app
from epigone.errors import UserError
from epigone.raters import people, plans
from epigone.raters.app import build_app
from epigone.raters.comparisons import Pair
from epigone.raters.export import read_ratings
from epigone.raters.site import Settings
from epigone.raters.store import Store
from epigone.raters.workforces import platforms
from epigone.schema import Message

from . import fake_mturk, fake_prolific

ROOT = Path(__file__).parents[2]
Run = Callable[..., str]
TEXT = ["--name", "Compare", "--description", "Which is better?", "--url", "https://rate.example",
        "--reward", "150", "--minutes", "10"]  # fmt: skip
REASON = "Both attention checks were failed, although each of them said in its own plain text " \
         "which answer to choose."  # fmt: skip


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Three comparisons, two attention checks that everybody gets."""
    asked = (Message("user", "What is the capital of Australia?"),)
    pairs = [Pair(f"i{i}", asked, "student", "teacher", f"Sydney {i}", f"Canberra {i}")
             for i in range(3)]  # fmt: skip
    pairs += [Pair(f"c{i}", asked, "check-1", "check-2", "this", "that", "attention", 2)
              for i in range(2)]  # fmt: skip
    store = Store(tmp_path / "ratings.db")
    plans.prepare(store, "test", pairs, now=1.7e9, check_every=1)
    store.close()
    return tmp_path / "ratings.db"


@pytest.fixture(scope="module")
def verbs() -> Any:
    # Made once: typer takes a tenth of a second for all verbs.
    return typer.main.get_command(rate_app)


@pytest.fixture
def run(
    verbs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """What a verb says, or for code 2 the user's mistake."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, code: int = 0) -> str:
        capsys.readouterr()
        try:
            verbs.main([str(word) for word in words], "rate", standalone_mode=False)
        except UserError as error:
            if code == 0:
                raise
            return str(error)
        assert code == 0
        return capsys.readouterr().out

    return run


class Visitor:
    """Somebody with a browser, without JavaScript."""

    def __init__(self, store: Store, doors: Any, now: float = 1.7e9) -> None:
        settings = Settings("s" * 32, "a" * 32, "https://rate.example", clock=lambda: now)
        site = build_app(store, settings, doors)
        self.web = TestClient(site, base_url="https://rate.example")

    def rate(self, query: dict[str, str], workforce: str, choice: str) -> str:
        """Come in, choose the same in every task, and see the last page."""
        page = self.web.get(f"/in/{workforce}?{urlencode(query)}").text
        page = self.web.post("/begin", data={"csrf": _field(page, "csrf")}).text
        for _ in range(20):
            if 'name="task"' not in page:
                return page
            ballot = {n: _field(page, n) for n in ("csrf", "task")} | {"preference": choice}
            page = self.web.post("/vote", data=ballot).text
        raise AssertionError("no end")


def _field(page: str, name: str) -> str:
    (found,) = set(re.findall(rf'name="{name}" value="([^"]+)"', page))
    return found


@pytest.fixture
def prolific(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_prolific.Fake]:
    monkeypatch.setenv("PROLIFIC_API_TOKEN", fake_prolific.TOKEN)
    with fake_prolific.serving(fake_prolific.Fake()) as fake:
        monkeypatch.setattr("epigone.raters.workforces.prolific_wire.API", fake.url)
        yield fake


def test_prolific_from_the_draft_to_the_payment(
    run: Run, prolific: fake_prolific.Fake, database: Path, tmp_path: Path
) -> None:
    many = run("prolific", "create", "-o", "p.json", *TEXT, "--places", 4, "--db", database, code=2)
    assert "more people than the comparisons need" in many and "3 at most" in many
    assert "cannot be written" in run("prolific", "create", "-o", "no/p.json", *TEXT, "--places", 3,
                                      code=2)  # fmt: skip
    assert prolific.calls == []
    told = run("prolific", "create", "-o", "p.json", *TEXT, "--places", 3)
    assert "it costs 6.00 (4.50 for people, 1.50 fees): 9.00 an hour" in told
    (study,) = prolific.studies
    assert "/in/prolific?PROLIFIC_PID=" in prolific.studies[study]["external_study_url"]
    refused = run("prolific", "publish", "p.json", code=2)
    assert "cost 6.00" in refused and "(add --yes)" in refused and "\n" not in refused
    assert prolific.studies[study]["status"] == "UNPUBLISHED"
    assert f"{study} is ACTIVE" in run("prolific", "publish", "p.json", "--yes")
    assert f"found {study}, ACTIVE" in run(
        "prolific", "create", "-o", "p.json", *TEXT, "--places", 3
    )
    another = ["--name", "Another", *TEXT[2:], "--places", 3]
    assert "of another study" in run("prolific", "create", "-o", "p.json", *another, code=2)
    assert len(prolific.studies) == 1
    assert "cost 2.00" in run("prolific", "places", "p.json", 4, code=2)

    store = Store(database)
    doors, blind = platforms.doors(store, tmp_path / "p.json")
    assert blind == []
    rows = [prolific.submission(study) for _ in range(2)]
    codes = {c["code_type"]: c["code"] for c in prolific.studies[study]["completion_codes"]}
    for row, choice, kind in zip(rows, ("0", "2"), ("FAILED_ATTENTION_CHECK", None), strict=True):
        query = {"PROLIFIC_PID": row["participant"], "STUDY_ID": study, "SESSION_ID": row["id"]}
        page = Visitor(store, doors).rate(query, "prolific", choice)
        (code,) = re.findall(r"complete\?cc=(\w+)", page)
        # Who always chooses the middle fails both checks.
        assert kind is None or code == codes[kind]
        row["status"] = "AWAITING REVIEW"
    admin = Visitor(store, doors).web
    page = admin.post("/admin/login", data={"token": "a" * 32}).text
    assert "to think about: 2 of 2 attention checks failed" in page
    assert "0 of 2<span" in page
    stranger = {"PROLIFIC_PID": "0" * 24, "STUDY_ID": study, "SESSION_ID": "1" * 24}
    assert Visitor(store, doors).web.get(f"/in/prolific?{urlencode(stranger)}").status_code == 403
    # The door asks once, and waits for nothing.
    prolific.failures, asked = [(429, {"Retry-After": "60"})], len(prolific.calls)
    away = Visitor(store, doors).web.get(f"/in/prolific?{urlencode(query)}")
    assert "cannot be asked now" in away.text and len(prolific.calls) == asked + 1
    # One who came in while nobody asked Prolific, and a second worker by the same submission.
    Visitor(store, [_unasked(doors[0])]).rate(stranger, "prolific", "1")
    blind = Visitor(store, doors)
    blind.web.get(f"/in/prolific?{urlencode(stranger | {'PROLIFIC_PID': '8' * 24})}")
    begun = blind.web.post("/begin", data={"csrf": _field(blind.web.get("/welcome").text, "csrf")})
    assert begun.status_code == 403 and "Somebody else came in" in begun.text
    store.close()

    listed = json.loads(run("prolific", "submissions", "p.json", "--db", database, "--json"))
    assert [s["answers"] for s in listed["submissions"]] == [3, 3]
    assert "2 of 2 attention checks failed" in listed["submissions"][0]["against"]
    assert [s["submission"] for s in listed["strangers"]] == ["1" * 24]
    bad, good = (row["id"] for row in rows)
    assert "cost 2.00" in run("prolific", "approve", "p.json", good, code=2)
    assert prolific.paid == []
    for wrong, says in ((good, "named twice"), ("7" * 24, "not handed in to this study")):
        assert says in run("prolific", "approve", "p.json", good, wrong, "--yes", code=2)
    assert prolific.paid == []
    run("prolific", "approve", "p.json", good, "--yes")
    assert "APPROVED already" in run("prolific", "approve", "p.json", bad, good, "--yes", code=2)
    run("prolific", "reject", "p.json", bad, "--category", "FAILED_CHECK", "--reason", REASON)
    asked = len(prolific.calls)
    assert "0.25 and Prolific's fees" in run("prolific", "bonus", "p.json", f"{good}=25", code=2)
    assert len(prolific.calls) == asked
    prolific.failures = [None, None, 400]
    assert "refuses" in run("prolific", "bonus", "p.json", f"{good}=25", "--yes", code=2)
    assert prolific.paid == [(good, 150)]
    run("prolific", "bonus", "p.json", f"{good}=25", "--yes")
    # It is paid later than it is said, and would be paid twice.
    assert prolific.submissions[good]["bonus_payments"] == []
    assert "a bonus was paid, or begun" in run(
        "prolific", "bonus", "p.json", f"{good}=25", "--yes", code=2
    )
    assert prolific.paid == [(good, 150), (good, 25)]


def _unasked(door: Any) -> Any:
    door.client = None
    return door


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_mturk.Fake]:
    pytest.importorskip("boto3")
    for name, value in {
        "AWS_ACCESS_KEY_ID": fake_mturk.KEY, "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with fake_mturk.serving(fake_mturk.Fake()) as fake:
        monkeypatch.setenv("AWS_ENDPOINT_URL_MTURK", fake.url)
        yield fake


def test_mechanical_turk_from_the_hit_to_the_payment(
    run: Run, amazon: fake_mturk.Fake, database: Path, tmp_path: Path
) -> None:
    told = run("mturk", "create", "-o", "m.json", *TEXT, "--places", 9, "--live", code=2)
    assert "9 assignments cost 16.20 (13.50 for people, 2.70 fees)" in told
    assert amazon.hits == {}
    assert "in the sandbox" in run("mturk", "create", "-o", "m.json", *TEXT, "--places", 9)
    (hit,) = amazon.hits

    store = Store(database)
    doors, _ = platforms.doors(store, mturk_file=tmp_path / "m.json")
    query = {"hitId": hit, "assignmentId": "ASSIGNMENT_ID_NOT_AVAILABLE"}
    visitor = Visitor(store, doors)
    preview = visitor.web.get(f"/in/mturk?{urlencode(query)}")
    assert "This is a preview" in preview.text and "<form" not in preview.text
    frames = "frame-ancestors https://workersandbox.mturk.com"
    assert preview.headers["Content-Security-Policy"].endswith(frames)
    row = amazon.assignment(hit, "")
    query = {"hitId": hit, "assignmentId": row["AssignmentId"], "workerId": row["WorkerId"],
             "turkSubmitTo": "https://workersandbox.mturk.com"}  # fmt: skip
    page = visitor.rate(query, "mturk", "1")
    assert 'action="https://workersandbox.mturk.com/mturk/externalSubmit"' in page
    assert _field(page, "assignmentId") == row["AssignmentId"]
    (joined,) = platforms.came(store, "mturk")
    assert joined.worker == row["WorkerId"] and joined.worker not in page
    # All comparisons are in others' hands: there is nothing to hand in.
    store.write(lambda session: session.execute(text("UPDATE plan SET per_item = 1")))
    other = amazon.assignment(hit, "")
    query |= {"assignmentId": other["AssignmentId"], "workerId": other["WorkerId"]}
    empty = Visitor(store, doors).rate(query, "mturk", "1")
    assert "return this task" in empty and "externalSubmit" not in empty
    store.close()

    # Who still works on it is no stranger; who came with another worker's assignment is one, and
    # that worker does not get the answers.
    row["AssignmentStatus"], honest = "Submitted", other["WorkerId"]
    told = run("mturk", "assignments", "m.json", "--db", database)
    assert "does not know" not in told and joined.rater in told
    other |= {"AssignmentStatus": "Submitted", "WorkerId": "A1SOMEBODYELSE"}
    told = run("mturk", "assignments", "m.json", "--db", database)
    assert told.count("does not know") == 1 and honest not in told
    assert "A1SOMEBODYELSE\tSubmitted\t\t0" in told
    run("mturk", "approve", "m.json", row["AssignmentId"])
    assert amazon.paid == [(row["AssignmentId"], "1.50")]
    bonus = f"{row['AssignmentId']}=30"
    assert "gets a bonus" in run("mturk", "bonus", "m.json", bonus, "--reason", "thanks")
    assert "has had" in run("mturk", "bonus", "m.json", bonus, "--reason", "thanks")
    assert "no assignment" in run("mturk", "bonus", "m.json", "3X=1", "--reason", "x", code=2)


def rated_by(
    row: dict[str, Any], study: str, store: Store, settings: Path, choice: str, now: float = 1.7e9
) -> None:
    """A participant of Prolific comes by a submission, and rates until nothing is left."""
    doors, _ = platforms.doors(store, settings)
    query = {"PROLIFIC_PID": row["participant"], "STUDY_ID": study, "SESSION_ID": row["id"]}
    Visitor(store, doors, now).rate(query, "prolific", choice)


def test_both_are_exported_alike_and_an_exclusion_can_be_taken_back(
    run: Run, prolific: fake_prolific.Fake, database: Path, tmp_path: Path
) -> None:
    run("prolific", "create", "-o", "p.json", *TEXT, "--places", 3)
    (study,) = prolific.studies
    store, row = Store(database), prolific.submission(study)
    rated_by(row, study, store, tmp_path / "p.json", "-1")
    rater = next(people.ratings(store)).rater
    store.close()

    def export() -> set[str]:
        assert run("export", database, "-o", "r.csv") == "5 ratings in r.csv\n"
        text = (tmp_path / "r.csv").read_text()
        assert row["participant"] not in text and row["id"] not in text
        found = read_ratings([tmp_path / "r.csv"]).ratings
        assert {(r.workforce, r.rater) for r in found} == {("prolific", rater)}
        return {r.excluded for r in found}

    assert export() == {""}
    run("exclude", database, rater, "--why", "=a reason")
    assert export() == {"=a reason"}
    told = json.loads(run("agreement", "r.csv", "--json"))
    assert told["excluded"] == [{"rater": rater, "reason": "=a reason", "n": 5}]
    run("include", database, rater, "--why", "a mistake")
    assert export() == {""}
    assert "no such rater" in run("exclude", database, "r-nobody", "--why", "x", code=2)
    assert "no rating database" in run("export", "other.db", "-o", "r.csv", code=2)


def test_answers_stand_beside_the_submission_on_which_they_came(
    run: Run, prolific: fake_prolific.Fake, database: Path, tmp_path: Path
) -> None:
    run("prolific", "create", "-o", "p.json", *TEXT, "--places", 3)
    (study,) = prolific.studies
    store = Store(database)
    first, second = prolific.submission(study), prolific.submission(study)
    second["participant"] = first["participant"]
    for row, now in ((first, 1.7e9), (second, 1.7e9 + 3600)):
        rated_by(row, study, store, tmp_path / "p.json", "1", now)
    rater = next(people.ratings(store)).rater
    brought = [people.stay(store, "prolific", row["id"]).answers for row in (first, second)]
    store.close()

    def listed() -> list[tuple[int, int]]:
        told = json.loads(run("prolific", "submissions", "p.json", "--db", database, "--json"))
        return [(s["answers"], s["excluded"]) for s in told["submissions"]]

    assert brought == [3, 0] and listed() == [(3, 0), (0, 0)]
    run("exclude", database, rater, "--why", "x")
    assert listed() == [(0, 3), (0, 0)]


def test_a_server_without_a_token_says_that_it_cannot_check(
    run: Run, prolific: fake_prolific.Fake, database: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run("prolific", "create", "-o", "p.json", *TEXT, "--places", 3)
    monkeypatch.delenv("PROLIFIC_API_TOKEN")
    store = Store(database)
    assert platforms.doors(store, tmp_path / "p.json")[1] == ["prolific"]
    store.close()
    assert "PROLIFIC_API_TOKEN" in run("prolific", "submissions", "p.json", code=2)


def test_the_commands_of_the_pages_are_there() -> None:
    command = typer.main.get_command(app)
    for name in ("workforces", "ratings-schema"):
        page = (ROOT / f"docs/{name}.md").read_text().replace("\\\n", " ")
        blocks = "\n".join(re.findall(r"^ *```sh\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL))
        lines = [*blocks.splitlines(), *re.findall(r"`(epigone rate [^`]+)`", page)]
        assert lines
        for line in lines:
            words = shlex.split(line)[1:]
            found: Any = command
            while words and hasattr(found, "commands"):
                found = found.commands[words.pop(0)]
            known = {option for p in found.params for option in p.opts}
            assert {w for w in words if w.startswith("-") and len(w) > 1} <= known, line
