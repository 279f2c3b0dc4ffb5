"""What may be done with a teacher's outputs, as far as it is known."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import yaml

from epigone.errors import CorpusError
from epigone.study.specs import CorpusSpec

Use = Literal["research", "commercial"]
Allowed = Literal["no", "yes", "conditions", "unknown"]


@dataclass(frozen=True, slots=True)
class Terms:
    """Known terms: what they say, where they stand, their own date, and the day they were read."""

    name: str
    title: str
    commercial: Allowed
    says: str
    source: str
    version: str
    read: str
    also: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()


@functools.cache
def table() -> Mapping[str, Terms]:
    """All known terms by name."""
    text = resources.files("epigone.study").joinpath("terms.yaml").read_text(encoding="utf-8")
    rows: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return {
        name: Terms(
            name=name,
            **{
                **row,
                "also": tuple(row.get("also", ())),
                "teachers": tuple(row.get("teachers", ())),
            },
        )
        for name, row in rows.items()
    }


def terms_of(named: str, teacher: str = "") -> Terms:
    """The terms of a name in a study or a row; without one, those of the teacher's maker.

    A name that is not in the table, and a teacher that no entry names, give the unknown terms.
    """
    wanted = named.strip().casefold()
    for terms in table().values():
        if wanted and wanted in (terms.name, *terms.also):
            return terms
    if not wanted:
        who = teacher.strip().casefold()
        for terms in table().values():
            if who.startswith(terms.teachers):
                return terms
    return table()["unknown"]


def terms_in(spec: CorpusSpec) -> list[Terms]:
    """The terms under which a corpus's sources stand, each once."""
    found = {
        (own := terms_of(source.terms, source.teacher or spec.teacher)).name: own
        for source in spec.sources
    }
    return list(found.values())


def terms_named(names: Iterable[str]) -> list[Terms]:
    """The terms of these names; those of one that an older table had are not known."""
    return [table().get(name, table()["unknown"]) for name in names]


def refuse(what: str, found: Iterable[Terms], use: Use) -> None:
    """Raise CorpusError for a use that terms forbid, or that nobody can vouch for."""
    if use != "commercial":
        return
    for terms in found:
        if terms.commercial == "no":
            raise CorpusError(
                f"the terms of {what} forbid commercial use: {terms.says}",
                value=terms.name,
                fix=f"see {terms.source}; leave the data out, or ask its maker",
            )
        if terms.commercial == "unknown":
            raise CorpusError(
                f"the terms of {what} are not known, so that commercial use cannot be vouched for",
                value=terms.name,
                fix=f"name them with 'terms'; known: {', '.join(list(table())[:-1])}",
            )
