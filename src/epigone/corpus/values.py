"""The values of a file, whole or broken, as a stream of bounded memory: JSON."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epigone.corpus.compressed import Reader

_CHUNK = 1 << 20
# Characters of a lost text that are remembered; whoever shows it redacts it before cutting it.
SHOWN = 500
# A value that needs more characters than this is taken for a broken one.
_LONGEST = 1 << 26
_BETWEEN = re.compile(r"[\s,\ufeff]*")
_EXPORT = re.compile(
    r'[\s\ufeff]*\{\s*"(?:(?:guild|channel|dateRange|exportedAt)"\s*:'
    r'|messages"\s*:\s*\[\s*\{\s*"id"\s*:\s*"\d+"\s*,\s*"type"\s*:)'
)
_MEMBER = re.compile(r'[\s,]*"([^"\\]{1,100})"\s*:\s*')
# What a Discord export says behind its messages: how many they are.
_CLOSING = re.compile(r'\s*(?:"\w{1,40}"\s*:\s*\w{0,40}\s*,?\s*){0,5}\}\s*')
_AGAIN = {"array": re.compile(r",\s*(?=\{)"), "lines": re.compile(r"\n\s*(?=\{)")}


@dataclass(frozen=True, slots=True)
class Whole:
    """A value and the place behind it; `fault` says why it is not to be trusted.

    The place is a byte offset, in Parquet and Arrow files a row's number.
    """

    value: Any
    end: int
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """A stretch of bytes (or rows) that holds no value; `text` is how it begins."""

    offset: int
    bytes: int
    reason: str
    text: str
    rows: int = 0


class Values:
    """The values of a JSON array, or of JSON values that follow one another (JSON lines).

    `shape` is "array", "lines", or "" where the file begins with neither `[` nor `{`; then
    nothing is yielded. The `messages` of a Discord export's one object are an array too.
    Behind a broken value, reading goes on at the next object for which `known` holds. The byte
    offset of what comes next is `at`.
    """

    def __init__(self, path: Path, known: Callable[[Any], bool]) -> None:
        """Open the file and look at how it begins."""
        self._file = Reader(path)
        # Invalid bytes become lone surrogates, so that byte offsets stay exact.
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._json = json.JSONDecoder(strict=False, object_pairs_hook=self._object)
        self._doubled = False
        self._inside = False
        self._known = known
        self._text = ""
        self._pos = 0
        self._eof = False
        self.at = 0
        self._fill()
        self.head = self._text[:200]
        self._move(self._skip())
        first = self._text[self._pos : self._pos + 1]
        self.shape = {"[": "array", "{": "lines"}.get(first, "")
        if _EXPORT.match(self._text):
            self._enter()

    def __enter__(self) -> Values:
        """The values themselves; the file is closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    @property
    def fault(self) -> str:
        """Why the file could be unpacked only so far."""
        return self._file.fault

    def __iter__(self) -> Iterator[Whole | Lost]:
        """Whole values and lost stretches, in the file's order; once."""
        if not self.shape:
            return
        if self.shape == "array":
            self._move(self._pos + 1)
        while True:
            self._move(self._skip())
            if self._pos == len(self._text):
                if self.shape == "array":
                    yield Lost(self.at, 0, "cut off between two values", "")
                return
            if self.shape == "array" and self._text[self._pos] == "]":
                yield from self._rest()
                return
            try:
                value, end = self._decode(self._pos)
            except (ValueError, RecursionError) as error:
                yield self._broken(error)
                if self._pos == len(self._text):
                    return
            else:
                fault = "duplicate key" if self._doubled else ""
                if not self._move(end):
                    fault = "invalid UTF-8"
                yield Whole(value, self.at, fault)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        self._doubled = self._doubled or len(made) != len(pairs)
        return made

    def _enter(self) -> None:
        """Move to the `[` of the root object's `messages`, if that is near its beginning."""
        place = self._text.index("{", self._pos) + 1
        while member := _MEMBER.match(self._text, place):
            if member[1] == "messages" and self._text[member.end() : member.end() + 1] == "[":
                self._move(member.end())
                self.shape, self._inside = "array", True
                return
            try:
                _, place = self._json.raw_decode(self._text, member.end())
            except (ValueError, RecursionError):
                return

    def _fill(self) -> None:
        # Reading as much again as is waiting keeps a long value from being parsed over and over.
        data = self._file.read(max(_CHUNK, len(self._text) - self._pos))
        self._eof = not data
        self._text = self._text[self._pos :] + self._utf8.decode(data, final=self._eof)
        self._pos = 0

    def _move(self, end: int) -> bool:
        passed = self._text[self._pos : end]
        self._pos = end
        try:
            self.at += len(passed) if passed.isascii() else len(passed.encode())
        except UnicodeEncodeError:
            self.at += len(passed.encode("utf-8", "surrogateescape"))
            return False
        return True

    def _skip(self) -> int:
        while True:
            end = _BETWEEN.match(self._text, self._pos).end()  # type: ignore[union-attr]
            if end < len(self._text) or self._eof:
                return end
            self._move(end)
            self._fill()

    def _decode(self, start: int) -> tuple[Any, int]:
        ahead = start - self._pos
        while True:
            start = self._pos + ahead
            self._doubled = False
            try:
                value, end = self._json.raw_decode(self._text, start)
            except json.JSONDecodeError as error:
                short = error.msg.startswith("Unterminated") or error.pos > len(self._text) - 16
                if self._eof or not short or len(self._text) - start > _LONGEST:
                    raise
            else:
                # A number that touches the end of the buffer may go on behind it.
                if end < len(self._text) or self._eof:
                    return value, end
            self._fill()

    def _broken(self, error: Exception) -> Lost:
        cut = self._eof and isinstance(error, json.JSONDecodeError)
        begin, text = self.at, self._text[self._pos : self._pos + SHOWN]
        resumed = self._resume()
        if resumed or not cut:
            reason = f"broken JSON: {getattr(error, 'msg', error)}"
        else:
            inside = str(getattr(error, "msg", "")).startswith("Unterminated")
            reason = "cut off in mid-string" if inside else "cut off"
        return Lost(begin, self.at - begin, reason, text)

    def _resume(self) -> bool:
        """Move to the next good value; if there is none, to the end of the file."""
        start = self._pos + 1
        while True:
            found = _AGAIN[self.shape].search(self._text, start)
            if found is None:
                if self._eof:
                    self._move(len(self._text))
                    return False
                # What parts two values may itself lie across the border.
                self._move(max(self._pos, len(self._text) - 4096))
                self._fill()
                start = 0
                continue
            ahead = found.end() - self._pos
            try:
                value, _ = self._decode(found.end())
            except (ValueError, RecursionError):
                start = self._pos + ahead
                continue
            if self._known(value):
                self._move(self._pos + ahead)
                return True
            start = self._pos + ahead

    def _rest(self) -> Iterator[Lost]:
        self._move(self._pos + 1)
        self._move(self._skip())
        begin, text = self.at, self._text[self._pos : self._pos + SHOWN]
        closing = self._inside and _CLOSING.fullmatch(text) is not None
        while self._pos < len(self._text) or not self._eof:
            self._move(len(self._text))
            self._fill()
        if self.at > begin and not closing:
            yield Lost(begin, self.at - begin, "text behind the array's end", text)
