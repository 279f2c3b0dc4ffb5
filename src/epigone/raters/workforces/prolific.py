"""Raters from Prolific: how they come in and go out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from epigone.errors import RequestRefused, UserError
from epigone.raters.workforces import Arrival, Finish, NotAdmitted, unpaid
from epigone.raters.workforces.asking import Asking, Unknown
from epigone.raters.workforces.prolific_client import ID, PLACES, Client, Settings
from epigone.schema import Workforce

COMPLETE = "https://app.prolific.com/submissions/complete"
_AT_WORK = ("RESERVED", "ACTIVE")


class Prolific:
    """The door of one Prolific study: /in/prolific?PROLIFIC_PID=…&STUDY_ID=…&SESSION_ID=….

    With a client, Prolific is asked whether the participant has that submission. `failed` says of
    somebody who has finished whether too many attention checks failed.
    """

    workforce: Workforce = "prolific"
    frame_ancestors: tuple[str, ...] = ()

    def __init__(
        self,
        settings: Settings,
        client: Client | None = None,
        failed: Callable[[Arrival], bool] = lambda arrival: False,
        asking: Asking | None = None,
    ) -> None:
        self.settings, self.client, self.failed = settings, client, failed
        self._asking = asking or Asking("Prolific")

    @property
    def blind(self) -> bool:
        """Whether there is no client to ask."""
        return self.client is None

    def arrive(self, query: Mapping[str, str]) -> Arrival:
        """Who comes; raises NotAdmitted."""
        person, study, session = (query.get(name, "") for name in PLACES)
        if not all(ID.fullmatch(given) for given in (person, study, session)):
            raise NotAdmitted(
                "Please open this page from Prolific: its link lacks your Prolific ID."
            )
        if study != self.settings.study:
            raise NotAdmitted("This link belongs to another Prolific study.")
        if self.client is not None:
            self._check(self.client, person, session)
        return Arrival(person, session)

    def finish(self, arrival: Arrival, answers: int, excluded: bool) -> Finish:
        """Back to Prolific with the code that ends the submission; none for no work."""
        if (nothing := unpaid(answers, excluded)) is not None:
            return nothing
        failed = self.settings.failed_code and self.failed(arrival)
        code = self.settings.failed_code if failed else self.settings.code
        return Finish("redirect", f"{COMPLETE}?{urlencode({'cc': code})}")

    def _check(self, client: Client, person: str, session: str) -> None:
        with self._asking.about(person, session):
            try:
                found = client.submission(session)
            except UserError as error:
                if isinstance(error, RequestRefused) and error.status == 404:
                    raise Unknown from None
                raise self._asking.later() from None
            if (found.participant, found.study) != (person, self.settings.study):
                raise Unknown
        if found.status not in _AT_WORK:
            raise NotAdmitted("This submission has ended on Prolific.")
