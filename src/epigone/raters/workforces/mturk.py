"""Raters from Amazon Mechanical Turk: how they come in and go out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from epigone.errors import UserError
from epigone.raters.workforces import Arrival, Finish, NotAdmitted, unpaid
from epigone.raters.workforces.asking import Asking, Unknown
from epigone.raters.workforces.mturk_client import ID, Client, Settings
from epigone.schema import Workforce

SANDBOX, LIVE = "workersandbox.mturk.com", "www.mturk.com"
SUBMIT = "/mturk/externalSubmit"
PREVIEW = "ASSIGNMENT_ID_NOT_AVAILABLE"
_WORKER = re.compile(r"A[A-Z0-9]{1,63}")


class MTurk:
    """The door of one HIT: /in/mturk?assignmentId=…&hitId=…&workerId=…&turkSubmitTo=….

    Amazon shows the page in a frame: first as a preview, which rates nothing. With a client, Amazon
    is asked whether the assignment exists and is being worked on; who works on it, it does not
    tell before the end.
    """

    workforce: Workforce = "mturk"

    def __init__(self, settings: Settings, client: Client | None = None) -> None:
        self.settings, self.client = settings, client
        self._asking = Asking("Mechanical Turk")
        self.host = LIVE if settings.live else SANDBOX
        self.frame_ancestors: tuple[str, ...] = (f"https://{self.host}",)

    @property
    def blind(self) -> bool:
        """Whether there is no client to ask."""
        return self.client is None

    def arrive(self, query: Mapping[str, str]) -> Arrival:
        """Who comes, or a preview; raises NotAdmitted."""
        if query.get("hitId", self.settings.hit) != self.settings.hit:
            raise NotAdmitted("This link belongs to another HIT.")
        assignment = query.get("assignmentId", "")
        if assignment in ("", PREVIEW):
            return Arrival("", preview=True)
        worker = query.get("workerId", "")
        if not ID.fullmatch(assignment) or not _WORKER.fullmatch(worker) or "hitId" not in query:
            raise NotAdmitted("Please open this page from Mechanical Turk.")
        if _host(query.get("turkSubmitTo", "")) != self.host:
            raise NotAdmitted("This page can be handed in to Mechanical Turk only.")
        if self.client is not None:
            self._check(self.client, assignment)
        return Arrival(worker, assignment)

    def finish(self, arrival: Arrival, answers: int, excluded: bool) -> Finish:
        """A form to Amazon, which ends the assignment; none for no work."""
        if (nothing := unpaid(answers, excluded)) is not None:
            return nothing
        # Amazon takes no answer without a field beside the assignment.
        fields = {"assignmentId": arrival.submission, "rated": "yes"}
        return Finish("post", f"https://{self.host}{SUBMIT}", fields)

    def _check(self, client: Client, assignment: str) -> None:
        with self._asking.about(assignment):
            try:
                status = client.status(assignment)
            except UserError:
                raise self._asking.later() from None
            if status is None:
                raise Unknown
        if status:
            raise NotAdmitted("This assignment was handed in.")


def _host(url: str) -> str:
    """The host of an address to hand in at; empty for what is none of Amazon's."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    plain = parts.scheme == "https" and "@" not in parts.netloc and port in (None, 443)
    rest = parts.path in ("", "/", SUBMIT) and not parts.query and not parts.fragment
    return parts.hostname or "" if plain and rest else ""
