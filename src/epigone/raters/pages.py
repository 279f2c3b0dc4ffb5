"""The raters' pages: in, instructions, rating, and out; plain forms that work without scripts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from epigone.raters import assign, people
from epigone.raters.assign import Ballot, Progress, Shown, TaskGone
from epigone.raters.comparisons import writable
from epigone.raters.sessions import Session, TooMuch
from epigone.raters.site import Refused, Site, Who, known_reasons, to
from epigone.raters.workforces import Arrival, NotAdmitted

_MOST_QUERY = 20
_OURS = ("private", "public")
_CROWD = "Too many people came in from here. Please try again later."


def routes(site: Site) -> APIRouter:
    """The pages of one site."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def home(request: Request) -> Response:
        return site.page("home.html.j2", public="public" in site.doors)

    _ways_in(site, router)
    _rating(site, router)

    @router.get("/done")
    def done(request: Request) -> Response:
        who = site.who(request)
        # Who has work left gets no completion code by typing an address.
        desk = assign.desk(site.store, who.rater, site.now())
        if desk.shown is not None:
            return to("/rate")
        stay = people.stay(site.store, who.workforce, who.submission)
        door = site.doors.get(stay.workforce)
        if door is None:
            raise Refused(403, "This way in is closed.")
        finish = door.finish(stay.arrival, stay.answers, stay.excluded)
        posts_to = finish.url if finish.kind == "post" else ""
        return site.page("done.html.j2", workforce=stay.workforce, posts_to=posts_to, finish=finish,
                         progress=desk.progress, last=desk.changeable,
                         later=desk.later and finish.kind == "message")  # fmt: skip

    return router


def _ways_in(site: Site, router: APIRouter) -> None:
    @router.get("/in/{workforce}")
    @router.get("/in/{workforce}/{token}")
    def arrive(request: Request, workforce: str, token: str = "") -> Response:
        door = site.doors.get(workforce)
        query = dict(list(request.query_params.items())[:_MOST_QUERY])
        if door is None:
            raise Refused(404, "There is no such page.")
        if workforce == "public" and _is_in(site, request):
            return to("/rate")
        # A platform is asked about each arrival: an address that only guesses is not listened to.
        if workforce not in _OURS and not site.listens(request, workforce):
            raise Refused(429, _CROWD)
        try:
            arrival = door.arrive({**query, "token": token} if token else query)
        except NotAdmitted as error:
            if not site.guessed(request, workforce):
                raise Refused(429, _CROWD) from None
            raise Refused(403, str(error)) from None
        if arrival.preview:
            return site.page("welcome.html.j2", workforce=workforce, plan=site.store.plan(),
                             csrf="", preview=True)  # fmt: skip
        # Nothing is stored yet: whoever looks ahead at links, as mail programs do, is no rater.
        response = to("/welcome")
        known = site.known.read(request.cookies) if workforce == "public" else None
        worker = known.data["worker"] if known else arrival.worker
        data = {"workforce": workforce, "worker": worker,
                "submission": arrival.submission}  # fmt: skip
        try:
            site.arrival.write(response, data, framed=bool(door.frame_ancestors))
        except TooMuch:
            raise Refused(400, "This link is too long.") from None
        return response

    _agreement(site, router)


