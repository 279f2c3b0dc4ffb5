"""What may be done with a teacher's outputs, as far as it is known."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import yaml

from epigone.errors import CorpusError, UnknownName
from epigone.study.specs import AskSpec, CorpusSpec, FeedbackSpec, TrainSpec

_NON_COMMERCIAL = re.compile(r"\bNC\b|non-?\s?commercial|research[- ]only", re.IGNORECASE)
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


def known_terms(named: str) -> Terms:
    """The terms of a name in a study; raises UnknownName for one that is not in the table."""
    wanted = _plain(named)
    for terms in table().values():
        if wanted in map(_plain, (terms.name, *terms.also)):
            return terms
    raise UnknownName("terms", named, [n for t in table().values() for n in (t.name, *t.also)])


def terms_of(named: str, teacher: str = "") -> Terms:
    """The terms of a name in a study or a row; without one, those of the teacher's maker.

    A name that is not in the table, and a teacher that no entry names, give the unknown terms. Of a
    path, as azure/gpt-4o, the last part counts; of the names that it begins with, the longest.
    """
    if named.strip():
        try:
            return known_terms(named)
        except UnknownName:
            return table()["unknown"]
    parts = [part for part in teacher.strip().casefold().split("/") if part]
    for who in reversed(parts):
        begins = [
            (len(name), terms)
            for terms in table().values()
            for name in terms.teachers
            # "palmyra" is no "palm", and "gpt4all" no "gpt4".
            if who.startswith(name) and not who[len(name) : len(name) + 1].isalnum()
        ]
        if begins:
            return max(begins, key=lambda item: item[0])[1]
    return table()["unknown"]


def terms_in(spec: AskSpec | CorpusSpec | TrainSpec | FeedbackSpec) -> list[Terms]:
    """The terms under which a step's own sources stand, each once; licences that bar business."""
    if isinstance(spec, AskSpec):
        # What the teacher was asked with stands in the corpus beside its answers.
        asked = [terms_of(d.terms) for d in (spec.data, spec.seeds) if d is not None and d.terms]
        return [terms_of(spec.terms, spec.model.name), *asked]
    sources = spec.replay if isinstance(spec, TrainSpec) else spec.sources
    teacher = spec.teacher if isinstance(spec, CorpusSpec) else ""
    found = {
        (own := terms_of(source.terms, source.teacher or teacher)).name: own for source in sources
    }
    for source in sources:
        if _NON_COMMERCIAL.search(source.licence):
            found[source.licence] = Terms(
                name=source.licence,
                title=f"The licence {source.licence}",
                commercial="no",
                says="The licence of the data does not allow commercial use.",
                source="https://spdx.org/licenses/",
                version="",
                read="",
            )
    return list(found.values())


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def terms_named(names: Iterable[str]) -> list[Terms]:
    """The terms of these names; those of one that an older table had are not known."""
    return [table().get(name, table()["unknown"]) for name in names]


def refuse(what: str, found: Iterable[Terms], use: Use) -> None:
    """Raise CorpusError for a use that terms forbid, or that nobody can vouch for."""
    if use != "commercial":
        return
    # What forbids goes before what nobody knows.
    for terms in sorted(found, key=lambda t: t.commercial != "no"):
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
