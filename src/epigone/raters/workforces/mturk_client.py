"""Amazon Mechanical Turk's requester API: HITs made, assignments looked at, paid or turned down."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from epigone.errors import EndpointError, MissingExtra, RequestRefused, UserError
from epigone.raters.workforces.kept import read_private, write_private

URLS = {
    False: "https://mturk-requester-sandbox.us-east-1.amazonaws.com",
    True: "https://mturk-requester.us-east-1.amazonaws.com",
}
# boto3's own variable for the address of a stand-in.
STAND_IN = "AWS_ENDPOINT_URL_MTURK"
NAMESPACE = (
    "http://mechanicalturk.amazonaws.com/AWSMechanicalTurkDataSchemas/2006-07-14/"
    "ExternalQuestion.xsd"
)
LARGEST_QUESTION = 65_535
ID = re.compile(r"[A-Z0-9]{1,64}")
# Amazon's fee is a share of what workers get, one cent an assignment at least; more for many.
_FEE, _FEE_OF_MANY, _MANY = Decimal("0.20"), Decimal("0.40"), 10
_CENT = Decimal("0.01")
_APPROVED_SHARE = "000000000000000000L0"
_APPROVED_NUMBER = "00000000000000000040"
_TURK = "AWS.MechanicalTurk."
_THERE = frozenset({"hitalreadyexists", "duplicaterequest"})
# What makes a HIT another one than a draft of its name.
_COMPARED = frozenset(
    {"Title", "Description", "Reward", "MaxAssignments", "AssignmentDurationInSeconds", "Question"}
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the door of one HIT needs: its id, and whether it pays real money."""

    hit: str
    live: bool = False

    def write(self, path: Path) -> None:
        """Keep them in a file of the owner alone."""
        write_private(path, {"hit": self.hit, "site": "live" if self.live else "sandbox"})

    @classmethod
    def read(cls, path: Path) -> Settings:
        """The inverse of `write`; raises UserError for a file that is none."""
        row = read_private(path, ("hit", "site"), "epigone rate mturk create")
        if not ID.fullmatch(row["hit"]) or row["site"] not in ("live", "sandbox"):
            raise UserError("no settings of a HIT", value=str(path),
                            fix="epigone rate mturk create")  # fmt: skip
        return cls(row["hit"], row["site"] == "live")


@dataclass(frozen=True, slots=True)
class Draft:
    """A HIT to create: `reward` is what one assignment pays, in cents of US dollars.

    `internal` is a name of our own by which the HIT is found again. Workers need `approved` per
    cent of at least `known` earlier assignments approved; what nobody decided on is paid after
    `pays_after` days.
    """

    title: str
    internal: str
    description: str
    url: str
    reward: int
    minutes: int
    places: int
    days: int = 7
    approved: int = 97
    known: int = 500
    pays_after: int = 7


@dataclass(frozen=True, slots=True)
class Cost:
    """What a HIT costs if every assignment is approved, in cents of US dollars."""

    rewards: int
    fees: int

    @property
    def total(self) -> int:
        """Both."""
        return self.rewards + self.fees


@dataclass(frozen=True, slots=True)
class Assignment:
    """A worker's assignment that was handed in: Submitted, Approved or Rejected."""

    id: str
    worker: str
    hit: str
    status: str


