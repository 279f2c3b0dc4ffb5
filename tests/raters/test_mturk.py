from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigone.errors import EndpointError, MissingExtra, RequestRefused, UserError
from epigone.raters.workforces import Arrival, Door, NotAdmitted
from epigone.raters.workforces.mturk import MTurk
from epigone.raters.workforces.mturk_client import (
    Client,
    Cost,
    Draft,
    Settings,
    checked,
    cost,
    question,
)

from .fake_mturk import KEY, SPACE, Fake, serving

DRAFT = Draft("Compare answers", "pocket-1", "Which answer is better?",
              "https://rate.example/in/mturk?a=1&b=<2>", 150, minutes=30, places=9)  # fmt: skip
HIT = Settings("3HIT000000")


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Fake, Client]]:
    # Reading the service's description takes boto3 a while: one client does for all.
    pytest.importorskip("boto3")
    with pytest.MonkeyPatch.context() as patch, serving(Fake()) as fake:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-a-requester")
        patch.setenv("AWS_CONFIG_FILE", "/nowhere")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        yield fake, Client(url=fake.url, seconds=2.0)


@pytest.fixture
def fake(served: tuple[Fake, Client], monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    served[0].__dict__.update(Fake(url=served[0].url).__dict__)
    return served[0]


@pytest.fixture
def client(served: tuple[Fake, Client], fake: Fake) -> Client:
    return served[1]


def test_a_hit_from_draft_to_payment(client: Client, fake: Fake) -> None:
    assert client.balance() == "10000.00"
    hit, new = client.create(DRAFT)
    assert new and client.create(DRAFT) == (hit, False)
    row = fake.hits[hit]
    assert (row["Reward"], row["MaxAssignments"]) == ("1.50", 9)
    assert client.draft(hit) == (150, 9)
    assert ET.fromstring(row["Question"]).findtext(f"{SPACE}ExternalURL") == DRAFT.url
    fake.page = 2
    rows = [fake.assignment(hit) for _ in range(5)]
    fake.assignment("3OTHER")
    fake.assignment(hit, "")
    found = client.assignments(hit)
    assert [a.id for a in found] == [r["AssignmentId"] for r in rows]
    for _ in range(2):
        client.approve(found[0].id)
        client.reject(found[1].id, "neither attention check was passed")
    assert fake.paid == [(found[0].id, "1.50")]
    assert [a.status for a in client.assignments(hit)][:3] == ["Approved", "Rejected", "Submitted"]
    with pytest.raises(RequestRefused):
        client.reject(found[0].id, "too late")
    assert [client.bonus(found[0], 105, "thanks") for _ in range(2)] == [True, False]
    assert [b["BonusAmount"] for b in fake.bonuses] == ["1.05"]


def test_a_name_finds_the_hit_that_goes_on(client: Client, fake: Fake) -> None:
    hit, _ = client.create(DRAFT)
    with pytest.raises(UserError, match=r"has another Reward: 1\.50"):
        client.create(replace(DRAFT, reward=160))
    # One that is over is not handed out again, also while Amazon remembers its token.
    fake.hits[hit]["HITStatus"] = "Reviewable"
    second, new = client.create(DRAFT)
    assert new and second != hit and client.find(DRAFT) == second
    fake.hits[second]["Expiration"] = 1.0e9
    assert client.find(DRAFT) == ""
    row = fake.hits[second]
    assert row["AutoApprovalDelayInSeconds"] == 7 * 86_400
    assert [q["IntegerValues"] for q in row["QualificationRequirements"]] == [[97], [500]]


@pytest.mark.parametrize("failure", ["cut", (500, "ServiceFault"), (503, "ServiceUnavailable")])
def test_an_answer_that_was_lost_makes_nothing_twice(
    client: Client, fake: Fake, failure: Any
) -> None:
    fake.failures = [None, ("+", failure)]
    hit, _ = client.create(DRAFT)
    assert list(fake.hits) == [hit] and fake.calls.count("CreateHIT") == 2
    row = fake.assignment(hit)
    fake.failures = [("+", failure)]
    client.approve(row["AssignmentId"])
    assert len(fake.paid) == 1
    (found,) = client.assignments(hit)
    fake.failures = [None, ("+", failure)]
    client.bonus(found, 10, "thanks")
    assert len(fake.bonuses) == 1


def test_a_token_that_amazon_has_forgotten(client: Client, fake: Fake) -> None:
    hit, _ = client.create(DRAFT)
    fake.assignment(hit)
    (found,) = client.assignments(hit)
    client.bonus(found, 10, "thanks")
    fake.tokens.clear()
    assert client.create(DRAFT) == (hit, False) and not client.bonus(found, 10, "thanks")


@pytest.mark.parametrize("failure", [(400, "ThrottlingException"), (500, "ServiceFault"), "cut"])
def test_what_may_pass_is_tried_again_and_ends(client: Client, fake: Fake, failure: Any) -> None:
    fake.failures = [failure] * 3
    assert client.balance() == "10000.00" and len(fake.calls) == 4
    fake.failures = [failure] * 9
    with pytest.raises(EndpointError) as told:
        client.balance()
    assert len(fake.calls) == 8 and "a-secret" not in str(told.value)


@pytest.mark.parametrize("failure", [(403, "AccessDeniedException"), (400, "RequestError"),
                                     (404, "ResourceNotFoundException")])  # fmt: skip
def test_what_would_be_refused_again_is_asked_once(
    client: Client, fake: Fake, failure: Any
) -> None:
    fake.failures = [failure] * 3
    with pytest.raises(RequestRefused, match=failure[1]) as told:
        client.balance()
    assert told.value.status == failure[0] and len(fake.calls) == 1


def test_an_answer_that_is_broken(client: Client, fake: Fake) -> None:
    fake.failures = ["broken"]
    with pytest.raises(EndpointError, match="cannot be read"):
        client.balance()
    fake.failures = [None, ("+", "broken")]
    with pytest.raises(EndpointError, match="run the same command again"):
        client.create(DRAFT)
    assert client.create(DRAFT) == ("3HIT000000", False) and len(fake.hits) == 1


def test_costs_worked_by_hand() -> None:
    # 20% of $1.50 is 30 cents; from ten assignments on it is 60.
    assert cost(150, 9) == Cost(1350, 270) and cost(150, 9).total == 1620
    assert cost(150, 10) == Cost(1500, 600) and cost(150, 10, 2) == Cost(300, 120)
    # One cent at least; half a cent is rounded up: 20% of 8 cents is 1.6.
    assert cost(1, 9).fees == 9
    assert cost(8, 9).fees == 18


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=80))
def test_no_address_breaks_out_of_its_question(text: str) -> None:
    url = f"https://rate.example/?q={text}]]></ExternalURL>"
    root = ET.fromstring(question(url))
    assert root.findtext(f"{SPACE}ExternalURL") == url and len(root) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"url": "http://rate.example"}, "https address"),
        ({"url": "https://rate.example/\x00"}, "https address"),
        ({"url": "https://rate.example/" + "x" * 65_536}, "too long for a question"),
        ({"url": "https://rate.example/?" + "&" * 14_000}, "too long for a question"),
        ({"reward": 0}, "reward of a HIT is 1 or more"),
        ({"title": ""}, "needs a text, title"),
    ],
)
def test_a_draft_that_amazon_would_refuse(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        checked(replace(DRAFT, **change))


def test_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtra, match=r"epigone\[mturk\]"):
        Client()


