"""Logs as lines of JSON on stderr, which `--verbose` switches on."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import threading
import traceback
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import quote

HIDDEN = "[hidden]"
_LONGEST, _LONGEST_TRACE = 4_000, 20_000
# What is shorter is no secret, and would be found inside of words.
_SHORTEST = 6
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
# Each begins with fixed characters: a text of megabytes is looked through once.
_SECRET_PLACES = (
    re.compile(r"(://)[^/@\s]+(?=@)"),
    re.compile(r"(\bBearer\s)[^\s'\"]+", re.IGNORECASE),
    re.compile(
        r"([?&][\w-]{0,40}?(?:key|token|secret|signature|password|credential)[\w-]{0,40}=)[^&\s'\"]+",
        re.IGNORECASE,
    ),
)
_told: set[str] = set()
_handler: _Json | None = None


def hide(secret: str) -> None:
    """Keep a secret out of every log of this process."""
    _told.add(secret)


def redacted(text: str) -> str:
    """A text without secrets: those that were told, and the environment's keys and tokens.

    A variable holds one if its name says so.
    """
    named = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    known = [secret for secret in _told | named if len(secret) >= _SHORTEST]
    # The longest first: one secret may begin another.
    for secret in sorted(known, key=len, reverse=True):
        for written in (secret, quote(secret, safe="")):
            text = text.replace(written, HIDDEN)
    for place in _SECRET_PLACES:
        text = place.sub(rf"\1{HIDDEN}", text)
    return text


def on() -> bool:
    """Whether logs are written."""
    return _handler is not None


def start() -> None:
    """Write what is logged to stderr, and what else Python writes there as a log line of its own.

    Epigone's own loggers tell all, others what is not for their debugging.
    """
    global _handler
    if _handler is not None:
        return
    _handler = _Json(sys.stderr)
    root = logging.getLogger()
    root.addHandler(_handler)
    root.setLevel(logging.INFO)
    logging.getLogger("epigone").setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    sys.stderr = _Lines(_handler.stream)


def stop() -> None:
    """Undo `start`."""
    global _handler
    if _handler is None:
        return
    sys.stderr.flush()
    sys.stderr = _handler.stream
    logging.captureWarnings(False)
    logging.getLogger("epigone").setLevel(logging.NOTSET)
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.removeHandler(_handler)
    _handler = None


class _Json(logging.StreamHandler[Any]):
    """One line of JSON for each record, with nothing in it that a terminal would act on."""

    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _bounded(_message(record)),
        }
        if step := getattr(record, "step", ""):
            row["step"] = str(step)
        if trace := getattr(record, "trace", "") or _trace(record):
            row["exception"] = redacted(trace)[-_LONGEST_TRACE:]
        return json.dumps(row)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: it would be said where nothing can be written."""


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # a library's own mistake in its log line
        return f"{record.msg} {record.args!r}"


def _trace(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    return "".join(traceback.format_exception(*record.exc_info))


def _bounded(text: str) -> str:
    # Secrets go before the text is cut, which would leave a part of one.
    text = redacted(text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


class _Lines(io.TextIOBase):
    """Stands for stderr: each line that is written to it becomes one of the log."""

    def __init__(self, behind: IO[str]) -> None:
        self._behind = behind
        self._rest = ""
        self._lock = threading.RLock()
        self._log = logging.getLogger("stderr")

    def writable(self) -> bool:
        """It is there to be written to."""
        return True

    def fileno(self) -> int:
        """The file that programs are given to write to."""
        return self._behind.fileno()

    def write(self, text: str) -> int:
        """Log the lines that end in it."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                self._tell(line)
            if len(self._rest) > _LONGEST:
                self._end()
        return len(text)

    def flush(self) -> None:
        """Log the line that has not ended."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        rest, self._rest = self._rest, ""
        self._tell(rest)

    def _tell(self, line: str) -> None:
        if line.strip():
            self._log.info("%s", line.rstrip())
