"""What the process of a test and that of the code which it tests share: limits, and a wire.

Values are lines of JSON.

Only plain data passes: what arrives has exactly a built-in type, so that no object of the tested
code, with methods of its own, ever stands in an assertion.
"""

import json
import os
import resource
from collections.abc import Iterator, Mapping, Set
from typing import IO, Any

# Longest list that an iterator is drawn into.
MOST_DRAWN = 100_000
DEEPEST = 100


class NotPlain(Exception):
    """A value that is no plain data."""


def limit(settings: dict[str, int]) -> None:
    """Lower what this process and its children may use; none can raise it again."""
    try:
        # Where memory runs out, the kernel looks for the least loss: here.
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


def dumps(value: object) -> str:
    """One line of JSON; raises NotPlain."""
    return json.dumps(_pack(value, 0))


def loads(line: str) -> Any:
    """The inverse of `dumps`; raises ValueError for what it never writes."""
    try:
        return _unpack(json.loads(line), 0)
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
