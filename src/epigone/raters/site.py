"""What all pages share: the store, the doors, the cookies, and who is asking."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from epigone.raters import logins, people, render, slots
from epigone.raters.assign import MAX_COMMENT, REASONS
from epigone.raters.guard import Bucket, address, policy
from epigone.raters.sessions import SHIFT, WEEK, YEAR, Cookie, Session
from epigone.raters.store import Store
from epigone.raters.workforces import Door
from epigone.schema import Workforce

WORDS = {
    2: "{} is better", 1: "{} is slightly better", 0: "About equal",
    -1: "{} is slightly better", -2: "{} is better",
}  # fmt: skip
REASON_WORDS = {
    "correct": "More correct", "complete": "More complete", "clear": "Clearer",
    "style": "Better style", "safe": "Safer",
}  # fmt: skip


class Refused(Exception):
    """A request that is not served: an HTTP status, and a line for the person."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


@dataclass(frozen=True, slots=True)
class Settings:
    """How a site is served: `url` is what people type, the secrets never leave the process.

    Rates are (a second, at once): `client` for an address, `session` for a rater, and `guess` for
    an address that tries administrators' tokens, or links, or comes in as somebody new where
    nobody vouches for names (by the open link, or from a platform that is not asked); each of these
    has its own count.
    """

    secret: str
    admin: str = ""
    url: str = "http://127.0.0.1:8600"
    clock: Callable[[], float] = time.time
    client: tuple[float, float] = (200.0, 2000.0)
    session: tuple[float, float] = (5.0, 60.0)
    guess: tuple[float, float] = (0.1, 20.0)

    @property
    def https(self) -> bool:
        """Whether people reach the site by TLS, which a proxy before it speaks."""
        return urlsplit(self.url).scheme == "https"


@dataclass(frozen=True, slots=True)
class Who:
    """The rater who asks: the number, the session, and the submission that names the visit."""

    rater: int
    session: Session
    submission: str
    workforce: Workforce


@dataclass
class Site:
    """One rating site."""

    store: Store
    settings: Settings
    doors: Mapping[str, Door]
    rater: Cookie = field(init=False)
    arrival: Cookie = field(init=False)
    known: Cookie = field(init=False)
    admin: Cookie = field(init=False)
    clients: Bucket = field(init=False)
    sessions: Bucket = field(init=False)
    guesses: Bucket = field(init=False)
    templates: Environment = field(init=False)

    def __post_init__(self) -> None:
        s = self.settings
        # What a server of an earlier version handed out meanwhile, it did not count.
        self.store.write(slots.recount_all)
        # The plan's key is another one in every database, and stays in it.
        of = hashlib.sha256(f"cookies of {self.store.plan().key}".encode()).hexdigest()
        self.rater = Cookie("epigone_rater", s.secret, WEEK, s.https, of)
        self.arrival = Cookie("epigone_arrival", s.secret, SHIFT, s.https, of)
        self.known = Cookie("epigone_known", s.secret, YEAR, s.https, of)
        self.admin = Cookie("epigone_admin", s.secret + s.admin, SHIFT, s.https, of, strict=True)
        self.clients = Bucket(*s.client, s.clock)
        self.sessions = Bucket(*s.session, s.clock)
        self.guesses = Bucket(*s.guess, s.clock)
        self.templates = Environment(
            loader=PackageLoader("epigone.raters"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self.templates.filters |= {"answer": render.answer, "plain": render.plain,
                                   "scrub": render.scrubbed}  # fmt: skip

    def now(self) -> float:
        """The time, in seconds since 1970."""
        return self.settings.clock()

    def who(self, request: Request) -> Who:
        """The rater who asks; raises Refused where there is none, or the way in is no longer."""
        session = self.rater.read(request.cookies)
        found = None
        if session is not None:
            found = people.find(self.store, session.data["rater"], self.now())
        if session is None or found is None:
            raise Refused(401, "Please come in by the link that you were given.")
        rater, revoked = found
        if revoked:
            raise Refused(403, people.NO_INVITATION)
        if session.data["workforce"] not in self.doors:
            raise Refused(403, "This way in is closed.")
        if not self.sessions.take(session.data["rater"]):
            raise Refused(429, "That was very fast. Please wait a moment, then go on.")
        return Who(rater, session, session.data["submission"], session.data["workforce"])

    def guessed(self, request: Request, what: str) -> bool:
        """Count one more guess, or newcomer, of a kind from an address; False where too many."""
        return self.guesses.take(f"{what} {address(request.scope)}")

    def listens(self, request: Request, what: str) -> bool:
        """Whether guesses of a kind from an address are still looked at; nothing is counted."""
        return self.guesses.allows(f"{what} {address(request.scope)}")

    def administrator(self, request: Request) -> Session | None:
        """The session of an administrator who has not logged out."""
        session = self.admin.read(request.cookies)
        if session is None or not logins.is_logged_in(self.store, session.data["login"]):
            return None
        return session

    def framed_by(self, workforce: str) -> tuple[str, ...]:
        """Who may show a workforce's pages in a frame."""
        door = self.doors.get(workforce)
        return () if door is None else door.frame_ancestors

    def page(
        self,
        template: str,
        *,
        status: int = 200,
        workforce: str = "",
        posts_to: str = "",
        **values: Any,
    ) -> HTMLResponse:
        """A page; in a frame only where the rater's workforce works in one."""
        html = self.templates.get_template(template).render(
            choice_words=WORDS, reason_words=REASON_WORDS, max_comment=MAX_COMMENT, **values
        )
        headers = {
            "Content-Security-Policy": policy(
                framed_by=self.framed_by(workforce), posts_to=posts_to
            )
        }
        return HTMLResponse(html, status, headers)


def to(path: str) -> Response:
    """Send the browser to a page of ours, by GET."""
    return RedirectResponse(path, 303)


def known_reasons(names: Sequence[str]) -> tuple[str, ...]:
    """The reasons among names, in their own order."""
    return tuple(reason for reason in REASONS if reason in names)
