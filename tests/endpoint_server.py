"""An OpenAI-compatible server that checks what it is sent and can fail as real ones do."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KNOWN = {"model", "messages", "max_tokens", "temperature", "top_p", "seed", "stop", "logprobs",
         "top_logprobs"}  # fmt: skip


@dataclass
class Server:
    """What to answer, what to fail with before that, and what came."""

    answer: Callable[[dict[str, Any]], Any] = lambda body: "hello"
    key: str = ""
    failures: list[Any] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    logprobs: bool = False
    # Whether it keeps to a JSON Schema; many endpoints refuse one.
    schemas: bool = False
    # What other paths answer, as one for moderations; nothing by default.
    moderate: Callable[[dict[str, Any]], Any] | None = None
    url: str = ""

    def mistake(self, path: str, headers: Any, body: Any) -> tuple[int, str] | None:
        """What the real contract refuses."""
        if path != "/v1/chat/completions":
            return 404, "no such path"
        if self.key and headers.get("Authorization") != f"Bearer {self.key}":
            return 401, f"invalid key {headers.get('Authorization', '')}"
        known = KNOWN | {"response_format"} if self.schemas else KNOWN
        if not isinstance(body, dict) or set(body) - known:
            return 400, f"unknown arguments {sorted(set(body) - known)}"
        form = body.get("response_format")
        if form is not None:
            schema = form["json_schema"]["schema"]
            if form["type"] != "json_schema" or schema["required"] != [*schema["properties"]]:
                return 400, "a strict schema requires every property"
        turns = body.get("messages")
        if not turns or any(t["role"] not in ("system", "user", "assistant") for t in turns):
            return 400, "messages"
        if turns[-1]["role"] != "user" or any(t["role"] == "system" for t in turns[1:]):
            return 400, "roles"
        if len(body.get("stop", [])) > 4 or body.get("top_logprobs", 0) > 20:
            return 400, "too many"
        if body.get("logprobs") and not self.logprobs:
            return 400, "logprobs are not supported"
        return None


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Answer on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.requests.append(body)
            if server.failures and (failure := server.failures.pop(0)) is not None:
                self.fail(failure)
                return
            if server.moderate is not None and self.path != "/v1/chat/completions":
                self.send(200, server.moderate(body))
                return
            if refused := server.mistake(self.path, self.headers, body):
                self.send(refused[0], {"error": {"message": refused[1]}})
                return
            told = server.answer(body)
            text, first = told if isinstance(told, tuple) else (told, None)
            choice: dict[str, Any] = {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
            if body.get("logprobs") and first is not None:
                top = [{"token": t, "logprob": v, "bytes": None} for t, v in first]
                choice["logprobs"] = {"content": [{"token": text, "top_logprobs": top}]}
            usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            self.send(200, {"object": "chat.completion", "choices": [choice], "usage": usage})

        def fail(self, failure: Any) -> None:
            if failure == "cut":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            elif isinstance(failure, bytes):
                self.send(200, failure)
            else:
                status, headers, text = failure
                self.send(status, text.encode(), headers)

        def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
