"""Prolific's API: studies made and published, submissions looked at, paid or turned down."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from epigone.errors import UserError
from epigone.raters.workforces.kept import read_private, write_private
from epigone.raters.workforces.prolific_wire import Unclear, Wire

# What Prolific takes for a reason to reject, beside a message of so many characters.
CATEGORIES = (
    "TOO_QUICKLY", "TOO_SLOWLY", "FAILED_INSTRUCTIONS", "INCOMP_LONGITUDINAL", "FAILED_CHECK",
    "LOW_EFFORT", "MALINGERING", "NO_CODE", "BAD_CODE", "NO_DATA", "UNSUPP_DEVICE", "OTHER",
)  # fmt: skip
SHORTEST_MESSAGE = 100
ID = re.compile(r"[0-9a-zA-Z]{12,64}")
_CODE = re.compile(r"[0-9A-Za-z]{4,64}")
_BONUS = re.compile(r"[0-9a-zA-Z-]{12,64}")
# Prolific fills these in when it sends a participant.
PLACES = {name: f"{{{{%{name}%}}}}" for name in ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID")}
_TYPES = ("COMPLETED", "FAILED_ATTENTION_CHECK")
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Settings:
    """What the door of one Prolific study needs: its id and the codes that end a submission."""

    study: str
    code: str
    failed_code: str = ""

    def write(self, path: Path) -> None:
        """Keep them in a file of the owner alone: who knows a code may be paid without rating."""
        write_private(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Settings:
        """The inverse of `write`; raises UserError for a file that is none."""
        row = read_private(path, ("study", "code", "failed_code"), "epigone rate prolific create")
        good = ID.fullmatch(row["study"]) and _CODE.fullmatch(row["code"])
        if not good or not _CODE.fullmatch(row["failed_code"] or row["code"]):
            raise UserError("no settings of a Prolific study", value=str(path),
                            fix="epigone rate prolific create")  # fmt: skip
        return cls(**row)


@dataclass(frozen=True, slots=True)
class Draft:
    """A study to create: `reward` is what one participant gets, in cents of the account's currency.

    `internal` is a name of our own by which the study is found again.
    """

    name: str
    internal: str
    description: str
    url: str
    reward: int
    minutes: int
    places: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a study costs in all, with the provider's fees and taxes, in cents."""

    rewards: int
    fees: int
    total: int


@dataclass(frozen=True, slots=True)
class Submission:
    """A participant's submission; `bonuses` are paid ones, in cents."""

    id: str
    study: str
    participant: str
    status: str
    bonuses: tuple[float, ...] = ()


