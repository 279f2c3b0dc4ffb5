"""An OpenAI-compatible endpoint that checks every request, bills, limits, and fails in many ways.

    python -m tests.teachers.fake '{"faults": {"500": 0.1}}'

prints its URL and answers until it is ended. What it says depends on the request alone; whether it
fails, on the request and on how often it came.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from aiohttp import web
from tests.teachers.judge import judged

PRICE = (2.0, 8.0)  # dollars for a million tokens of prompts and of answers
CREATED = 1_750_000_000
_WORDS = [f"{a}{b}" for a in ("ba", "ko", "mi", "ru", "te") for b in "lmnprstv"]
_KNOWN = {
    "model": str, "messages": list, "prompt": str, "max_tokens": int, "temperature": (int, float),
    "top_p": (int, float), "seed": int, "stop": list, "response_format": dict,
}  # fmt: skip
# Failures that pass when the same is asked again, and those of what is said, which stay.
PASSING = ("429", "429-date", "500", "503", "slow", "drop", "malformed", "html", "408", "hang-up")
STAYING = ("length", "content_filter", "empty", "refusal", "400")


@dataclass
class Fake:
    """Settings, and what happened. `faults` are shares of the requests; `per_minute` are limits."""

    key: str = ""
    faults: dict[str, float] = field(default_factory=dict)
    latency: float = 0.0
    per_minute: dict[str, float] = field(default_factory=dict)
    minute: float = 60.0
    down: bool = False
    says: str = ""
    # Shares of what a judge says, see judge.py; without them nothing is judged.
    judge: dict[str, float] | None = None
    batch: dict[str, Any] = field(default_factory=dict)
    billed: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    cost: float = 0.0
    at_once: int = 0
    most_at_once: int = 0
    window: deque[tuple[float, float]] = field(default_factory=deque)
    largest: dict[str, float] = field(default_factory=lambda: {"requests": 0.0, "tokens": 0.0})
    mistakes: list[str] = field(default_factory=list)

    def mistake(self, request: web.Request, body: Any) -> tuple[int, str] | None:
        """What the real contract refuses."""
        told = request.headers.get("Authorization")
        if self.key and told != f"Bearer {self.key}":
            return 401, f"Incorrect API key provided: {told}"
        if request.content_type != "application/json":
            return 415, "content type"
        return self.wrong(request.path, body)

    def wrong(self, path: str, body: Any) -> tuple[int, str] | None:
        """What it refuses of a body, sent or in a batch."""
        if not isinstance(body, dict) or set(body) - set(_KNOWN):
            return 400, f"unknown arguments {sorted(set(body) - set(_KNOWN))}"
        for name, value in body.items():
            if not isinstance(value, _KNOWN[name]) or isinstance(value, bool):
                return 400, f"{name} has the wrong type"
        if body.get("model") != "teacher":
            return 404, "The model does not exist"
        if body.get("max_tokens", 1) < 1 or not 0 <= body.get("temperature", 1) <= 2:
            return 400, "out of range"
        if path.endswith("/chat/completions"):
            turns = body.get("messages")
            if not turns or any(set(t) != {"role", "content"} for t in turns):
                return 400, "messages"
            roles = [t["role"] for t in turns]
            if roles[-1] != "user" or "system" in roles[1:] or set(roles) - {
                "system", "user", "assistant",
            }:  # fmt: skip
                return 400, f"roles {roles}"
        elif not body.get("prompt"):
            return 400, "prompt"
        return None

    def too_many(self, tokens: int) -> bool:
        """Whether one window of a `minute` holds more than the limits; counts what came."""
        now = time.monotonic()
        while self.window and self.window[0][0] <= now - self.minute:
            self.window.popleft()
        self.window.append((now, tokens))
        found = {"requests": float(len(self.window)), "tokens": sum(t for _, t in self.window)}
        over = [n for n, limit in self.per_minute.items() if found[n] > limit]
        self.mistakes += [f"more {name} than allowed in a minute" for name in over]
        self.largest = {n: max(found[n], self.largest[n]) for n in found}
        return bool(over)


def usage_of(body: dict[str, Any], text: str) -> dict[str, int]:
    """Tokens as the fake counts them: four bytes each, and seven around a turn."""
    turns = [t["content"] for t in body["messages"]] if "messages" in body else [body["prompt"]]
    prompt = sum(7 + math.ceil(len(t.encode()) / 4) for t in turns)
    answer = math.ceil(len(text.encode()) / 4)
    return {
        "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer,
    }  # fmt: skip


def cost_of(usage: dict[str, int]) -> float:
    """Dollars for a request."""
    return (usage["prompt_tokens"] * PRICE[0] + usage["completion_tokens"] * PRICE[1]) / 1e6


def name_of(body: dict[str, Any]) -> str:
    """A request's own name."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def text_of(body: dict[str, Any], says: str = "") -> str:
    """What a request is answered."""
    own = name_of(body)
    if body.get("response_format"):
        return json.dumps({"answer": int(own[:4], 16)})
    if says == "pairs":
        return pairs_of(own)
    return says or f"An answer, {own[:16]}. " + "It goes on. " * (int(own[:2], 16) % 9)


