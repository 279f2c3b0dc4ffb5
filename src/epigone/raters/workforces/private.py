"""Private raters: an invitation link each, signed, revocable, and good on any device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from itsdangerous import BadSignature, URLSafeSerializer

from epigone.raters import people
from epigone.raters.store import Store
from epigone.raters.workforces import Arrival, Finish, NotAdmitted
from epigone.schema import Workforce

_SALT = "epigone invitation"


class Private:
    """The door of invitation links: /in/private/TOKEN."""

    workforce: Workforce = "private"
    frame_ancestors: tuple[str, ...] = ()
    blind = False

    def __init__(self, store: Store, secret: str, clock: Callable[[], float]) -> None:
        self._store, self._secret, self._clock = store, secret, clock

    def arrive(self, query: Mapping[str, str]) -> Arrival:
        """Who holds the token; a forged, an expired and a revoked one are told the same."""
        try:
            secret = _signer(self._secret).loads(query.get("token", ""))
        except BadSignature:
            secret = ""
        worker = people.invited(self._store, str(secret), self._clock()) if secret else None
        if worker is None:
            raise NotAdmitted(people.NO_INVITATION)
        return Arrival(worker)

    def finish(self, arrival: Arrival, answers: int, excluded: bool) -> Finish:
        """Thanks; there is nobody to report to."""
        return Finish("message", text="Your answers are saved. You can close this page.")


def token(secret: str, invitation: str) -> str:
    """What stands in an invitation's link."""
    return str(_signer(secret).dumps(invitation))


def _signer(secret: str) -> URLSafeSerializer:
    return URLSafeSerializer(secret, salt=_SALT)
