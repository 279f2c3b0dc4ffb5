"""The reported scores of a study: its files of them read, and every row put to a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from epigone.errors import UnknownName, UserError
from epigone.study.declare import Declaration
from epigone.study.file import located, read_published
from epigone.study.published import (
    PAPER,
    SHIPPED,
    Figure,
    Published,
    PublishedFile,
    check,
    place_of,
)
from epigone.study.steps import Expansion
from epigone.study.values import Mistake


@dataclass(frozen=True, slots=True)
class Reported:
    """A reported score, the model of the study that it is of, and whose number it is."""

    model: str
    row: Published
    cite: str = ""


@dataclass(frozen=True, slots=True)
class Publications:
    """All that a study takes from elsewhere."""

    scores: tuple[Reported, ...] = ()
    figures: tuple[Figure, ...] = ()


def publications(
    declaration: Declaration,
    expansion: Expansion,
    file: Path,
    text: Callable[[str], Path] | None = None,
) -> Publications:
    """The reported scores of a study whose file is `file`; `text` says where one of theirs lies.

    Raises StudyFileError, with the place in the file of the row, for a name that the study does
    not have and for a score told twice.
    """
    found: dict[tuple[str, str], Reported] = {}
    figures: list[Figure] = []
    for i, entry in enumerate(declaration.reported):
        if entry.source_file is None:
            _add(found, entry, "", declaration, expansion, file, ("reported", i))
            continue
        try:
            named = entry.source_file
            own = named if text is None or named in SHIPPED else str(text(named))
            path = place_of(own, file.parent)
        except UserError as error:
            raise located(Mistake(("reported", i), error), file) from None
        told = read_published(path)
        figures += told.figures
        for k, row in enumerate(told.rows):
            _add(found, row, told.cite, declaration, expansion, path, ("rows", k))
    return Publications(tuple(found.values()), tuple(figures))


def _add(
    found: dict[tuple[str, str], Reported],
    row: Published,
    cite: str,
    declaration: Declaration,
    expansion: Expansion,
    path: Path,
    where: tuple[str | int, ...],
) -> None:
    """Put a row, which stands at `where` in the file `path`, to its model."""
    tasks = [b.label for b in declaration.evaluate.benchmarks]
    try:
        check(row, declaration.amounts, tasks, declaration.seeds)
        key = (_model(row, expansion), row.metric)
        taken = row.teacher is not None and {row.metric, row.task} & {*declaration.teacher.reported}
        if key in found or taken:
            raise Mistake((), UserError("a score reported twice", value=": ".join(key)))
    except Mistake as mistake:
        raise located(Mistake((*where, *mistake.where), mistake.error), path) from None
    found[key] = Reported(key[0], row, cite)


def paper() -> PublishedFile:
    """The numbers of the paper whose study this is."""
    return read_published(place_of(PAPER, Path()))


def _model(row: Published, expansion: Expansion) -> str:
    """The model that a row is of; Mistake for a base or a variant that the study does not have."""
    if row.teacher is not None:
        return expansion.teacher
    own = [s for s in expansion.subjects if s.base == row.base]
    if not own:
        bases = dict.fromkeys(s.base for s in expansion.subjects)
        raise Mistake(("base",), UnknownName("base", row.base, bases))
    if not row.corpus:
        return row.base
    students = [s for s in own if s.cell is not None and s.cell.corpus == row.corpus]
    cells = {s.model: s.cell for s in students if s.cell is not None}
    seed = expansion.cells()[0].seed if row.seed is None else row.seed
    for model, cell in cells.items():
        if (cell.amount, cell.seed, cell.variant) == (row.amount, seed, row.variant):
            return model
    variants = dict.fromkeys(c.variant or "none" for c in cells.values())
    raise Mistake(("variant",), UnknownName("variant", row.variant or "none", variants))
