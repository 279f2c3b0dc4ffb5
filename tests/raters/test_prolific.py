from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epigone.errors import EndpointError, RequestRefused, UserError
from epigone.raters.workforces import Arrival, Door, NotAdmitted
from epigone.raters.workforces.asking import Asking
from epigone.raters.workforces.prolific import Prolific
from epigone.raters.workforces.prolific_client import Client, Cost, Draft, Settings
from epigone.raters.workforces.prolific_wire import Unclear

from .fake_prolific import TOKEN, Fake, serving

DRAFT = Draft("Compare answers", "pocket-1", "Which answer is better?",
              "https://rate.example/in/prolific", reward=150, minutes=10, places=30)  # fmt: skip
REASON = "Both attention checks asked in plain words for a certain answer; neither was given, " \
         "as the study's page said it would look for."  # fmt: skip


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setenv("PROLIFIC_API_TOKEN", TOKEN)
    with serving(Fake()) as found:
        yield found


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def client(fake: Fake, waits: list[float]) -> Iterator[Client]:
    made = Client(url=fake.url, seconds=0.5, sleep=waits.append)
    yield made
    made.close()


def created(client: Client) -> Settings:
    return client.create(DRAFT)[0]


def test_a_study_from_draft_to_payment(client: Client, fake: Fake) -> None:
    assert client.cost(150, 30, 10) == Cost(4500, 1500, 6000)
    settings, new = client.create(DRAFT)
    assert new and settings.code != settings.failed_code
    row = fake.studies[settings.study]
    assert row["status"] == "UNPUBLISHED" and row["reward"] == 150
    assert {a["action"] for c in row["completion_codes"] for a in c["actions"]} == {
        "MANUALLY_REVIEW"
    }
    assert client.publish(settings.study) == "ACTIVE"
    assert client.publish(settings.study) == "ACTIVE"
    fake.page = 2
    rows = [fake.submission(settings.study, "AWAITING REVIEW") for _ in range(5)]
    fake.submission("5" * 24)
    found = client.submissions(settings.study)
    assert [s.id for s in found] == [r["id"] for r in rows]
    assert [client.approve(found[0].id) for _ in range(2)] == ["APPROVED"] * 2
    assert client.reject(found[1].id, REASON, "FAILED_CHECK") == "REJECTED"
    assert fake.paid == [(found[0].id, 150)]