class Client:
    """Asks Amazon with the keys of the environment, as boto3 does; the sandbox unless `live`.

    Requests that make a HIT or pay carry a token, so that they are safe to try again, for which
    Amazon knows them for 24 hours; for longer, what is there is looked at first. Methods raise
    RequestRefused for what would be refused again, EndpointError for no answer.
    """

    def __init__(
        self, *, live: bool = False, url: str = "", seconds: float = 30.0, attempts: int = 4
    ) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise MissingExtra("Mechanical Turk", "mturk") from None
        config = Config(
            connect_timeout=seconds, read_timeout=seconds,
            retries={"mode": "standard", "total_max_attempts": attempts},
        )  # fmt: skip
        self.live = live
        with _told():
            self._mturk = boto3.client(
                "mturk",
                region_name="us-east-1",
                endpoint_url=url or os.environ.get(STAND_IN) or URLS[live],
                config=config,
            )

    def balance(self) -> str:
        """What the account has, in US dollars; the sandbox always has 10,000."""
        with _told():
            return str(self._mturk.get_account_balance()["AvailableBalance"])

    def create(self, draft: Draft) -> tuple[str, bool]:
        """The id of a HIT that workers see from now on, and whether it was made only now.

        A HIT of the same internal name that workers can still see is taken.
        """
        checked(draft)
        known, ended = self._find(draft.internal)
        if known:
            return self._same(known, draft), False
        # A name may be used again, though Amazon remembers its token.
        row = {**_hit(draft), "UniqueRequestToken": _token("hit", draft.internal, *ended)}
        with _told():
            try:
                made = self._mturk.create_hit(**row)
            except self._mturk.exceptions.RequestError as error:
                # A first try, whose answer was lost.
                known = self._find(draft.internal)[0] if _code(error) in _THERE else ""
                if not known:
                    raise
                return known, False
            return str(made["HIT"]["HITId"]), True

    def find(self, draft: Draft) -> str:
        """The HIT of a draft's name that workers can see, empty for none.

        Raises UserError where it is another one than the draft.
        """
        known, _ = self._find(draft.internal)
        return self._same(known, draft) if known else ""

    def draft(self, hit: str) -> tuple[int, int]:
        """A HIT's reward in cents, and how many assignments it has in all."""
        with _told():
            row = self._mturk.get_hit(HITId=_id(hit))["HIT"]
            return int(Decimal(row["Reward"]) / _CENT), int(row["MaxAssignments"])

    def assignments(self, hit: str) -> list[Assignment]:
        """All assignments of a HIT that were handed in."""
        call = self._mturk.list_assignments_for_hit
        return [
            Assignment(a["AssignmentId"], a["WorkerId"], a["HITId"], a["AssignmentStatus"])
            for a in _pages(call, "Assignments", HITId=_id(hit))
        ]

    def status(self, assignment: str) -> str | None:
        """Submitted, Approved or Rejected; empty while it is worked on; None if there is none."""
        with _told():
            try:
                found = self._mturk.get_assignment(AssignmentId=_id(assignment))
            except self._mturk.exceptions.RequestError as error:
                if _code(error) == "invalidassignmentstate":
                    return ""
                if _code(error) == "assignmentdoesnotexist":
                    return None
                raise
            return str(found["Assignment"]["AssignmentStatus"])

    def approve(self, assignment: str) -> None:
        """Pay for an assignment; approving twice pays once."""
        self._end("Approved", self._mturk.approve_assignment, assignment)

    def reject(self, assignment: str, reason: str) -> None:
        """Turn an assignment down; the worker reads the reason."""
        if not reason.strip():
            raise UserError("a rejection has a reason", value=assignment)
        call = self._mturk.reject_assignment
        self._end("Rejected", call, assignment, RequesterFeedback=reason.strip())

    def bonus(self, assignment: Assignment, cents: int, reason: str) -> bool:
        """Pay a bonus, once for one assignment; whether it was paid only now."""
        if cents < 1 or not reason.strip():
            raise UserError("a bonus is 1 cent or more, and has a reason", value=cents)
        call = self._mturk.list_bonus_payments
        if any(_pages(call, "BonusPayments", AssignmentId=_id(assignment.id))):
            return False
        with _told():
            try:
                self._mturk.send_bonus(
                    WorkerId=assignment.worker,
                    AssignmentId=assignment.id,
                    BonusAmount=dollars(cents),
                    Reason=reason.strip(),
                    UniqueRequestToken=_token("bonus", assignment.id),
                )
            except self._mturk.exceptions.RequestError as error:
                if _code(error) not in _THERE:
                    raise
                return False
        return True

    def _end(self, status: str, call: Callable[..., Any], assignment: str, **more: str) -> None:
        with _told():
            try:
                call(AssignmentId=_id(assignment), **more)
            except self._mturk.exceptions.RequestError:
                # Asked again after an answer that was lost, Amazon refuses.
                if self.status(assignment) != status:
                    raise

    def _find(self, internal: str) -> tuple[str, list[str]]:
        """The HIT of a name that goes on, and those that have ended."""
        rows = [row for row in _pages(self._mturk.list_hits, "HITs")
                if row.get("RequesterAnnotation") == internal]  # fmt: skip
        going = [str(row["HITId"]) for row in rows if _goes_on(row)]
        return (going[0] if going else "", sorted({str(row["HITId"]) for row in rows} - {*going}))

    def _same(self, hit: str, draft: Draft) -> str:
        with _told():
            row = self._mturk.get_hit(HITId=_id(hit))["HIT"]
        for name, wanted in _hit(draft).items():
            if name in _COMPARED and row.get(name) != wanted:
                raise UserError(f"the HIT of this name, {hit}, has another {name}",
                                value=row.get(name), fix="name another --name")  # fmt: skip
        return hit


def has_keys() -> bool:
    """Whether boto3 is there and finds keys."""
    try:
        import boto3
    except ImportError:
        return False
    return boto3.Session().get_credentials() is not None


