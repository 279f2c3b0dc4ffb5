"""Mechanical Turk's requester API on this machine: strict with callers, and failing as it does."""

from __future__ import annotations

import json
import re
import socket
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

KEY = "AKIAFAKEFAKEFAKE"
TARGET = "MTurkRequesterServiceV20170117."
SPACE = (
    "{http://mechanicalturk.amazonaws.com/AWSMechanicalTurkDataSchemas/2006-07-14/"
    "ExternalQuestion.xsd}"
)
SIGNED = re.compile(
    rf"AWS4-HMAC-SHA256 Credential={KEY}/\d{{8}}/us-east-1/mturk-requester/aws4_request, "
    r"SignedHeaders=[\w;-]*host[\w;-]*, Signature=[0-9a-f]{64}"
)
Money = re.compile(r"[0-9]+\.[0-9]{2}")


class Refused(Exception):
    """A RequestError with Amazon's own code."""


@dataclass
class Fake:
    """HITs, assignments and payments; what to fail with; what came.

    A failure of `failures` comes instead of an answer: a (status, code), "cut" for a connection
    that ends, "broken" for JSON that does; after a "+", the request is carried out all the same.
    """

    hits: dict[str, dict[str, Any]] = field(default_factory=dict)
    assignments: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    paid: list[tuple[str, str]] = field(default_factory=list)
    bonuses: list[dict[str, Any]] = field(default_factory=list)
    failures: list[Any] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    page: int = 100
    url: str = ""

    def assignment(self, hit: str, status: str = "Submitted") -> dict[str, Any]:
        """A worker accepts, and hands in unless the status is empty."""
        row = {
            "AssignmentId": f"3ASSIGN{len(self.assignments):04d}", "HITId": hit,
            "WorkerId": f"A1WORKER{len(self.assignments):04d}", "AssignmentStatus": status,
        }  # fmt: skip
        self.assignments[row["AssignmentId"]] = row
        return row

    def answer(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the API does and says; raises Refused."""
        work = getattr(self, f"_{operation}", None)
        if work is None:
            raise Refused("UnknownOperation")
        found: dict[str, Any] = work(body)
        return found

    def _once(self, body: dict[str, Any], code: str, made: str) -> None:
        token = body.get("UniqueRequestToken", "")
        if not 1 <= len(token) <= 64:
            raise Refused("ParameterValidationError")
        if token in self.tokens:
            raise Refused(code)
        self.tokens[token] = made

    def _CreateHIT(self, body: dict[str, Any]) -> dict[str, Any]:
        kinds = {"Title": str, "Description": str, "Reward": str, "LifetimeInSeconds": int,
                 "AssignmentDurationInSeconds": int, "Question": str}  # fmt: skip
        if any(type(body.get(name)) is not kind for name, kind in kinds.items()):
            raise Refused("ParameterValidationError")
        if not Money.fullmatch(body["Reward"]) or len(body["Question"].encode()) > 65_535:
            raise Refused("ParameterValidationError")
        root = ET.fromstring(body["Question"])
        url, height = root.find(f"{SPACE}ExternalURL"), root.find(f"{SPACE}FrameHeight")
        if root.tag != f"{SPACE}ExternalQuestion" or url is None or height is None:
            raise Refused("XMLParseError")
        if urlsplit(url.text or "").scheme != "https" or height.text != "0":
            raise Refused("XMLParseError")
        for need in body.get("QualificationRequirements", []):
            if set(need) != {"QualificationTypeId", "Comparator", "IntegerValues",
                             "ActionsGuarded"}:  # fmt: skip
                raise Refused("ParameterValidationError")
        hit = f"3HIT{len(self.hits):06d}"
        self._once(body, "HitAlreadyExists", hit)
        self.hits[hit] = {"HITId": hit, "HITStatus": "Assignable", **body}
        return {"HIT": {"HITId": hit, "HITStatus": "Assignable"}}

    def _pages(self, rows: list[Any], name: str, body: dict[str, Any]) -> dict[str, Any]:
        start, size = int(body.get("NextToken", "p0")[1:]), min(body["MaxResults"], self.page)
        more = {"NextToken": f"p{start + size}"} if start + size < len(rows) else {}
        part = rows[start : start + size]
        return {name: part, "NumResults": len(part), **more}

    def _GetHIT(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["HITId"] not in self.hits:
            raise Refused("HITDoesNotExist")
        hidden = ("UniqueRequestToken", "LifetimeInSeconds")
        return {"HIT": {k: v for k, v in self.hits[body["HITId"]].items() if k not in hidden}}

    def _ListHITs(self, body: dict[str, Any]) -> dict[str, Any]:
        shown = ("HITId", "HITStatus", "RequesterAnnotation", "Expiration")
        rows = [{k: h[k] for k in shown if k in h} for h in self.hits.values()]
        return self._pages(rows, "HITs", body)

    def _ListAssignmentsForHIT(self, body: dict[str, Any]) -> dict[str, Any]:
        rows = [a for a in self.assignments.values()
                if a["HITId"] == body["HITId"] and a["AssignmentStatus"]]  # fmt: skip
        return self._pages(rows, "Assignments", body)

    def _known(self, body: dict[str, Any]) -> dict[str, Any]:
        found = self.assignments.get(body["AssignmentId"])
        if found is None:
            raise Refused("AssignmentDoesNotExist")
        return found

    def _GetAssignment(self, body: dict[str, Any]) -> dict[str, Any]:
        found = self._known(body)
        if not found["AssignmentStatus"]:
            raise Refused("InvalidAssignmentState")
        return {"Assignment": found}

    def _end(self, body: dict[str, Any], status: str) -> dict[str, Any]:
        found = self._known(body)
        if found["AssignmentStatus"] != "Submitted":
            raise Refused("InvalidAssignmentState")
        found["AssignmentStatus"] = status
        return {}

    def _ApproveAssignment(self, body: dict[str, Any]) -> dict[str, Any]:
        out = self._end(body, "Approved")
        found = self._known(body)
        self.paid.append((found["AssignmentId"], self.hits[found["HITId"]]["Reward"]))
        return out

    def _RejectAssignment(self, body: dict[str, Any]) -> dict[str, Any]:
        if not body.get("RequesterFeedback"):
            raise Refused("ParameterValidationError")
        return self._end(body, "Rejected")

    def _SendBonus(self, body: dict[str, Any]) -> dict[str, Any]:
        if not Money.fullmatch(body["BonusAmount"]) or not body["Reason"]:
            raise Refused("ParameterValidationError")
        if self._known(body)["WorkerId"] != body["WorkerId"]:
            raise Refused("AssignmentDoesNotExist")
        self._once(body, "DuplicateRequest", body["AssignmentId"])
        self.bonuses.append({k: body[k] for k in ("WorkerId", "AssignmentId", "BonusAmount")})
        return {}

    def _ListBonusPayments(self, body: dict[str, Any]) -> dict[str, Any]:
        rows = [b for b in self.bonuses if b["AssignmentId"] == body["AssignmentId"]]
        return self._pages(rows, "BonusPayments", body)

    def _GetAccountBalance(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"AvailableBalance": "10000.00"}


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    """Answer on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            operation = self.headers.get("X-Amz-Target", "").removeprefix(TARGET)
            fake.calls.append(operation)
            failure = fake.failures.pop(0) if fake.failures else None
            done = isinstance(failure, tuple) and failure[0] == "+"
            status, answer = 200, {}
            if failure is None or done:
                status, answer = self.answer(operation, content)
            if done:
                failure = failure[1]
            if failure is None:
                self.send(status, json.dumps(answer).encode())
            elif failure == "cut":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            elif failure == "broken":
                self.send(200, b'{"HIT": {"HIT')
            else:
                status, code = failure
                told = {"__type": code, "Message": "no"}
                self.send(status, json.dumps(told).encode())

        def answer(self, operation: str, content: bytes) -> tuple[int, dict[str, Any]]:
            signed = SIGNED.fullmatch(self.headers.get("Authorization", ""))
            if not signed or not self.headers.get("X-Amz-Date"):
                return 403, {"__type": "InvalidSignatureException", "Message": "not signed"}
            if self.headers.get("Content-Type") != "application/x-amz-json-1.1":
                return 400, {"__type": "SerializationException", "Message": "content type"}
            try:
                return 200, fake.answer(operation, json.loads(content))
            except Refused as error:
                code = f"AWS.MechanicalTurk.{error}"
                return 400, {"__type": "RequestError", "Message": f"refused ({code})",
                             "TurkErrorCode": code}  # fmt: skip

        def send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    fake.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
