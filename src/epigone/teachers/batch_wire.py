"""OpenAI's Batch API on the wire: files up and down; batches made, looked at, cancelled."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

import aiohttp

from epigone.errors import RequestRefused
from epigone.models.received import LARGEST, UNREADABLE, Answer, count, decoded, read
from epigone.teachers.wire import SHOWN, Failed, Request, Wire

Found = TypeVar("Found")
Outcome = Answer | Failed | RequestRefused
# States that a batch stays in.
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
# Seconds that a file may take, and its longest size: a row is seldom larger than some KB.
_TRANSFER, _MOST = 3600.0, 4 << 30
# So many batches are told of at once.
_PAGE = 100
_ERRORS = 3


class Unwritten(Exception):
    """The disk does not take what an endpoint sends, which is no failure of its own."""


@dataclass(frozen=True, slots=True)
class Job:
    """A batch as its endpoint tells of it, with the files of its answers and of its failures.

    `own` is the id that we gave it, `source` the file of its requests; `errors` are codes and
    messages of a batch that failed as a whole.
    """

    name: str
    status: str
    answers: str
    failures: str
    total: int
    completed: int
    failed: int
    errors: tuple[tuple[str, str], ...]
    own: str
    source: str
    created: int

    @property
    def lags(self) -> bool:
        """Whether it says that there are answers, but not where."""
        return self.status in ENDED and self.completed > 0 and not self.answers


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a request of a batch: an answer, with its whole JSON, or a failure."""

    key: str
    outcome: Outcome
    response: Mapping[str, Any] = field(default_factory=dict)


def line_of(key: str, request: Request) -> bytes:
    """A request's line in a batch's file."""
    row = {"custom_id": key, "method": "POST", "url": url_of(request.path), "body": request.body}
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def url_of(path: str) -> str:
    """How a batch calls a path."""
    return f"/v1/{path}"


class BatchWire(Wire):
    """Connections to an endpoint that takes batches.

    Every method raises Failed for what may succeed later, RequestRefused for what would not.
    """

    async def upload(self, file: IO[bytes], name: str) -> str:
        """The id of a file of requests that was sent; `file` is closed."""
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", file, filename=name, content_type="application/jsonl")
        timeout = aiohttp.ClientTimeout(total=_TRANSFER)
        return await self._told("POST", "files", lambda row: _id(row["id"]), data=form,
                                timeout=timeout)  # fmt: skip

    async def create(self, file: str, path: str, own: str) -> Job:
        """Make a batch of a file."""
        body = {
            "input_file_id": file, "endpoint": url_of(path), "completion_window": "24h",
            "metadata": {"epigone": own},
        }  # fmt: skip
        return await self._told("POST", "batches", _job, json=body)

    async def look(self, name: str) -> Job:
        """How a batch stands."""
        return await self._told("GET", f"batches/{name}", _job)

    async def cancel(self, name: str) -> Job:
        """Ask for the end of a batch, which may take minutes."""
        return await self._told("POST", f"batches/{name}/cancel", _job, json={})

    async def page(self, after: str = "") -> tuple[list[Job], bool]:
        """Some of the batches, newest first, after one of a name; and whether there are more."""
        path = f"batches?limit={_PAGE}{after and f'&after={after}'}"
        return await self._told("GET", path, _page)

    async def download(self, name: str, file: IO[bytes]) -> None:
        """Write what a file at the endpoint holds."""
        timeout = aiohttp.ClientTimeout(total=_TRANSFER)
        async with self._answered("GET", f"files/{name}/content", timeout=timeout) as response:
            size = 0
            async for part in response.content.iter_any():
                size += len(part)
                if size > _MOST:
                    raise Failed("a file without end")
                try:
                    file.write(part)
                except OSError as error:
                    raise Unwritten(error.strerror) from None

    def results(self, file: IO[bytes]) -> Iterator[Result | None]:
        """The rows of a file of answers or errors, None for what is none."""
        while line := file.readline(LARGEST):
            whole = line
            while whole and not whole.endswith(b"\n"):
                # The end of a line that is larger than any answer, or of the file.
                whole = file.readline(LARGEST)
            if line.strip():
                yield self._result(line) if len(line) < LARGEST else None

    def _result(self, line: bytes) -> Result | None:
        try:
            row = decoded(line, self._key)
            key, response, error = row["custom_id"], row.get("response"), row.get("error")
            if not isinstance(key, str):
                return None
            if isinstance(response, dict) and isinstance(response.get("status_code"), int):
                return self._answer(key, response["status_code"], response.get("body"))
        except UNREADABLE:
            return None
        if isinstance(error, dict):
            told = f"{error.get('code')}: {error.get('message')}"
            return Result(key, Failed(self.told(told)))
        return Result(key, Failed("a row without an answer", billed=True))

    def _answer(self, key: str, status: int, body: Any) -> Result:
        if status == 200:
            try:
                return Result(key, read(body), body)
            except UNREADABLE:
                said = json.dumps(body, ensure_ascii=False)
                what = f"no answer to the request: {said[:200]}"
                return Result(key, Failed(what, billed=True, came=said[:SHOWN], whole=True))
        try:
            self._failed(status, {}, json.dumps(body).encode())
        except Failed as failure:
            # Unlike a gateway that lost patience, a batch tells what it did and bills no other.
            return Result(key, Failed(str(failure)))
        except RequestRefused as failure:
            return Result(key, failure)

    async def _told(
        self, method: str, path: str, take: Callable[[dict[str, Any]], Found], **sent: Any
    ) -> Found:
        """What `take` makes of the JSON that an endpoint answers."""
        content, headers = await self._called(method, path, **sent)
        try:
            return take(decoded(content, self._key))
        except UNREADABLE:
            said = self.told(content[:SHOWN].decode(errors="replace"))
            raise Failed(f"not told of by a batch: {said}", status=200, headers=headers) from None


def _id(value: Any) -> str:
    """A name that stands in a path."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}", value):
        raise ValueError(value)
    return str(value)


def _job(row: Mapping[str, Any]) -> Job:
    """Raises KeyError, TypeError, ValueError, AttributeError for what is no batch."""
    counts, told = row.get("request_counts") or {}, row.get("errors") or {}
    answers, failures = row.get("output_file_id"), row.get("error_file_id")
    errors = [e for e in told.get("data") or [] if isinstance(e, dict)]
    return Job(
        name=_id(row["id"]),
        status=str(row["status"])[:40],
        answers=_id(answers) if answers else "",
        failures=_id(failures) if failures else "",
        total=count(counts.get("total")),
        completed=count(counts.get("completed")),
        failed=count(counts.get("failed")),
        errors=tuple((str(e.get("code")), str(e.get("message"))) for e in errors[:_ERRORS]),
        own=str((row.get("metadata") or {}).get("epigone", "")),
        source=str(row.get("input_file_id", "")),
        created=count(row.get("created_at")),
    )


def _page(row: Mapping[str, Any]) -> tuple[list[Job], bool]:
    return [_job(each) for each in row["data"]], bool(row.get("has_more"))
