"""What a judge is told to heed: rubrics of ours and of users, with places for the texts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from epigone.errors import UnknownName, UserError
from epigone.models.marks import PLACE
from epigone.models.received import sound
from epigone.study.judge import PROTOCOLS

# The places that the rubric of a protocol has, each once.
PLACES: Mapping[str, tuple[str, ...]] = {
    "pairwise": ("conversation", "first", "second"),
    "score": ("conversation", "first", "second"),
    "tone": ("conversation", "answer"),
    "correct": ("conversation", "answer"),
}
_LARGEST = 100_000


def rubrics(file: Path | None, protocols: Sequence[str]) -> dict[str, str]:
    """The rubric of each protocol: those of a user's file, and ours for the others.

    Raises UserError for a file that cannot be read, a protocol that is not among
    these, or a place too many or few.
    """
    found = dict(_shipped())
    if file is not None:
        own = _read(file)
        for name in own:
            if name not in protocols:
                raise UserError(
                    "a rubric of what is not asked", value=name,
                    fix=f"ask for it, or take it out of {file}",
                )  # fmt: skip
        found |= own
    return {name: found[name] for name in protocols}


def fingerprint(told: Mapping[str, str]) -> str:
    """A short hash of rubrics, by which results of others are told apart."""
    text = "\x00".join(f"{name}\x00{told[name]}" for name in sorted(told))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def shipped() -> str:
    """Our own rubrics, as the text of a file that `rubrics` takes."""
    return (files("epigone.evaluation.judge") / "rubrics.yaml").read_text(encoding="utf-8")


@cache
def _shipped() -> Mapping[str, str]:
    told: dict[str, str] = yaml.safe_load(shipped())
    return told


def _read(file: Path) -> dict[str, str]:
    try:
        if file.stat().st_size > _LARGEST:
            raise UserError("a rubric of more than 100 kB", value=str(file))
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("the rubric cannot be read", value=str(file), fix=str(error)) from None
    except (yaml.YAMLError, RecursionError) as error:
        line = str(error).replace("\n", " ")[:200]
        raise UserError("the rubric is no YAML", value=str(file), fix=line) from None
    form = "one line or more as 'pairwise: |-' with the text indented below it"
    if not isinstance(told, dict) or not told:
        raise UserError("no rubric in the file", value=str(file), fix=form)
    for name, text in told.items():
        if name not in PROTOCOLS:
            raise UnknownName("protocol of a rubric", str(name), PROTOCOLS)
        if not isinstance(text, str):
            raise UserError(f"the rubric {name} is no text", value=str(file), fix=form)
        _check(name, text)
    return {name: sound(text) for name, text in told.items()}


def _check(name: str, text: str) -> None:
    named = PLACE.findall(text)
    for place in PLACES[name]:
        if named.count(place) != 1:
            what = f"the rubric {name} needs the place {{{{{place}}}}} once"
            raise UserError(what, value=f"{named.count(place)} times")
    for place in named:
        if place not in PLACES[name]:
            known = ", ".join(f"{{{{{p}}}}}" for p in PLACES[name])
            raise UserError(f"the rubric {name} has another place", value=place, fix=known)