def pairs_of(own: str) -> str:
    """Five questions and answers of a few words, some of which come again."""
    told = [hashlib.sha256(f"{own}{i}".encode()).digest() for i in range(5)]
    return "\n\n".join(
        f"Question: what does {_WORDS[a % 40]} {_WORDS[b % 40]} of {_WORDS[c % 40]}\n"
        f"Answer: {_WORDS[d % 40]}"
        for a, b, c, d, *_ in told
    )


def fault_of(fake: Fake, own: str, came: int) -> str:
    """The failure of a request that came so often before; what passes fails twice at the most."""
    for names, salt, often in (((*STAYING, "403"), "stay", 10**9), (PASSING, f"pass{came}", 2)):
        draw = int(hashlib.sha256(f"{own}{salt}".encode()).hexdigest()[:8], 16) / 16**8
        for name in names:
            share = fake.faults.get(name, 0.0)
            if draw < share and came < often:
                return name
            draw -= share
    return ""


def said_of(fake: Fake, body: dict[str, Any]) -> str | None:
    """What it says now; a judge does not take what cannot be judged."""
    if fake.judge is None:
        return text_of(body, fake.says)
    return judged(body["messages"][-1]["content"], fake.judge, fake.billed[name_of(body)])


async def _answer(fake: Fake, request: web.Request) -> web.StreamResponse:
    if fake.down:
        assert request.transport
        request.transport.abort()
        return web.Response()
    raw = await request.read()
    try:
        body = json.loads(raw)
    except ValueError:
        return _error(400, "We could not parse the JSON body of your request.")
    if wrong := fake.mistake(request, body):
        fake.mistakes.append(f"{wrong[0]} {wrong[1]}")
        return _error(*wrong)
    own, text = name_of(body), said_of(fake, body)
    if text is None:
        fake.mistakes.append("marks that do not close")
        return _error(400, "marks")
    usage = usage_of(body, text)
    if fake.too_many(usage["prompt_tokens"] + int(body.get("max_tokens", 16))):
        return _error(429, "Rate limit reached", {"Retry-After": "1"})
    fault = fault_of(fake, own, fake.seen[own])
    fake.seen[own] += 1
    if fault:
        fake.failed[fault] += 1
    if fake.latency:
        await asyncio.sleep(fake.latency)
    if failed := _failed(fault, request):
        return failed
    told = billed_answer(fake, body, fault)
    return await _sent(request, fault, json.dumps(told).encode(), _told_limits(fake))


