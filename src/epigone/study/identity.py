"""Identity of a step: the hash of what changes its result."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from epigone.files import canonical

_SCALARS = frozenset({str, int, float, bool, type(None)})


def digest(identity: Mapping[str, Any]) -> str:
    """Hex sha256 of the canonical JSON of an identity document.

    Raises TypeError or ValueError for values that have no canonical form.
    """
    # A study of many cells has tens of thousands of documents, all of them plain.
    plain = identity if _plain(identity) else _checked(identity, "identity")
    return hashlib.sha256(canonical(plain).encode()).hexdigest()


def _plain(value: Any) -> bool:
    """Whether a value is made of JSON's own types alone; canonical JSON takes tuples for lists."""
    open_values = [value]
    for part in open_values:
        kind = type(part)
        if kind is dict:
            for key in part:
                if type(key) is not str:
                    return False
            open_values += part.values()
        elif kind is list or kind is tuple:
            open_values += part
        elif kind not in _SCALARS:
            return False
    return True


def _checked(value: Any, where: str) -> Any:
    # json.dumps would turn 1 and "1" as keys into one, and tuples into lists, in silence.
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_checked(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where}: key {key!r} is not a string")
        return {k: _checked(v, f"{where}.{k}") for k, v in value.items()}
    raise TypeError(f"{where}: {type(value).__name__} has no canonical form")


def slug(*axes: str) -> str:
    """A readable folder name made of a step's axes; a long one ends in a hash of what is cut."""
    name = "_".join(part for part in map(_part, axes) if part)
    if len(name) <= 100:
        return name
    return f"{name[:91]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@lru_cache(maxsize=4096)
def _part(axis: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", axis.lower()).strip("-.")


def differences(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Fields in which two identity documents differ, as (path, old, new), sorted by path."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: list[tuple[str, Any, Any]] = []
        for key in sorted({*old, *new}):
            found += differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        return found
    return [] if old == new else [(path, old, new)]
