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
from epigone.raters import overview, people
from epigone.raters.comparisons import writable
from epigone.raters.sessions import Session
from epigone.raters.site import Refused, Site, to
from epigone.raters.workforces import private

_MOST_INVITATIONS = 200
_LONGEST = 200


def routes(site: Site) -> APIRouter:
    """The pages of one site; without an administrator's token there are none."""
    router = APIRouter(prefix="/admin", include_in_schema=False)
    if not site.settings.admin:
        return router
    _sessions(site, router)
    _changes(site, router)

    @router.get("")
    def show(request: Request) -> Response:
        session = site.admin.read(request.cookies)
        if session is None:
            return site.page("admin_login.html.j2", wrong=False)
        return _overview(site, session)

    return router


def _sessions(site: Site, router: APIRouter) -> None:
    @router.post("/login")
    def login(request: Request, token: Annotated[str, Form()] = "") -> Response:
        client = request.client.host if request.client else ""
        if not site.guesses.take(client):
            raise Refused(429, "Too many attempts. Please wait a minute.")
        given, right = token.strip().encode(errors="replace"), site.settings.admin.encode()
        if not hmac.compare_digest(given, right):
            people.log(site.store, site.now(), client, "login refused")
            return site.page("admin_login.html.j2", status=403, wrong=True)
        people.log(site.store, site.now(), client, "login")
        response = to("/admin")
        site.admin.write(response, {"from": client})
        return response

    @router.post("/logout")
    def logout(request: Request, csrf: Annotated[str, Form()] = "") -> Response:
        _allowed(site, request, csrf)
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
        who = _allowed(site, request, csrf)
        with _told():
            people.exclude(site.store, writable(rater), writable(why)[:_LONGEST], site.now(),
                           who=who)  # fmt: skip
        return to("/admin#raters")

    @router.post("/include")
    def include(
        request: Request, rater: Annotated[str, Form()] = "", csrf: Annotated[str, Form()] = ""
    ) -> Response:
        who = _allowed(site, request, csrf)
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
        who = _allowed(site, request, csrf)
        session = site.admin.read(request.cookies)
        many = int(n) if n.isascii() and n.isdigit() and len(n) < 5 else 0
        if not 1 <= many <= _MOST_INVITATIONS or session is None:
            raise Refused(422, f"Between 1 and {_MOST_INVITATIONS} invitations at once.")
        labels = [writable(label)[:_LONGEST].strip()] * many
        made = people.invite(site.store, labels, site.now(), who=who)
        links = [link(site.settings.url, site.settings.secret, secret) for secret in made]
        # Not after a redirect: the links are shown once and kept nowhere.
        return _overview(site, session, links)

    @router.post("/revoke")
    def revoke(
        request: Request,
        invitation: Annotated[str, Form()] = "",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        who = _allowed(site, request, csrf)
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


def _allowed(site: Site, request: Request, csrf: str) -> str:
    session = site.admin.read(request.cookies)
    if session is None:
        raise Refused(401, "Please log in as an administrator.")
    if not session.allows(csrf):
        raise Refused(403, "This page was open for too long. Please go back and try again.")
    return str(session.data["from"])


def _overview(site: Site, session: Session, links: list[str] | None = None) -> Response:
    ratings = list(people.ratings(site.store))
    return site.page(
        "admin.html.j2", csrf=session.csrf, plan=site.store.plan(), links=links or [],
        pairs=overview.pairs(site.store, site.now()), raters=overview.raters(site.store, ratings),
        agreement=overview.agreement(ratings), invitations=people.invitations(site.store),
        actions=people.actions(site.store), private="private" in site.doors,
        when=lambda at: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M"),
    )  # fmt: skip
