"""The rating site as an ASGI app."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from epigone.raters import admin, interface, pages
from epigone.raters.comparisons import writable
from epigone.raters.guard import Guard, dress
from epigone.raters.site import Refused, Settings, Site
from epigone.raters.store import Store
from epigone.raters.workforces import Door


def build_app(store: Store, settings: Settings, doors: Sequence[Door]) -> FastAPI:
    """The site of a rating database, with the ways in that are open."""
    site = Site(store, settings, {door.workforce: door for door in doors})
    app = FastAPI(
        title="Epigone ratings", version="1", openapi_url="/api/openapi.json", docs_url=None,
        redoc_url=None,
    )  # fmt: skip
    app.include_router(interface.routes(site))
    app.include_router(pages.routes(site))
    app.include_router(admin.routes(site))
    static = resources.files("epigone.raters").joinpath("static")
    app.mount("/static", StaticFiles(directory=str(static)))

    @app.get("/healthz", include_in_schema=False)
    def health() -> dict[str, str]:
        store.plan()
        return {"state": "ready"}

    _failures(app, site)
    app.add_middleware(Guard, bucket=site.clients, https=settings.https)
    return app


def _failures(app: FastAPI, site: Site) -> None:
    def told(request: Request, status: int, words: str, headers: dict[str, str]) -> Response:
        if request.url.path.startswith("/api/"):
            return JSONResponse({"detail": words}, status, headers)
        session = site.rater.read(request.cookies) or site.arrival.read(request.cookies)
        # A refusal at the door is read in the platform's frame, too.
        workforce = (
            session.data.get("workforce", "")
            if session
            else request.path_params.get("workforce", "")
        )
        going = site.rater.read(request.cookies) is not None and status in (404, 409, 422, 429)
        page = site.page("refused.html.j2", status=status, workforce=workforce, words=words,
                         going=going)  # fmt: skip
        page.headers.update(headers)
        return page

    @app.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> Response:
        headers = {"Retry-After": "5"} if error.status == 429 else {}
        return told(request, error.status, error.words, headers)

    @app.exception_handler(HTTPException)
    def failed(request: Request, error: HTTPException) -> Response:
        words = {404: "There is no such page.", 405: "That cannot be done here."}
        return told(request, error.status_code, words.get(error.status_code, error.detail),
                    dict(error.headers or {}))  # fmt: skip

    @app.exception_handler(RequestValidationError)
    def mistaken(request: Request, error: RequestValidationError) -> Response:
        if not request.url.path.startswith("/api/"):
            return told(request, 422, "That is not a form of this site.", {})
        # Without what was sent: it may hold what cannot be written, or be long.
        found = [
            {"loc": [writable(str(part))[:100] for part in e["loc"]], "msg": writable(e["msg"])}
            for e in error.errors()
        ]
        return JSONResponse({"detail": found}, 422)

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> Response:
        # Made outside of the guard, by the framework, which then passes the error on to the log.
        page = told(request, 500, "Something went wrong here. Please try again.", {})
        dress(page.headers, request.url.path, https=site.settings.https)
        return page

    @app.exception_handler(OperationalError)
    def unable(request: Request, error: OperationalError) -> Response:
        return told(request, 503, "The answers cannot be saved just now. Please try again.",
                    {"Retry-After": "5"})  # fmt: skip