class Client(Wire):
    """Asks Prolific's API.

    Methods raise what `Wire` does, and UserError for what Prolific would refuse.
    """

    def cost(self, reward: int, places: int, minutes: int) -> Cost:
        """What Prolific says that a study costs."""
        body = {
            "reward": reward, "total_available_places": places,
            "estimated_completion_time": minutes,
        }  # fmt: skip
        total = self.told(
            "POST", "study-cost-calculator/", lambda row: _cents(row["total_cost"]), body
        )
        return Cost(reward * places, total - reward * places, total)

    def create(self, draft: Draft) -> tuple[Settings, bool]:
        """A draft on Prolific, which costs nothing yet, and whether it was made only now.

        A study of the same internal name is taken: a first try may have made it.
        """
        checked(draft)
        if (known := self.find(draft)) is not None:
            return known, False
        codes = [secrets.token_hex(4).upper() for _ in range(2)]
        body = {
            **_body(draft),
            "internal_name": draft.internal,
            "prolific_id_option": "url_parameters",
            "device_compatibility": ["desktop", "tablet", "mobile"],
            "completion_codes": [
                # Nobody is paid or turned down without somebody having looked.
                {"code": code, "code_type": kind, "actor": "participant",
                 "actions": [{"action": "MANUALLY_REVIEW"}]}
                for code, kind in zip(codes, _TYPES, strict=True)
            ],
        }  # fmt: skip
        try:
            return self.told("POST", "studies/", _settings, body, repeat=False), True
        except Unclear:
            if (known := self.find(draft)) is not None:
                return known, True
            raise

    def study(self, study: str) -> dict[str, Any]:
        """A study as Prolific tells of it."""
        return self.told("GET", f"studies/{_id(study)}/", dict)

    def publish(self, study: str) -> str:
        """Show a study to participants, which sets its cost aside; its status is returned."""
        status = str(self.study(study)["status"])
        if status != "UNPUBLISHED":
            return status
        body = {"action": "PUBLISH"}
        try:
            path = f"studies/{_id(study)}/transition/"
            return self.told("POST", path, lambda row: str(row["status"]), body, repeat=False)
        except Unclear:
            if (status := str(self.study(study)["status"])) != "UNPUBLISHED":
                return status
            raise

    def grow(self, study: str, places: int) -> int:
        """Have a study admit `places` participants in all; how many it did is returned."""
        before = int(self.study(study)["total_available_places"])
        if places < before:
            raise UserError("places of a study only grow", value=places, fix=f"{before} or more")
        if places > before:
            # The number in all is sent, so that sending it twice changes nothing.
            body = {"total_available_places": places}
            self.told("PATCH", f"studies/{_id(study)}/", dict, body)
        return before

    def submissions(self, study: str) -> list[Submission]:
        """All submissions to a study."""
        rows = self._pages("submissions/", {"study": _id(study)})
        return [_submission({"study_id": study, **row}) for row in rows]

    def submission(self, submission: str) -> Submission:
        """One submission."""
        return self.told("GET", f"submissions/{_id(submission)}/", _submission)

    def approve(self, submission: str) -> str:
        """Pay for a submission; its status is returned. Approving twice pays once."""
        return self._transition(submission, {"action": "APPROVE"})

    def reject(self, submission: str, message: str, category: str) -> str:
        """Turn a submission down; the participant reads the message, of 100 characters or more."""
        if len(message.strip()) < SHORTEST_MESSAGE:
            raise UserError(f"Prolific wants a reason of {SHORTEST_MESSAGE} characters or more",
                            value=message, fix="say what was missing")  # fmt: skip
        if category not in CATEGORIES:
            raise UserError("no category of Prolific's", value=category, fix=", ".join(CATEGORIES))
        body = {"action": "REJECT", "message": message.strip(), "rejection_category": category}
        return self._transition(submission, body)

    def prepare_bonus(self, study: str, cents: Mapping[str, int]) -> tuple[str, Cost]:
        """Set up bonuses by submission, and what they cost; nothing is paid.

        Raises UserError where a submission has had a bonus: paying again would pay twice.
        """
        for submission, amount in cents.items():
            if amount < 1:
                raise UserError("a bonus is 1 cent or more", value=amount)
            if self.submission(submission).bonuses:
                raise UserError("a bonus was paid for this submission", value=submission,
                                fix="pay another one on Prolific's pages")  # fmt: skip
        lines = "\n".join(f"{_id(s)},{c // 100}.{c % 100:02d}" for s, c in cents.items())
        body = {"study_id": _id(study), "csv_bonuses": lines}
        path = "submissions/bonus-payments/"
        return self.told("POST", path, lambda row: (_bonus(row["id"]), _bonus_cost(row)), body)

    def pay_bonus(self, bonus: str) -> None:
        """Pay what was set up, within minutes; never tried twice, as it would pay twice."""
        self.sent("POST", f"bulk-bonus-payments/{_bonus(bonus)}/pay/", {}, repeat=False)

    def _transition(self, submission: str, body: Mapping[str, Any]) -> str:
        path = f"submissions/{_id(submission)}/transition/"
        return self.told("POST", path, lambda row: str(row["status"]), body)

    def find(self, draft: Draft) -> Settings | None:
        """The study of a draft's name; raises UserError where it is another one than the draft."""
        for row in self._pages("studies/", {}):
            if row.get("internal_name") == draft.internal:
                return self.told("GET", f"studies/{_id(row['id'])}/",
                                 lambda found: _settings(_same(found, draft)))  # fmt: skip
        return None

    def _pages(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        number, more = 1, True
        while more:
            asked = urlencode({**query, "page": number, "page_size": _PAGE})
            rows, more = self.told("GET", f"{path}?{asked}", _page)
            yield from rows
            number += 1


def checked(draft: Draft) -> Draft:
    """The draft; raises UserError for one that Prolific would refuse, or nobody should send."""
    parts = urlsplit(draft.url)
    if parts.scheme != "https" or not parts.hostname:
        raise UserError("participants come to an https address", value=draft.url)
    for name in ("name", "internal", "description"):
        if not getattr(draft, name).strip():
            raise UserError(f"a study needs a text, {name}")
    for name in ("reward", "minutes", "places"):
        if getattr(draft, name) < 1:
            raise UserError(f"{name} of a study is 1 or more", value=getattr(draft, name))
    return draft


def _body(draft: Draft) -> dict[str, Any]:
    return {
        "name": draft.name,
        "description": draft.description,
        "external_study_url": _with_places(draft.url),
        "reward": draft.reward,
        "estimated_completion_time": draft.minutes,
        "total_available_places": draft.places,
    }


def _same(row: dict[str, Any], draft: Draft) -> dict[str, Any]:
    for name, wanted in _body(draft).items():
        if row[name] != wanted:
            raise UserError(f"the study of this name, {row['id']}, has another {name}",
                            value=row[name], fix="name another --name")  # fmt: skip
    return row


def _with_places(url: str) -> str:
    # The braces and percent signs are Prolific's, and would be lost if they were quoted.
    query = "&".join(f"{name}={place}" for name, place in PLACES.items())
    return f"{url}{'&' if '?' in url else '?'}{query}"


def _id(value: Any) -> str:
    """An id that stands in a path; raises UserError for what is none."""
    if not isinstance(value, str) or not ID.fullmatch(value):
        raise UserError("no id of Prolific's", value=value)
    return value


def _bonus(value: Any) -> str:
    if not isinstance(value, str) or not _BONUS.fullmatch(value):
        raise UserError("no id of Prolific's", value=value)
    return value


def _cents(value: Any) -> int:
    return round(float(value))


def _bonus_cost(row: Mapping[str, Any]) -> Cost:
    amount, total = _cents(row["amount"]), _cents(row["total_amount"])
    return Cost(amount, total - amount, total)


def _settings(row: Mapping[str, Any]) -> Settings:
    codes = {each["code_type"]: str(each["code"]) for each in row["completion_codes"]}
    return Settings(_id(row["id"]), codes[_TYPES[0]], codes.get(_TYPES[1], ""))


def _submission(row: Mapping[str, Any]) -> Submission:
    return Submission(
        id=_id(row["id"]),
        study=str(row["study_id"]),
        participant=str(row.get("participant") or row["participant_id"]),
        status=str(row["status"]),
        bonuses=tuple(float(b) for b in row.get("bonus_payments") or ()),
    )


def _page(row: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    following = ((row.get("_links") or {}).get("next") or {}).get("href")
    rows = row["results"]
    return list(rows), bool(following and rows)