def test_a_study_is_made_once(client: Client, fake: Fake) -> None:
    first = created(client)
    fake.page = 1
    client.create(replace(DRAFT, internal="another"))
    assert client.create(DRAFT) == (first, False)
    assert len(fake.studies) == 2
    for change in ({"reward": 151}, {"places": 31}, {"url": "https://other.example"}):
        with pytest.raises(UserError, match=r"has another \w+: .*name another --name"):
            client.create(replace(DRAFT, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("failure", [500, 503, "cut", "silent", b'{"id": "57', b"<html>"])
def test_a_study_that_was_made_without_an_answer_is_found(
    client: Client, fake: Fake, failure: Any
) -> None:
    fake.failures = [None, ("+", failure)]
    settings, new = client.create(DRAFT)
    assert new and list(fake.studies) == [settings.study]


def test_a_study_of_which_nothing_is_known_is_not_made_again(client: Client, fake: Fake) -> None:
    fake.failures = [None, 500]
    with pytest.raises(Unclear, match="look on its pages"):
        client.create(DRAFT)
    assert fake.studies == {} and fake.calls.count("POST studies/") == 1


def test_publishing_is_not_repeated_blindly(client: Client, fake: Fake) -> None:
    study = created(client).study
    fake.failures = [None, ("+", "cut")]
    assert client.publish(study) == "ACTIVE"
    assert fake.calls.count(f"POST studies/{study}/transition/") == 1


@pytest.mark.parametrize("failure", [500, 502, 429, "cut", "silent", b"{", b"[]"])
def test_what_is_safe_is_tried_again(client: Client, fake: Fake, failure: Any) -> None:
    row = fake.submission(created(client).study)
    fake.failures = [failure, failure]
    assert client.submission(row["id"]).participant == row["participant"]


def test_waiting_as_long_as_prolific_asks_for(
    client: Client, fake: Fake, waits: list[float]
) -> None:
    study = created(client).study
    fake.failures = [(429, {"Retry-After": "17"}), 500, (429, {"Retry-After": "86400"})]
    client.study(study)
    assert waits == [17.0, 4.0, 60.0]
    fake.failures = [503] * 5
    with pytest.raises(EndpointError, match="tried 5 times"):
        client.study(study)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
def test_what_would_be_refused_again_is_asked_once(client: Client, fake: Fake, status: int) -> None:
    fake.failures = [status] * 3
    with pytest.raises(RequestRefused, match=f"HTTP {status}") as told:
        client.study("5" * 24)
    assert told.value.status == status and len(fake.calls) == 1


def test_the_token_is_told_to_nobody(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    monkeypatch.setenv("PROLIFIC_API_TOKEN", "an-old-token-that-leaks")
    with pytest.raises(RequestRefused) as told:
        Client(url=fake.url, sleep=waits.append).study("5" * 24)
    assert "an-old-token" not in str(told.value) and "PROLIFIC_API_TOKEN" in str(told.value)
    for wrong in ("", "two words", "ends\n"):
        monkeypatch.setenv("PROLIFIC_API_TOKEN", wrong)
        with pytest.raises(UserError, match="PROLIFIC_API_TOKEN holds no token"):
            Client(url=fake.url)


def test_places_only_grow(client: Client, fake: Fake) -> None:
    study = created(client).study
    assert client.grow(study, 40) == 30 and client.grow(study, 40) == 40
    with pytest.raises(UserError, match="only grow"):
        client.grow(study, 39)
    assert fake.studies[study]["total_available_places"] == 40


def test_a_rejection_has_a_reason(client: Client, fake: Fake) -> None:
    row = fake.submission(created(client).study, "AWAITING REVIEW")
    asked = len(fake.calls)
    with pytest.raises(UserError, match="100 characters"):
        client.reject(row["id"], "bad" + " " * 100, "OTHER")
    with pytest.raises(UserError, match="no category of Prolific's: BAD"):
        client.reject(row["id"], REASON, "BAD")
    with pytest.raises(UserError, match="no id of Prolific's"):
        client.reject("../studies", REASON, "OTHER")
    assert len(fake.calls) == asked


@pytest.mark.parametrize("failure", [500, "cut", "silent"])
def test_a_bonus_is_paid_at_most_once(client: Client, fake: Fake, failure: Any) -> None:
    study = created(client).study
    row = fake.submission(study, "APPROVED")
    bonus, cost = client.prepare_bonus(study, {row["id"]: 105})
    assert cost == Cost(105, 35, 140) and fake.paid == []
    fake.failures = [("+", failure)]
    with pytest.raises(Unclear):
        client.pay_bonus(bonus)
    assert fake.paid == [(row["id"], 105)]
    fake.settle()
    with pytest.raises(UserError, match="a bonus was paid"):
        client.prepare_bonus(study, {row["id"]: 105})
    with pytest.raises(UserError, match="1 cent or more"):
        client.prepare_bonus(study, {row["id"]: 0})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"url": "http://rate.example"}, "https address"),
        ({"url": "https://"}, "https address"),
        ({"reward": 0}, "reward of a study is 1 or more"),
        ({"places": -3}, "places of a study is 1 or more"),
        ({"description": " "}, "needs a text, description"),
    ],
)
def test_a_draft_that_prolific_would_refuse(
    client: Client, fake: Fake, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        client.create(replace(DRAFT, **change))
    assert fake.calls == []


SETTINGS = Settings("57d7" + "0" * 20, "AB12CD34", "EF56AB78")


def query(row: dict[str, Any]) -> dict[str, str]:
    return {
        "PROLIFIC_PID": row["participant"], "STUDY_ID": row["study_id"], "SESSION_ID": row["id"],
    }  # fmt: skip


def test_through_the_door(client: Client, fake: Fake) -> None:
    settings = created(client)
    row = fake.submission(settings.study)
    failed: list[str] = []
    door: Door = Prolific(settings, client, lambda arrival: arrival.worker in failed)
    arrival = door.arrive(query(row))
    assert arrival == Arrival(row["participant"], row["id"])
    home = "https://app.prolific.com/submissions/complete?cc="
    assert door.finish(arrival, 1, False).url == home + settings.code
    failed.append(row["participant"])
    assert door.finish(arrival, 1, False).url == home + settings.failed_code
    for of in ((0, False), (9, True)):
        ended = door.finish(arrival, *of)
        assert ended.kind == "message" and "return this task" in ended.text and not ended.url
    alone = Prolific(replace(settings, failed_code=""), failed=lambda arrival: True)
    assert alone.finish(arrival, 1, False).url == home + settings.code


@pytest.mark.parametrize(
    "change",
    [
        {"PROLIFIC_PID": ""},
        {"PROLIFIC_PID": "{{%PROLIFIC_PID%}}"},
        {"SESSION_ID": "../../users/me"},
        {"STUDY_ID": "6" * 24},
        {"PROLIFIC_PID": "1" * 24},  # somebody else's submission
        {"SESSION_ID": "1" * 24},  # one that nobody has
    ],
)
def test_who_is_not_admitted(client: Client, fake: Fake, change: dict[str, str]) -> None:
    settings = created(client)
    row = fake.submission(settings.study)
    door = Prolific(settings, client)
    assert door.arrive(query(row)).worker
    with pytest.raises(NotAdmitted):
        door.arrive(query(row) | change)


def test_made_up_visits_hold_nothing_up(client: Client, fake: Fake) -> None:
    now = [0.0]
    settings = created(client)
    asking = Asking("Prolific", most=1, patience=0.0, keep=30.0, clock=lambda: now[0])
    door = Prolific(settings, client, asking=asking)
    wrong = query(fake.submission(settings.study)) | {"SESSION_ID": "1" * 24}
    asked = f"GET submissions/{'1' * 24}/"
    for _ in range(3):
        with pytest.raises(NotAdmitted, match="does not know"):
            door.arrive(wrong)
    assert fake.calls.count(asked) == 1
    now[0] = 31.0
    with asking.about("another"), pytest.raises(NotAdmitted, match="cannot be asked now"):
        door.arrive(wrong)
    assert fake.calls.count(asked) == 1
    with pytest.raises(NotAdmitted, match="does not know"):
        door.arrive(wrong)
    assert fake.calls.count(asked) == 2


@pytest.mark.parametrize("status", ["APPROVED", "RETURNED", "TIMED-OUT", "REJECTED"])
def test_a_submission_that_has_ended(client: Client, fake: Fake, status: str) -> None:
    settings = created(client)
    with pytest.raises(NotAdmitted, match="ended"):
        Prolific(settings, client).arrive(query(fake.submission(settings.study, status)))


@pytest.mark.parametrize("failure", [401, 500, b'{"id": 3}'])
def test_nobody_comes_in_unseen_while_prolific_is_away(
    client: Client, fake: Fake, failure: Any
) -> None:
    settings = created(client)
    row = fake.submission(settings.study)
    fake.failures = [failure] * 5
    with pytest.raises(NotAdmitted, match="cannot be asked now"):
        Prolific(settings, client).arrive(query(row))


def test_settings_are_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "prolific.json"
    for _ in range(2):
        SETTINGS.write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Settings.read(path) == SETTINGS and [p.name for p in tmp_path.iterdir()] == [path.name]
    for wrong in ("{", "[]", '{"study": "x"}', path.read_text().replace("AB12", "A&cc=")):
        path.write_text(wrong)
        with pytest.raises(UserError, match="settings"):
            Settings.read(path)
    path.chmod(0o644)
    with pytest.raises(UserError, match="others can read"):
        Settings.read(path)
