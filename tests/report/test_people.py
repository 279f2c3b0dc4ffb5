from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from epigone.raters import assign, people, plans
from epigone.raters.assign import Ballot
from epigone.raters.comparisons import Pair
from epigone.raters.store import Store
from epigone.raters.workforces import Arrival
from epigone.report.people import keep_place, rated
from epigone.schema import Message
from epigone.study.rating import Raters


def test_ratings_are_found_where_they_were_made(tmp_path: Path) -> None:
    root, file = tmp_path / "runs", tmp_path / "elsewhere.db"
    assert rated(root, None) == ([], "") and "nobody was asked" in rated(root, Raters())[1]
    store = Store(file)
    keep_place(root, str(file))
    # Made, and not filled: a report is made nevertheless.
    assert "no comparisons in the rating database" in rated(root, None)[1]
    asked = (Message("user", "q"),)
    made = [Pair(f"i{n}", asked, "student", "teacher", f"a{n}", f"b{n}") for n in range(4)]
    plans.prepare(store, "t", made, now=0.0, check_every=0)
    for worker in ("w1", "w2"):
        rater = people.enter(store, "public", Arrival(worker), 0.0).rater
        while (task := assign.desk(store, rater, 1.0).shown) is not None:
            # One for a, the other three for b, whichever side they are on.
            choice = 2 if task.left in ("a0", "b1", "b2", "b3") else -2
            assign.cast(store, rater, task.id, Ballot(choice), 1.0)
    store.close()
    ratings, said = rated(root, None)
    assert len(ratings) == 8 and "pending: 8 of 12 votes" in said
    assert "alpha 1.00" in said and "the same in 100%" in said
    keep_place(root, "postgresql://epigone:***@db/ratings")
    assert rated(root, None) == ([], "Ratings by people are in postgresql://epigone:***@db/ratings "
                                     "(epigone rate export, then agreement).")  # fmt: skip
    keep_place(root, "")
    assert rated(root, None) == ([], "")
