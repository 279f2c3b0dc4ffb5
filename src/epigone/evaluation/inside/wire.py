"""What the process of a test and that of the code which it tests share: limits, and a wire.

Values are lines of JSON.

Only plain data passes: what arrives has exactly a built-in type, so that no object of the tested
code, with methods of its own, ever stands in an assertion.
"""

from __future__ import annotations

import os
import resource

# A program's process lives for milliseconds: what these import is already there, while `typing`,
# `collections.abc` and `json` take longer to import than Python to start.
from _collections_abc import Iterator, Mapping, Set

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any

# Longest list that an iterator is drawn into.
MOST_DRAWN = 100_000
DEEPEST = 100


def _codec() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    """JSON to and from text, by the C functions of CPython's `json` where they are."""
    try:
        from _json import encode_basestring_ascii, make_encoder, make_scanner
    except ImportError:
        import json

        return json.dumps, json.loads

    class Context:
        strict, memo = True, dict[str, str]()
        object_hook = object_pairs_hook = None
        parse_float, parse_int = float, int
        parse_constant = {"NaN": float("nan"), "Infinity": float("inf"),
                          "-Infinity": -float("inf")}.__getitem__  # fmt: skip

    scan = make_scanner(Context)  # type: ignore[arg-type]

    def encoded(value: Any) -> str:
        # The first argument notices lists inside of themselves.
        chunks = make_encoder(
            {}, refused, encode_basestring_ascii, None, ": ", ", ", False, False, True
        )
        return "".join(chunks(value, 0))

    def decoded(text: str) -> Any:
        try:
            value, end = scan(text, 0)
        except (StopIteration, SystemError):
            # To raise an error of its own, the scanner looks for the module `json`.
            raise ValueError("no JSON") from None
        if text[end:].strip():
            raise ValueError("more than one value")
        return value

    def refused(value: object) -> object:
        raise NotPlain(type(value).__name__)

    return encoded, decoded


class NotPlain(Exception):
    """A value that is no plain data."""


def limit(settings: dict[str, int]) -> None:
    """Lower what this process and its children may use; none can raise a limit again."""
    try:
        # Where memory runs out, the kernel looks for the least loss: here, unless it is taken back.
        with open("/proc/self/oom_score_adj", "w") as f:
            f.write("1000")
    except OSError:
        pass
    for name, most in settings.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        # A soft limit of time ends it by a signal that tells which limit it was.
        resource.setrlimit(kind, (most, most + 1 if name == "RLIMIT_CPU" else most))


def channel() -> tuple[IO[str], IO[str]]:
    """Where lines come from and go to; what else is read or printed from now on is nothing."""
    lines = os.fdopen(os.dup(0), "r", encoding="utf-8", newline="\n")
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    return lines, out


_encoded, _decoded = _codec()


def dumps(value: object) -> str:
    """One line of JSON; raises NotPlain."""
    return _encoded(_pack(value, 0))


def loads(line: str) -> Any:
    """The inverse of `dumps`; raises ValueError for what it never writes."""
    try:
        return _unpack(_decoded(line), 0)
    except (TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError("no value") from error


def _pack(value: Any, depth: int) -> Any:
    if depth > DEEPEST:
        raise NotPlain("nested too deeply")
    if value is None or isinstance(value, bool):
        return value
    # Subclasses pass as what they extend, without their methods.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__pos__(value)
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, complex):
        return {"complex": [complex(value).real, complex(value).imag]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, range):
        # A few bytes here, gigabytes where a test makes a list of it.
        if len(value) > MOST_DRAWN:
            raise NotPlain("a range of so many numbers")
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, list):
        return [_pack(v, depth + 1) for v in value]
    if isinstance(value, tuple):
        return {"tuple": [_pack(v, depth + 1) for v in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_pack(k, depth + 1), _pack(v, depth + 1)] for k, v in value.items()]}
    if isinstance(value, Set):
        kind = "frozenset" if isinstance(value, frozenset) else "set"
        return {kind: [_pack(v, depth + 1) for v in value]}
    if isinstance(value, Iterator):
        drawn: list[Any] = []
        for item in value:
            if len(drawn) == MOST_DRAWN:
                raise NotPlain("an iterator without end")
            drawn.append(_pack(item, depth + 1))
        return {"iterator": drawn}
    raise NotPlain(type(value).__name__)


def _unpack(packed: Any, depth: int) -> Any:
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(packed, list):
        return [_unpack(v, depth + 1) for v in packed]
    if not isinstance(packed, dict):
        return packed
    ((kind, held),) = packed.items()
    if kind == "complex":
        return complex(*held)
    if kind == "bytes":
        return bytes.fromhex(held)
    if kind == "range":
        return range(*held)
    if kind == "dict":
        return {_unpack(k, depth + 1): _unpack(v, depth + 1) for k, v in held}
    values = [_unpack(v, depth + 1) for v in held]
    if kind not in ("tuple", "set", "frozenset", "iterator"):
        raise ValueError("no such kind")
    makers: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset, "iterator": iter}
    return makers[kind](values)