def billed_answer(
    fake: Fake, body: dict[str, Any], fault: str, share: float = 1.0
) -> dict[str, Any]:
    """The JSON of an answer, for a share of its price."""
    own, text = name_of(body), said_of(fake, body) or ""
    stop = {"length": "length", "content_filter": "content_filter"}.get(fault, "stop")
    if fault in ("empty", "content_filter", "refusal"):
        text = ""
    usage = usage_of(body, text)
    fake.billed[own] += 1
    fake.cost += share * cost_of(usage)
    choice: dict[str, Any] = {"index": 0, "finish_reason": stop, "logprobs": None}
    if "messages" in body:
        refusal = "I cannot help with that." if fault == "refusal" else None
        choice["message"] = {"role": "assistant", "content": text or None, "refusal": refusal}
    else:
        choice["text"] = text
    return {
        "id": f"chatcmpl-{own[:20]}", "object": "chat.completion", "created": CREATED,
        "model": "teacher-2025-06-15", "choices": [choice], "usage": usage,
    }  # fmt: skip


def _told_limits(fake: Fake) -> dict[str, str]:
    return {f"x-ratelimit-limit-{name}": str(n) for name, n in fake.per_minute.items()}


def _failed(fault: str, request: web.Request) -> web.Response | None:
    if fault == "429":
        return _error(429, "Rate limit reached", {"Retry-After": "0.05"})
    if fault == "429-date":
        return _error(429, "Rate limit reached", {"Retry-After": formatdate(usegmt=True)})
    if fault in ("400", "403", "408", "500", "503"):
        return _error(int(fault), "The server had an error while processing your request")
    if fault == "hang-up":
        assert request.transport
        request.transport.abort()
        return web.Response()
    return None


async def _sent(
    request: web.Request, fault: str, content: bytes, headers: dict[str, str]
) -> web.StreamResponse:
    if fault == "malformed":
        content = content[: len(content) // 2]
    kind = "text/html" if fault == "html" else "application/json"
    if fault == "html":
        content = b"<html>Bad gateway</html>"
    if fault not in ("slow", "drop"):
        return web.Response(body=content, content_type=kind, headers=headers)
    response = web.StreamResponse(headers={**headers, "Content-Length": str(len(content))})
    response.content_type = kind
    await response.prepare(request)
    half = len(content) // 2
    await response.write(content[:half])
    if fault == "drop":
        assert request.transport
        request.transport.abort()
        return response
    await asyncio.sleep(0.05)
    await response.write(content[half:])
    await response.write_eof()
    return response


def _error(status: int, why: str, headers: dict[str, str] | None = None) -> web.Response:
    error = {"message": why, "type": "error", "param": None, "code": None}
    return web.json_response({"error": error}, status=status, headers=headers)


def app_of(fake: Fake) -> web.Application:
    """The endpoint, and two pages to steer and to ask it from a test."""

    async def answer(request: web.Request) -> web.StreamResponse:
        fake.at_once += 1
        fake.most_at_once = max(fake.most_at_once, fake.at_once)
        try:
            return await _answer(fake, request)
        finally:
            fake.at_once -= 1

    async def told(_: web.Request) -> web.Response:
        return web.json_response(
            {"billed": fake.billed, "cost": fake.cost, "failed": fake.failed, "seen": fake.seen,
             "mistakes": fake.mistakes, "largest": fake.largest,
             "most_at_once": fake.most_at_once}
        )  # fmt: skip

    async def steer(request: web.Request) -> web.Response:
        for name, value in (await request.json()).items():
            setattr(fake, name, value)
        return web.json_response({})

    from tests.teachers.fake_batch import mount

    app = web.Application(client_max_size=1 << 28)
    mount(app, fake)
    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_post("/v1/completions", answer)
    app.router.add_get("/told", told)
    app.router.add_post("/steer", steer)
    return app


async def serve(fake: Fake) -> None:
    """Print the URL, and answer for ever."""
    runner = web.AppRunner(app_of(fake), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    assert site._server
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    while True:
        await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(serve(Fake(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))))