QUERY = {"assignmentId": "3ASSIGN0000", "hitId": HIT.hit, "workerId": "A1WORKER0000",
         "turkSubmitTo": "https://workersandbox.mturk.com"}  # fmt: skip


@pytest.mark.parametrize("path", ["", "/", "/mturk/externalSubmit"])
def test_through_the_door(path: str) -> None:
    door: Door = MTurk(HIT)
    arrival = door.arrive(QUERY | {"turkSubmitTo": QUERY["turkSubmitTo"] + path})
    assert arrival == Arrival("A1WORKER0000", "3ASSIGN0000")
    finish = door.finish(arrival, 1, False)
    assert (finish.kind, finish.url) == (
        "post", "https://workersandbox.mturk.com/mturk/externalSubmit",
    )  # fmt: skip
    assert finish.fields["assignmentId"] == "3ASSIGN0000" and len(finish.fields) > 1
    # Nothing is handed in for nothing.
    assert [door.finish(arrival, *of).kind for of in ((0, False), (9, True))] == ["message"] * 2
    assert door.frame_ancestors == ("https://workersandbox.mturk.com",)
    live = replace(HIT, live=True)
    assert MTurk(live).frame_ancestors == ("https://www.mturk.com",)
    assert MTurk(live).arrive(QUERY | {"turkSubmitTo": "https://www.mturk.com"}).worker


def test_a_preview_rates_nothing() -> None:
    for query in ({"assignmentId": "ASSIGNMENT_ID_NOT_AVAILABLE", "hitId": HIT.hit}, {}):
        assert MTurk(HIT).arrive(query) == Arrival("", preview=True)


@pytest.mark.parametrize(
    "change",
    [
        {"turkSubmitTo": url}
        for url in (
            "", "http://workersandbox.mturk.com", "https://www.mturk.com", "https://mturk.com",
            "https://workersandbox.mturk.com.evil.example", "https://evil.example/mturk.com",
            "https://workersandbox.mturk.com@evil.example", "https://a:b@workersandbox.mturk.com",
            "https://workersandbox.mturk.com:8443", "https://workersandbox.mturk.com/elsewhere",
            "https://workersandbox.mturk.com/?next=https://evil.example", "javascript:alert(1)",
            "https://workersandbox.mturk.com\\@evil.example", "https://[",
            "//workersandbox.mturk.com",
            "https://workersandbox.mturk.com:x",
        )
    ]
    + [
        {"hitId": "3HITOTHER"}, {"workerId": ""}, {"workerId": "B1"}, {"workerId": "A1<script>"},
        {"assignmentId": "3assign"}, {"assignmentId": "../x"},
    ],
)  # fmt: skip
def test_who_is_not_admitted(change: dict[str, str]) -> None:
    with pytest.raises(NotAdmitted):
        MTurk(HIT).arrive(QUERY | change)


def test_an_assignment_that_amazon_is_asked_about(client: Client, fake: Fake) -> None:
    door = MTurk(HIT, client)
    with pytest.raises(NotAdmitted, match="does not know"):
        door.arrive(QUERY | {"assignmentId": "3ASSIGN9999"})
    row = fake.assignment(HIT.hit, "")
    assert door.arrive(QUERY).submission == row["AssignmentId"]
    row["AssignmentStatus"] = "Submitted"
    with pytest.raises(NotAdmitted, match="was handed in"):
        door.arrive(QUERY)
    fake.failures = [(503, "ServiceFault")] * 9
    with pytest.raises(NotAdmitted, match="cannot be asked now"):
        door.arrive(QUERY)


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "mturk.json"
    for settings in (HIT, replace(HIT, live=True)):
        settings.write(path)
        assert Settings.read(path) == settings
    path.write_text('{"hit": "3HIT", "site": "staging"}')
    with pytest.raises(UserError, match="no settings of a HIT"):
        Settings.read(path)
