"""What people said of a study's answers so far, from its rating database."""

from __future__ import annotations

import time
from pathlib import Path

from epigone.errors import UserError
from epigone.schema import Rating
from epigone.study.rating import Raters

DATABASE = "ratings.db"


def rated(root: Path, asked: Raters | None) -> tuple[list[Rating], str]:
    """Ratings in the study's folder, and a sentence about what is pending; empty without any.

    Rating is no step: a report is made whatever people have done until then.
    """
    file = root / DATABASE
    if not file.is_file():
        if asked is None:
            return [], ""
        return [], "Rating by people is pending: nobody was asked yet (epigone rate STUDY)."
    try:
        from epigone.raters import overview, people
        from epigone.raters.store import Store
    except ModuleNotFoundError:
        return [], "Ratings by people are not shown: pip install 'epigone[raters]'."
    try:
        store = Store(file, create=False)
    except UserError as error:
        return [], f"Ratings by people are not shown: {error}."
    try:
        progress = overview.pairs(store, time.time())
        ratings = list(people.ratings(store))
    finally:
        store.close()
    votes, wanted = sum(p.votes for p in progress), sum(p.wanted for p in progress)
    state = "are complete" if votes >= wanted else "are pending"
    return ratings, f"Ratings by people {state}: {votes:,} of {wanted:,} votes."
