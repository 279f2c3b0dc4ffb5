"""The fake's Batch API: checks what is uploaded, bills half, and fails in many ways.

A batch goes on by one state each time it is looked at, so that nothing hangs on the clock.
`Fake.batch` holds the settings:

    looks       looks at it before it ends: 1
    ends        how batches end, the last one for all others: ["completed"], "expired",
                "cancelled", "failed"
    finished    the share of rows that an expired or cancelled batch has finished: 1
    crowded     rows above which a batch is refused for the queue, and how many may be open
    rows        shares of rows that are "missing", "malformed", "doubled", "unknown", "bare"
    calls       shares of calls that fail: "500", "429", "before", "after", "cut", "html"
    lags        looks at which an ended batch does not name its files yet
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from tests.teachers import fake as contract
from tests.teachers.fake import CREATED, Fake

MOST_ROWS, MOST_BYTES = 50_000, 200_000_000
_CALLS = ("500", "429", "before", "after", "cut", "html")
_ORDER = ("validating", "in_progress", "finalizing")


@dataclass
class Books:
    """Files and batches, and how often each call came."""

    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    made: int = 0
    # Bodies that went into batches, by name.
    submitted: dict[str, int] = field(default_factory=dict)


def mount(app: web.Application, fake: Fake) -> None:
    """Add the routes, with faults in front of each."""
    books = Books()

    def route(method: str, path: str, name: str, work: Any) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await _faulty(fake, books, name, request, work)

        app.router.add_route(method, f"/v1/{path}", handle)

    route("POST", "files", "upload", _upload)
    route("GET", "files/{id}/content", "content", _content)
    route("POST", "batches", "create", _create)
    route("GET", "batches", "list", _list)
    route("GET", "batches/{id}", "look", _look)
    route("POST", "batches/{id}/cancel", "cancel", _cancel)

    async def told(_: web.Request) -> web.Response:
        shown = [
            {"id": b["id"], "status": b["status"], "rows": len(b["bodies"])}
            for b in books.batches.values()
        ]
        return web.json_response(
            {"batches": shown, "submitted": books.submitted, "calls": books.calls}
        )

    async def forget(request: web.Request) -> web.Response:
        for name in [name for name in books.files if name.startswith(await request.text())]:
            del books.files[name]
        for name in [name for name in books.batches if name.startswith(await request.text())]:
            del books.batches[name]
        return web.json_response({})

    app.router.add_get("/told-batches", told)
    app.router.add_post("/forget-files", forget)


def _draw(*which: Any) -> float:
    return int(hashlib.sha256(repr(which).encode()).hexdigest()[:8], 16) / 16**8


async def _faulty(
    fake: Fake, books: Books, name: str, request: web.Request, work: Any
) -> web.StreamResponse:
    came = books.calls[name] = books.calls.get(name, 0) + 1
    draw, fault = _draw(name, came), ""
    for each in _CALLS:
        share = fake.batch.get("calls", {}).get(each, 0.0)
        fault, draw = (each if not fault and 0 <= draw < share else fault), draw - share
    if fault:
        fake.failed[f"{name} {fault}"] += 1
    if fake.down or fault == "before":
        return _hung_up(request)
    if wrong := _unknown_key(fake, request):
        fake.mistakes.append("401")
        return _error(401, wrong)
    if fault in ("500", "429"):
        return _error(int(fault), "try again", {"Retry-After": "0.01"} if fault == "429" else None)
    await asyncio.sleep(fake.latency)
    response: web.Response = await work(fake, books, request)
    await asyncio.sleep(fake.latency)
    if fault == "after":
        return _hung_up(request)
    if fault == "html":
        return web.Response(text="<html>busy</html>", content_type="text/html")
    if fault == "cut":
        assert isinstance(response.body, bytes)
        cut = web.StreamResponse(headers={"Content-Length": str(len(response.body))})
        await cut.prepare(request)
        await cut.write(response.body[: len(response.body) // 2])
        return _hung_up(request, cut)
    return response


def _hung_up(request: web.Request, response: Any = None) -> Any:
    if request.transport:
        request.transport.abort()
    return response or web.Response()


def _unknown_key(fake: Fake, request: web.Request) -> str:
    told = request.headers.get("Authorization")
    return f"Incorrect API key: {told}" if fake.key and told != f"Bearer {fake.key}" else ""


def _error(status: int, why: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"message": why}}, status=status, headers=headers)


async def _upload(fake: Fake, books: Books, request: web.Request) -> web.Response:
    if request.content_type != "multipart/form-data":
        return _mistake(fake, f"content type {request.content_type}")
    form = await request.post()
    file = form.get("file")
    if form.get("purpose") != "batch" or set(form) != {"purpose", "file"}:
        return _mistake(fake, f"form {sorted(form)}, purpose {form.get('purpose')}")
    if not isinstance(file, web.FileField) or not file.filename.endswith(".jsonl"):
        return _mistake(fake, "no file, or one of another name")
    content = file.file.read()
    if len(content) > MOST_BYTES:
        return _mistake(fake, "too large")
    name = f"file-in{len(books.files)}"
    books.files[name] = content
    return web.json_response({"id": name, "object": "file", "purpose": "batch"})


def _mistake(fake: Fake, why: str) -> web.Response:
    fake.mistakes.append(f"400 {why}")
    return _error(400, why)


async def _content(fake: Fake, books: Books, request: web.Request) -> web.Response:
    content = books.files.get(request.match_info["id"])
    if content is None:
        return _error(404, "No such File object")
    return web.Response(body=content, content_type="application/octet-stream")


async def _create(fake: Fake, books: Books, request: web.Request) -> web.Response:
    asked = await request.json()
    if set(asked) - {"input_file_id", "endpoint", "completion_window", "metadata"}:
        return _mistake(fake, f"unknown arguments {sorted(asked)}")
    if asked.get("completion_window") != "24h" or not asked["endpoint"].startswith("/v1/"):
        return _mistake(fake, "window or endpoint")
    told = asked.get("metadata") or {}
    if any(not isinstance(v, str) or len(v) > 512 or len(k) > 64 for k, v in told.items()):
        return _mistake(fake, "metadata")
    if asked.get("input_file_id") not in books.files:
        return _mistake(fake, "no such file")
    own = f"batch_{books.made:04d}"
    books.made += 1
    batch: dict[str, Any] = {
        "id": own, "object": "batch", "endpoint": asked["endpoint"], "errors": None,
        "input_file_id": asked["input_file_id"], "completion_window": "24h",
        "status": "validating", "output_file_id": None, "error_file_id": None,
        "created_at": CREATED * 2, "metadata": asked.get("metadata"), "looks": 0, "cancel": 0,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
    }  # fmt: skip
    content = books.files[asked["input_file_id"]]
    batch["bodies"], errors = _checked(fake, content, asked["endpoint"])
    crowd = fake.batch.get("crowded", [10**9, 10**9])
    running = [b for b in books.batches.values() if b["status"] in (*_ORDER, "cancelling")]
    if len(batch["bodies"]) > crowd[0] or len(running) >= crowd[1]:
        errors = [("token_limit_exceeded", "Enqueued token limit reached for teacher")]
    elif _ends(fake, own) == "failed":
        errors = [("invalid_json_line", "This line is not parseable as valid JSON. \x1b[31m")]
    if errors:
        told = [{"code": c, "message": m, "param": None, "line": 1} for c, m in errors]
        batch["errors"] = {"object": "list", "data": told}
    else:
        for body in batch["bodies"].values():
            name = contract.name_of(body)
            books.submitted[name] = books.submitted.get(name, 0) + 1
    books.batches[own] = batch
    return web.json_response(_shown(batch))


def _ends(fake: Fake, own: str) -> str:
    ends = fake.batch.get("ends", ["completed"])
    return str(ends[min(int(own.removeprefix("batch_")), len(ends) - 1)])


def _checked(
    fake: Fake, content: bytes, endpoint: str
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Bodies by their custom ids, and what is wrong with the file."""
    bodies: dict[str, Any] = {}
    wrong: list[str] = []
    lines = content.decode().split("\n")
    if lines.pop() or not lines or len(lines) > MOST_ROWS:
        wrong.append("no lines, too many, or a last one without an end")
    for line in lines:
        row = json.loads(line)
        own, body = row.pop("custom_id"), row.pop("body")
        if row != {"method": "POST", "url": endpoint} or not 0 < len(own) <= 64:
            wrong.append(f"row {row}")
        if own in bodies:
            wrong.append(f"custom id {own} twice")
        if mistake := fake.wrong(endpoint, body):
            wrong.append(str(mistake))
        bodies[own] = body
    if len({body.get("model") for body in bodies.values()}) != 1:
        wrong.append("more than one model")
    fake.mistakes += wrong
    return bodies, [("invalid_request", why) for why in wrong]


