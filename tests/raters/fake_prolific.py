"""Prolific's API on this machine: holds callers to the contract, and fails as the real one does."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "a-token-of-a-researcher"
CATEGORIES = {
    "TOO_QUICKLY", "TOO_SLOWLY", "FAILED_INSTRUCTIONS", "INCOMP_LONGITUDINAL", "FAILED_CHECK",
    "LOW_EFFORT", "MALINGERING", "NO_CODE", "BAD_CODE", "NO_DATA", "UNSUPP_DEVICE", "OTHER",
}  # fmt: skip
NEEDED = {
    "name": str, "description": str, "external_study_url": str, "prolific_id_option": str,
    "reward": int, "estimated_completion_time": int, "total_available_places": int,
    "completion_codes": list,
}  # fmt: skip
KNOWN = {*NEEDED, "internal_name", "device_compatibility"}
ACTIONS = {"AUTOMATICALLY_APPROVE", "MANUALLY_REVIEW", "REQUEST_RETURN"}
TYPES = {"COMPLETED", "FAILED_ATTENTION_CHECK", "NO_CONSENT", "OTHER"}
Answer = tuple[int, Any]


@dataclass
class Fake:
    """Studies, submissions and bonuses; what to fail with; what came.

    A failure of `failures` comes instead of an answer: a status, a (status, headers), "cut" in the
    middle of the answer, "silent" for none; after a "+", the request is carried out all the same.
    """

    studies: dict[str, dict[str, Any]] = field(default_factory=dict)
    submissions: dict[str, dict[str, Any]] = field(default_factory=dict)
    bonuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[Any] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    paid: list[tuple[str, int]] = field(default_factory=list)
    later: list[tuple[str, int]] = field(default_factory=list)
    page: int = 20
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def submission(self, study: str, status: str = "ACTIVE") -> dict[str, Any]:
        """A participant takes a place."""
        number = len(self.submissions)
        row = {
            "id": f"5e55{number:020x}", "study_id": study, "participant": f"9e09{number:020x}",
            "status": status, "started_at": "2026-01-31T12:00:00Z", "entered_code": None,
            "bonus_payments": [],
        }  # fmt: skip
        self.submissions[row["id"]] = row  # type: ignore[index]
        return row

    def settle(self) -> None:
        """What was paid is seen in the submissions, minutes after."""
        for submission, cents in self.later:
            self.submissions[submission]["bonus_payments"].append(float(cents))

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        """What the API does and says."""
        routes = {
            r"POST study-cost-calculator/": self._cost,
            r"GET studies/": self._studies,
            r"POST studies/": self._create,
            r"GET studies/(\w+)/": self._study,
            r"PATCH studies/(\w+)/": self._patch,
            r"POST studies/(\w+)/transition/": self._publish,
            r"GET submissions/": self._submissions,
            r"GET submissions/(\w+)/": self._submission,
            r"POST submissions/bonus-payments/": self._bonus,
            r"POST submissions/(\w+)/transition/": self._transition,
            r"POST bulk-bonus-payments/([\w-]+)/pay/": self._pay,
        }
        for route, work in routes.items():
            if found := re.fullmatch(route, f"{method} {path}"):
                return work(*found.groups(), query=query, body=body)  # type: ignore[operator,no-any-return]
        return _error(404, f"no route {method} {path}")

    def _cost(self, query: dict[str, str], body: Any) -> Answer:
        rewards = body["reward"] * body["total_available_places"]
        # All that the contract documents.
        return 200, {"total_cost": rewards + rewards // 3}

    def _pages(self, rows: list[Any], query: dict[str, str]) -> Answer:
        page, size = int(query.get("page", 1)), min(int(query.get("page_size", 20)), self.page)
        part = rows[(page - 1) * size : page * size]
        last = page * size >= len(rows)
        # Nobody should follow a link with the token in hand.
        more = {"href": None if last else f"https://elsewhere.example/?page={page + 1}"}
        return 200, {"results": part, "_links": {"next": more}, "meta": {"count": len(rows)}}

    def _studies(self, query: dict[str, str], body: Any) -> Answer:
        shown = ("id", "name", "internal_name", "status")
        return self._pages([{k: s[k] for k in shown} for s in self.studies.values()], query)

    def _create(self, query: dict[str, str], body: Any) -> Answer:
        for name, kind in NEEDED.items():
            if type(body.get(name)) is not kind:
                return _error(400, f"{name}: this field is required, as {kind.__name__}")
        if unknown := set(body) - KNOWN:
            return _error(400, f"unknown {sorted(unknown)}")
        url = urlsplit(body["external_study_url"])
        places = parse_qs(url.query)
        if url.scheme != "https" or any(
            places.get(n) != ["{{%" + n + "%}}"] for n in ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID")
        ):
            return _error(400, "external_study_url")
        if body["prolific_id_option"] != "url_parameters" or body["reward"] < 1:
            return _error(400, "prolific_id_option or reward")
        codes = body["completion_codes"]
        if not codes or len({c["code"] for c in codes}) < len(codes):
            return _error(400, "completion_codes: each code must be unique")
        for code in codes:
            good = code["code_type"] in TYPES and code["actor"] in ("participant", "researcher")
            if not good or {a["action"] for a in code["actions"]} - ACTIONS:
                return _error(400, "completion_codes")
        study = f"57d7{len(self.studies):020x}"
        self.studies[study] = {"id": study, "status": "UNPUBLISHED", **body}
        return 201, self.studies[study]

    def _study(self, study: str, **_: Any) -> Answer:
        found = self.studies.get(study)
        return (200, found) if found else _error(404, "not found")

    def _patch(self, study: str, body: Any, **_: Any) -> Answer:
        row = self.studies[study]
        if set(body) - {"total_available_places", "internal_name"}:
            return _error(400, "a published study has only places to change")
        if body["total_available_places"] < row["total_available_places"]:
            return _error(400, "places can only be increased")
        row.update(body)
        return 200, row

    def _publish(self, study: str, body: Any, **_: Any) -> Answer:
        row = self.studies[study]
        if body != {"action": "PUBLISH"} or row["status"] != "UNPUBLISHED":
            return _error(400, f"cannot {body} a study that is {row['status']}")
        row["status"] = "ACTIVE"
        return 200, row

    def _submissions(self, query: dict[str, str], body: Any) -> Answer:
        rows = [s for s in self.submissions.values() if s["study_id"] == query.get("study")]
        shown = [
            {"id": s["id"], "participant_id": s["participant"], "status": s["status"],
             "study_code": s["entered_code"]} for s in rows
        ]  # fmt: skip
        return self._pages(shown, query)

    def _submission(self, submission: str, **_: Any) -> Answer:
        found = self.submissions.get(submission)
        return (200, found) if found else _error(404, "not found")

    def _transition(self, submission: str, body: Any, **_: Any) -> Answer:
        row = self.submissions.get(submission)
        if row is None:
            return _error(404, "not found")
        ends = {"APPROVE": "APPROVED", "REJECT": "REJECTED"}
        if body.get("action") not in ends:
            return _error(400, "action")
        if body["action"] == "REJECT" and (
            len(body.get("message", "")) < 100 or body.get("rejection_category") not in CATEGORIES
        ):
            return _error(400, "message of at least 100 characters, rejection_category")
        end = ends[body["action"]]
        if row["status"] not in ("AWAITING REVIEW", end):
            return _error(400, f"submission is {row['status']}")
        if end == "APPROVED" and row["status"] != end:
            self.paid.append((submission, self.studies[row["study_id"]]["reward"]))
        row["status"] = end
        return 200, row

    def _bonus(self, query: dict[str, str], body: Any) -> Answer:
        lines = [line.split(",") for line in body["csv_bonuses"].split("\n")]
        for submission, amount in lines:
            if self.submissions.get(submission, {}).get("study_id") != body["study_id"]:
                return _error(400, f"unknown {submission}")
            if not re.fullmatch(r"\d+\.\d\d", amount):
                return _error(400, "amount is a decimal of the currency")
        bonus = f"b0000000-{len(self.bonuses):04d}"
        self.bonuses[bonus] = {s: round(float(a) * 100) for s, a in lines}
        total = sum(self.bonuses[bonus].values())
        row = {"id": bonus, "study": body["study_id"], "amount": total, "fees": total / 3,
               "vat": 0, "total_amount": total * 4 / 3}  # fmt: skip
        return 201, row

    def _pay(self, bonus: str, **_: Any) -> Answer:
        # As the real one: asked twice, it pays twice.
        for submission, cents in self.bonuses[bonus].items():
            self.paid.append((submission, cents))
            self.later.append((submission, cents))
        return 202, "is being processed asynchronously"


def _error(status: int, why: str) -> Answer:
    return status, {"error": {"status": status, "title": why, "detail": why}}


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    """Answer on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def handle_one(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(size)
            parts = urlsplit(self.path)
            path = parts.path.removeprefix("/api/v1/")
            query = {k: v[0] for k, v in parse_qs(parts.query).items()}
            fake.calls.append(f"{self.command} {path}")
            failure = fake.failures.pop(0) if fake.failures else None
            done = isinstance(failure, tuple) and failure[0] == "+"
            if failure is None or done:
                told = self.headers.get("Authorization")
                if told != f"Token {TOKEN}":
                    # Some servers repeat what they are sent.
                    answer = _error(401, f"Invalid token {told}")
                elif size and self.headers.get("Content-Type") != "application/json":
                    answer = _error(400, "content type")
                else:
                    answer = fake.answer(self.command, path, query, json.loads(content or b"null"))
                if not done:
                    self.send(*answer)
                    return
                failure = failure[1]
            self.fail(failure)

        do_GET = do_POST = do_PATCH = handle_one

        def fail(self, failure: Any) -> None:
            if failure == "silent":
                fake.released.wait(10)
                self.close_connection = True
            elif failure == "cut":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"id": ')
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            elif isinstance(failure, bytes):
                self.send(200, failure)
            else:
                status, headers = failure if isinstance(failure, tuple) else (failure, {})
                self.send(status, {"error": {"detail": "try again"}}, headers)

        def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    fake.url = f"http://127.0.0.1:{http.server_address[1]}/api/v1/"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        fake.released.set()
        http.shutdown()
        http.server_close()
        thread.join()