def cost(reward: int, places: int, paid: int | None = None) -> Cost:
    """What a HIT of `places` assignments costs with Amazon's fee, if all or `paid` are approved.

    The fee is a share of the `reward`, in cents, and twice as high from ten assignments on.
    """
    share = _FEE_OF_MANY if places >= _MANY else _FEE
    fee = max(_CENT, (Decimal(reward) * _CENT * share).quantize(_CENT, ROUND_HALF_UP))
    n = places if paid is None else paid
    return Cost(reward * n, int(fee / _CENT) * n)


def dollars(cents: int) -> str:
    """An amount as Amazon writes it."""
    return f"{cents // 100}.{cents % 100:02d}"


def question(url: str) -> str:
    """The ExternalQuestion that shows a page, which decides its height itself."""
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?><ExternalQuestion xmlns="{NAMESPACE}">'
        f"<ExternalURL>{escape(url)}</ExternalURL><FrameHeight>0</FrameHeight></ExternalQuestion>"
    )
    if len(text.encode()) > LARGEST_QUESTION:
        raise UserError("the address is too long for a question", value=len(url))
    return text


def checked(draft: Draft) -> None:
    """Raise UserError for a HIT that Amazon would refuse, or nobody should make."""
    parts = urlsplit(draft.url)
    if parts.scheme != "https" or not parts.hostname or not draft.url.isprintable():
        raise UserError("workers come to an https address", value=draft.url)
    for name in ("title", "internal", "description"):
        if not getattr(draft, name).strip():
            raise UserError(f"a HIT needs a text, {name}")
    for name in ("reward", "minutes", "places", "days", "pays_after"):
        if getattr(draft, name) < 1:
            raise UserError(f"{name} of a HIT is 1 or more", value=getattr(draft, name))
    question(draft.url)


def _hit(draft: Draft) -> dict[str, Any]:
    wanted = ((_APPROVED_SHARE, draft.approved), (_APPROVED_NUMBER, draft.known))
    return {
        "Title": draft.title,
        "Description": draft.description,
        "Keywords": "rating, comparison, text, quality",
        "Reward": dollars(draft.reward),
        "MaxAssignments": draft.places,
        "LifetimeInSeconds": draft.days * 86_400,
        "AssignmentDurationInSeconds": draft.minutes * 60,
        "AutoApprovalDelayInSeconds": draft.pays_after * 86_400,
        "Question": question(draft.url),
        "RequesterAnnotation": draft.internal,
        "QualificationRequirements": [
            {
                "QualificationTypeId": kind,
                "Comparator": "GreaterThanOrEqualTo",
                "IntegerValues": [least],
                "ActionsGuarded": "PreviewAndAccept",
            }
            for kind, least in wanted
            if least > 0
        ],
    }


def _goes_on(row: Mapping[str, Any]) -> bool:
    ends = row.get("Expiration")
    gone = ends is not None and ends <= datetime.now(ends.tzinfo)
    return row.get("HITStatus") in ("Assignable", "Unassignable") and not gone


def _pages(call: Callable[..., Any], name: str, **asked: Any) -> Iterator[Mapping[str, Any]]:
    more: dict[str, str] = {}
    while True:
        with _told():
            found = call(MaxResults=100, **asked, **more)
        yield from found[name]
        if not found.get("NextToken"):
            return
        more = {"NextToken": found["NextToken"]}


@contextmanager
def _told() -> Iterator[None]:
    """Tell boto3's errors as ours; they hold no keys."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        told = error.response.get("Error", {})
        what = f"Mechanical Turk refuses: {told.get('Code', '')}"
        if status >= 500 or "Throttling" in str(told.get("Code")):
            raise EndpointError("Mechanical Turk did not answer", value=str(told.get("Message")),
                                fix="try again later") from None  # fmt: skip
        raise RequestRefused(what, status=status, value=str(told.get("Message"))) from None
    except BotoCoreError as error:
        raise EndpointError("Mechanical Turk cannot be asked", value=str(error),
                            fix="check keys and network") from None  # fmt: skip
    except (KeyError, TypeError):
        # boto3 makes an empty answer of one that ends too early.
        raise EndpointError("Mechanical Turk's answer cannot be read",
                            fix="run the same command again") from None  # fmt: skip


def _code(error: Any) -> str:
    """What Amazon says is wrong, in small letters: it spells some codes in two ways."""
    told = str(error.response.get("TurkErrorCode") or error.response["Error"].get("Code", ""))
    return told.removeprefix(_TURK).lower()


def _token(*what: str) -> str:
    return hashlib.sha256("\0".join(what).encode()).hexdigest()


def _id(value: str) -> str:
    if not ID.fullmatch(value):
        raise UserError("no id of Mechanical Turk's", value=value)
    return value
