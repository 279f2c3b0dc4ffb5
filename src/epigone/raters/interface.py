"""The same tasks and votes as JSON, for clients that are no browsers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from epigone.raters import assign
from epigone.raters.assign import Ballot, Shown, TaskGone
from epigone.raters.pages import kept_comment
from epigone.raters.render import scrubbed
from epigone.raters.site import Refused, Site, Who

Csrf = Annotated[
    str, Header(alias="X-CSRF-Token", pattern="^[A-Za-z0-9_-]{1,100}$",
                description="what GET /api/session gives")
]  # fmt: skip
Reason = Literal["correct", "complete", "clear", "style", "safe"]


def _whole(value: object) -> object:
    """1.0 is a whole number in JSON; "1" and true are none."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Problem(BaseModel):
    """Why a request is not served."""

    detail: str


class Mistakes(BaseModel):
    """What is wrong with a request."""

    detail: list[dict[str, Any]]


class About(BaseModel):
    """The rater's session."""

    csrf: str
    done: int
    total: int


class Task(BaseModel):
    """A prompt and two outputs, whose models are not told."""

    id: str
    prompt: list[dict[str, str]]
    left: str
    right: str
    training: bool


class Next(BaseModel):
    """The task to rate; null where nothing is left."""

    task: Task | None
    done: int
    total: int


class VoteIn(BaseModel):
    """A vote: 2 where the left output is better, 1 slightly, 0 equal, -1 and -2 the right one."""

    model_config = ConfigDict(extra="forbid", strict=True)
    task: str = Field(max_length=40)
    preference: Annotated[int, BeforeValidator(_whole)] = Field(ge=-2, le=2)
    reasons: list[Reason] = Field(default_factory=list, max_length=5)
    comment: str = Field(default="", max_length=assign.MAX_COMMENT)
    visible: float | None = Field(default=None, ge=0, le=1e6, allow_inf_nan=False)


class Voted(BaseModel):
    """What a vote led to; training tells what was expected."""

    training: bool
    expected: int | None = None
    feedback: str = ""


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "no session"},
    403: {"model": Problem, "description": "no token, or a revoked way in"},
    429: {"description": "too many requests"},
}
_WRITE: dict[int | str, dict[str, Any]] = {
    **_PROBLEMS,
    413: {"description": "too large"},
    422: {"model": Mistakes, "description": "not a request of this interface"},
}


def routes(site: Site) -> APIRouter:
    """The interface of one site."""
    router = APIRouter(prefix="/api")

    @router.get("/session", responses=_PROBLEMS)
    def session(request: Request) -> About:
        who = site.who(request)
        at = assign.progress(site.store, who.rater)
        return About(csrf=who.session.csrf, done=at.done, total=at.total)

    @router.post("/next", responses=_WRITE)
    def following(request: Request, token: Csrf) -> Next:
        who = _writer(site, request, token)
        desk = assign.desk(site.store, who.rater, site.now())
        shown, at = desk.shown, desk.progress
        task = None if shown is None else _task(shown)
        return Next(task=task, done=at.done, total=at.total)

    @router.post("/vote", responses={
        **_WRITE,
        400: {"model": Problem, "description": "not JSON"},
        409: {"model": Problem, "description": "no task of this rater that is open"},
    })  # fmt: skip
    def vote(request: Request, token: Csrf, given: VoteIn) -> Voted:
        who = _writer(site, request, token)
        reasons = tuple(reason for reason in assign.REASONS if reason in given.reasons)
        ballot = Ballot(given.preference, reasons, kept_comment(given.comment), given.visible)
        try:
            if not assign.cast(site.store, who.rater, given.task, ballot, site.now()):
                return Voted(training=False)
            told = assign.answered(site.store, who.rater, given.task)
        except TaskGone:
            raise Refused(409, "This task is not open to you.") from None
        return Voted(training=True, expected=told.expected, feedback=told.feedback)

    return router


def _task(shown: Shown) -> Task:
    """A task without what a page would not show either: it may tell its model."""
    prompt = [{name: scrubbed(text).strip() for name, text in m.items()} for m in shown.prompt]
    return Task(
        id=shown.id, prompt=prompt, left=scrubbed(shown.left).strip(),
        right=scrubbed(shown.right).strip(), training=shown.training,
    )  # fmt: skip


def _writer(site: Site, request: Request, token: str) -> Who:
    who = site.who(request)
    if not who.session.allows(token):
        raise Refused(403, "The X-CSRF-Token does not belong to this cookie.")
    return who
