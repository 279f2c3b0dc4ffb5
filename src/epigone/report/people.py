"""What people said of a study's answers so far, from its rating database."""

from __future__ import annotations

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from epigone.errors import UserError
from epigone.files import write_text
from epigone.runs.verify import snapshot
from epigone.schema import Rating
from epigone.study.rating import Raters

DATABASE, PLACE = "ratings.db", "ratings.place"


def keep_place(root: Path, place: str) -> None:
    """Note where a study's rating database is, a file or a URL; empty for the study's folder."""
    if place:
        root.mkdir(parents=True, exist_ok=True)
        write_text(root / PLACE, place + "\n")
    else:
        (root / PLACE).unlink(missing_ok=True)


def rated(root: Path, asked: Raters | None) -> tuple[list[Rating], str]:
    """Ratings of a study, and a sentence about how far they are and agree; empty without any.

    Rating is no step: a report is made whatever people have done until then. Of a database that is
    no file only the place is told, since a report opens no connections.
    """
    note, file = root / PLACE, root / DATABASE
    place = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
    if "://" in place:
        return [], f"Ratings by people are in {place} (epigone rate export, then agreement)."
    file = Path(place) if place else file
    if not file.is_file():
        if place:
            return [], f"Ratings by people are not shown: {place} is gone."
        if asked is None:
            return [], ""
        return [], "Rating by people is pending: nobody was asked yet (epigone rate STUDY)."
    try:
        with TemporaryDirectory() as folder:
            # The store writes to what it opens: of a mirror that nobody may change, it has a copy.
            mirror = not os.access(file.parent, os.W_OK)
            return _told(snapshot(file, Path(folder)) if mirror else file)
    except ModuleNotFoundError:
        return [], "Ratings by people are not shown: pip install 'epigone[raters]'."


def _told(file: Path) -> tuple[list[Rating], str]:
    from epigone.raters import overview, people
    from epigone.raters.store import Store

    try:
        store = Store(file, create=False)
    except UserError as error:
        return [], f"Ratings by people are not shown: {error}."
    try:
        store.plan()
        progress = overview.pairs(store, time.time())
        ratings = list(people.ratings(store))
    except UserError as error:
        return [], f"Ratings by people are not shown: {error}."
    finally:
        store.close()
    votes, wanted = sum(p.votes for p in progress), sum(p.wanted for p in progress)
    state = "are complete" if votes >= wanted else "are pending"
    said = f"Ratings by people {state}: {votes:,} of {wanted:,} votes."
    found = overview.agreement(ratings)
    if found is not None and found.alpha is not None:
        low, high = found.low, found.high
        span = "" if low is None or high is None else f", 95% {low:.2f} to {high:.2f}"
        said += (f" Raters agree with Krippendorff's alpha {found.alpha:.2f}{span}; two of them "
                 f"choose the same in {found.pairwise:.0%}.")  # fmt: skip
    return ratings, said
