"""The administrators' pages: progress, raters, invitations, and a log of what was done."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from epigone.errors import UserError
from epigone.raters import logins, overview, people
from epigone.raters.comparisons import writable
from epigone.raters.guard import address
from epigone.raters.sessions import Session
from epigone.raters.site import Refused, Site, to
from epigone.raters.workforces import private

_MOST_INVITATIONS = 200
_LONGEST = 200
_LINES = 50


def routes(site: Site) -> APIRouter:
    """The pages of one site; without an administrator's token there are none."""
    router = APIRouter(prefix="/admin", include_in_schema=False)
    if not site.settings.admin:
        return router
    _sessions(site, router)
    _changes(site, router)

    @router.get("")
    def show(request: Request, page: str = "1") -> Response:
        session = site.administrator(request)
        if session is None:
            return site.page("admin_login.html.j2", wrong=False)
        at = int(page) if page.isascii() and page.isdigit() and len(page) < 7 else 1
        return _overview(site, session, page=max(1, at))

    return router


def _sessions(site: Site, router: APIRouter) -> None:
    @router.post("/login")
    def login(request: Request, token: Annotated[str, Form()] = "") -> Response:
        client = request.client.host if request.client else ""
        given, right = token.strip().encode(errors="replace"), site.settings.admin.encode()
        if not hmac.compare_digest(given, right):
            # The right token is never kept waiting: others at the same address may have guessed.
            if not site.guessed(request, "login"):
                raise Refused(429, "Too many attempts. Please wait a minute.")
            logins.refused(site.store, site.now(), address(request.scope))
            return site.page("admin_login.html.j2", status=403, wrong=True)
        response = to("/admin")
        name = logins.log_in(site.store, site.now(), client)
        site.admin.write(response, {"from": client, "login": name})
        return response

    @router.post("/logout")
    def logout(request: Request, csrf: Annotated[str, Form()] = "") -> Response:
        session = _allowed(site, request, csrf)
        logins.log_out(site.store, session.data["login"], site.now(), session.data["from"])
        response = to("/admin")
        site.admin.clear(response)
        return response


def _changes(site: Site, router: APIRouter) -> None:
    @router.post("/exclude")
    def exclude(
        request: Request,
        rater: Annotated[str, Form()] = "",
        why: Annotated[str, Form()] = "",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        who = _allowed(site, request, csrf).data["from"]
        with _told():
            people.exclude(site.store, writable(rater), writable(why)[:_LONGEST], site.now(),
                           who=who)  # fmt: skip
        return to("/admin#raters")

    @router.post("/include")
    def include(
        request: Request, rater: Annotated[str, Form()] = "", csrf: Annotated[str, Form()] = ""
    ) -> Response:
        who = _allowed(site, request, csrf).data["from"]
        with _told():
            people.include(site.store, writable(rater), "", site.now(), who=who)
        return to("/admin#raters")

    @router.post("/invite")
    def invite(
        request: Request,
        label: Annotated[str, Form()] = "",
        n: Annotated[str, Form()] = "1",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        session = _allowed(site, request, csrf)
        many = int(n) if n.isascii() and n.isdigit() and len(n) < 5 else 0
        if not 1 <= many <= _MOST_INVITATIONS:
            raise Refused(422, f"Between 1 and {_MOST_INVITATIONS} invitations at once.")
        labels = [writable(label)[:_LONGEST].strip()] * many
        made = people.invite(site.store, labels, site.now(), who=session.data["from"])
        links = [link(site.settings.url, site.settings.secret, secret) for secret in made]
        # Not after a redirect: the links are shown once and kept nowhere.
        return _overview(site, session, links)

    @router.post("/revoke")
    def revoke(
        request: Request,
        invitation: Annotated[str, Form()] = "",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        who = _allowed(site, request, csrf).data["from"]
        number = int(invitation) if invitation.isascii() and invitation.isdigit() else 0
        with _told():
            people.revoke_one(site.store, number, site.now(), who=who)
        return to("/admin#invitations")


def link(url: str, secret: str, invitation: str) -> str:
    """The address that an invited person opens."""
    return f"{url.rstrip('/')}/in/private/{private.token(secret, invitation)}"


@contextmanager
def _told() -> Iterator[None]:
    """Tell a mistake of the administrator's on a page."""
    try:
        yield
    except UserError as error:
        raise Refused(422, str(error)) from None


def _allowed(site: Site, request: Request, csrf: str) -> Session:
    session = site.administrator(request)
    if session is None:
        raise Refused(401, "Please log in as an administrator.")
    if not session.allows(csrf):
        raise Refused(403, "This page was open for too long. Please go back and try again.")
    return session


def _overview(
    site: Site, session: Session, links: list[str] | None = None, page: int = 1
) -> Response:
    ratings = list(people.ratings(site.store))
    # One more than is shown tells whether there are older ones.
    log = logins.actions(site.store, _LINES + 1, skip=(page - 1) * _LINES)
    return site.page(
        "admin.html.j2", csrf=session.csrf, plan=site.store.plan(), links=links or [],
        pairs=overview.pairs(site.store, site.now()), raters=overview.raters(site.store, ratings),
        agreement=overview.agreement(ratings), invitations=people.invitations(site.store),
        actions=log[:_LINES], older=page + 1 if len(log) > _LINES else 0,
        private="private" in site.doors,
        when=_when,
    )  # fmt: skip


def _when(at: float) -> str:
    latest = datetime.max.replace(tzinfo=UTC).timestamp()
    return datetime.fromtimestamp(min(at, latest - 1), UTC).strftime("%Y-%m-%d %H:%M")