def _shown(batch: dict[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in batch.items() if n not in ("bodies", "looks", "cancel", "files")}


async def _list(fake: Fake, books: Books, request: web.Request) -> web.Response:
    limit, after = int(request.query.get("limit", 20)), request.query.get("after", "")
    newest = [*reversed(books.batches.values())]
    names = [batch["id"] for batch in newest]
    first = names.index(after) + 1 if after else 0
    # A page of the fake's holds few, so that there are several.
    page = newest[first : first + min(limit, fake.batch.get("page", 3))]
    more = first + len(page) < len(newest)
    return web.json_response(
        {"object": "list", "data": [_shown(b) for b in page], "has_more": more}
    )


async def _cancel(fake: Fake, books: Books, request: web.Request) -> web.Response:
    batch = books.batches.get(request.match_info["id"])
    if batch is None:
        return _error(404, "no such batch")
    if batch["status"] not in _ORDER:
        return _error(409, f"Cannot cancel a batch with status '{batch['status']}'.")
    batch["status"] = "cancelling"
    return web.json_response(_shown(batch))


async def _look(fake: Fake, books: Books, request: web.Request) -> web.Response:
    batch = books.batches.get(request.match_info["id"])
    if batch is None:
        return _error(404, "no such batch")
    batch["looks"] += 1
    counts = batch["request_counts"]
    if batch["status"] in _ORDER:
        left = fake.batch.get("looks", 1) - batch["looks"]
        if batch["errors"]:
            batch["status"] = "failed"
        elif left > 0:
            batch["status"] = _ORDER[min(2, batch["looks"])]
            counts["total"] = len(batch["bodies"])
        else:
            _end(fake, books, batch, _ends(fake, batch["id"]), fake.batch.get("finished", 1.0))
    elif batch["status"] == "cancelling":
        batch["cancel"] += 1
        if batch["cancel"] > 1:
            _end(fake, books, batch, "cancelled", fake.batch.get("finished", 1.0))
    if batch["status"] not in (*_ORDER, "cancelling", "failed") and "files" in batch:
        batch["lags"] = batch.get("lags", fake.batch.get("lags", 0)) - 1
        if batch["lags"] < 0:
            batch["output_file_id"], batch["error_file_id"] = batch.pop("files")
    return web.json_response(_shown(batch))


def _end(fake: Fake, books: Books, batch: dict[str, Any], ends: str, finished: float) -> None:
    """Answer the rows, and write both files."""
    keys = list(batch["bodies"])
    random.Random(len(keys)).shuffle(keys)
    good: list[bytes] = []
    bad: list[bytes] = []
    whole = len(keys) if ends == "completed" else round(finished * len(keys))
    counts = {"total": len(keys), "completed": 0, "failed": 0}
    for i, key in enumerate(keys):
        if i < whole:
            _answer(fake, key, batch["bodies"][key], counts, good, bad)
        else:
            why = "This request could not be executed before the completion window expired."
            row = {"response": None, "error": {"code": f"batch_{ends}", "message": why}}
            bad.append(_line(key, row))
            counts["failed"] += 1
    batch["status"], batch["request_counts"] = ends, counts
    own = batch["id"].removeprefix("batch_")
    names = [None, None]
    for j, lines in enumerate((good, bad)):
        if lines:
            names[j] = f"file-{'out' if j == 0 else 'err'}{own}"
            # The last line may be without its end.
            books.files[names[j]] = b"\n".join(lines) + b"\n" * (len(lines) % 2)
    batch["files"] = names


def _answer(
    fake: Fake, key: str, body: dict[str, Any], counts: dict[str, int], good: list[bytes],
    bad: list[bytes],
) -> None:  # fmt: skip
    own = contract.name_of(body)
    fault = contract.fault_of(fake, own, fake.seen[own])
    came = fake.seen[own]
    fake.seen[own] += 1
    if fault:
        fake.failed[fault] += 1
    if fault in ("400", "429", "500", "503"):
        told = {"error": {"message": "The server had an error while processing your request"}}
        response = {"status_code": int(fault), "request_id": own[:8], "body": told}
        counts["failed"] += 1
        # Most endpoints put them beside the errors, some among the answers.
        (good if int(own[0], 16) % 2 else bad).append(
            _line(key, {"response": response, "error": None})
        )
        return
    told = contract.billed_answer(fake, body, fault, share=0.5)
    counts["completed"] += 1
    line = _line(
        key, {"response": {"status_code": 200, "request_id": own[:8], "body": told}, "error": None}
    )
    for name in ("missing", "malformed", "doubled", "unknown", "bare"):
        # What passes does so once.
        often = 10**9 if name in ("doubled", "unknown") else 1
        if _draw(own, name) < fake.batch.get("rows", {}).get(name, 0.0) and came < often:
            fake.failed[name] += 1
            line = {
                "missing": b"", "malformed": line[: len(line) // 2], "doubled": line + b"\n" + line,
                "unknown": line + b"\n" + _line("of-someone-else", {"response": None}),
                "bare": _line(key, {"response": None, "error": None}),
            }[name]  # fmt: skip
    if line:
        good.append(line)


def _line(key: str, row: dict[str, Any]) -> bytes:
    return json.dumps({"id": f"batch_req_{key[:8]}", "custom_id": key, **row}).encode()