def _agreement(site: Site, router: APIRouter) -> None:
    @router.get("/welcome")
    def welcome(request: Request) -> Response:
        session = _arrived(site, request)
        return site.page("welcome.html.j2", workforce=session.data["workforce"],
                         plan=site.store.plan(), csrf=session.csrf, preview=False)  # fmt: skip

    @router.post("/begin")
    def begin(request: Request, csrf: Annotated[str, Form()] = "") -> Response:
        session = _arrived(site, request)
        if not session.allows(csrf):
            raise Refused(403, "This page was open for too long. Please go back and try again.")
        data = session.data
        arrival = Arrival(data["worker"], data["submission"])
        # Names that can be made up would take all places in a minute.
        new = (site.doors[data["workforce"]].blind
               and not people.is_known(site.store, data["workforce"], arrival))  # fmt: skip
        if new and not site.guessed(request, "newcomer"):
            raise Refused(429, _CROWD)
        try:
            entered = people.enter(site.store, data["workforce"], arrival, site.now())
        except NotAdmitted as error:
            raise Refused(403, str(error)) from None
        response = to("/rate")
        framed = bool(site.framed_by(data["workforce"]))
        site.rater.write(
            response,
            {
                "rater": entered.public,
                "submission": entered.submission,
                "workforce": data["workforce"],
            },
            framed=framed,
        )
        if data["workforce"] == "public":
            # Whoever comes again, later than a session lasts, is the same person.
            site.known.write(response, {"worker": data["worker"]})
        return response


def _is_in(site: Site, request: Request) -> bool:
    """Whether somebody who opens the open link again came in by it before."""
    try:
        return site.who(request).workforce == "public"
    except Refused:
        return False


def _rating(site: Site, router: APIRouter) -> None:
    @router.get("/rate")
    def rate(request: Request) -> Response:
        who = site.who(request)
        desk = assign.desk(site.store, who.rater, site.now())
        if desk.shown is None:
            return to("/done")
        return _task_page(site, who, desk.shown, desk.progress, last=desk.changeable)

    @router.get("/previous")
    def previous(request: Request) -> Response:
        who = site.who(request)
        shown = assign.previous(site.store, who.rater)
        if shown is None:
            return to("/rate")
        at = assign.progress(site.store, who.rater)
        return _task_page(site, who, shown, at, changing=True)

    @router.post("/vote")
    def vote(
        request: Request,
        task: Annotated[str, Form()] = "",
        preference: Annotated[str, Form()] = "",
        reasons: Annotated[list[str] | None, Form()] = None,
        comment: Annotated[str, Form()] = "",
        visible: Annotated[str, Form()] = "",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        who = site.who(request)
        if not who.session.allows(csrf):
            raise Refused(403, "This page was open for too long. Please go back and try again.")
        if preference not in ("-2", "-1", "0", "1", "2"):
            raise Refused(422, "Please choose one of the five answers.")
        ballot = Ballot(int(preference), known_reasons(reasons or []), kept_comment(comment),
                        _milliseconds(visible))  # fmt: skip
        try:
            training = assign.cast(site.store, who.rater, task, ballot, site.now())
        except TaskGone:
            raise Refused(
                409, "This task was open for too long, or was answered already. Please go on."
            ) from None
        return to(f"/feedback/{task}" if training else "/rate")

    @router.get("/feedback/{task}")
    def feedback(request: Request, task: str) -> Response:
        who = site.who(request)
        try:
            shown = assign.answered(site.store, who.rater, task)
        except TaskGone:
            return to("/rate")
        return site.page("feedback.html.j2", workforce=who.workforce, task=shown)


def _task_page(
    site: Site, who: Who, shown: Shown, at: Progress, *, changing: bool = False, last: bool = False
) -> Response:
    return site.page(
        "rate.html.j2", workforce=who.workforce, task=shown, csrf=who.session.csrf,
        changing=changing, progress=at, last=last and not shown.training,
    )  # fmt: skip


def kept_comment(comment: str) -> str:
    """A comment as it is stored."""
    return writable(comment).replace("\r\n", "\n").strip()[: assign.MAX_COMMENT]


def _arrived(site: Site, request: Request) -> Session:
    session = site.arrival.read(request.cookies)
    if session is None or session.data["workforce"] not in site.doors:
        raise Refused(
            401, "Please come in by the link that you were given, and allow this site's cookies."
        )
    return session


def _milliseconds(text: str) -> float | None:
    return int(text) / 1000 if text.isascii() and text.isdigit() and len(text) < 12 else None
