from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from epigone.errors import UserError
from epigone.raters import assign, logins, people, plans
from epigone.raters.assign import Ballot, TaskGone
from epigone.raters.comparisons import read_checks
from epigone.raters.store import Store
from epigone.raters.tables import Comparison, Task, Vote
from epigone.raters.workforces import Arrival

from .databases import emptied
from .rating_site import pairs

LEASE = 100.0


@pytest.fixture
def store(memory: Path) -> Iterator[Store]:
    made = Store(memory / "r.db")
    yield made
    assert_counted(made)
    made.close()


@pytest.fixture(params=["sqlite", "postgres"])
def either(request: pytest.FixtureRequest, memory: Path) -> Iterator[Store]:
    sqlite = request.param == "sqlite"
    made = Store(memory / "r.db" if sqlite else request.getfixturevalue("server"))
    yield made
    assert_counted(made)
    made.close()
    if not sqlite:
        emptied(request.getfixturevalue("server"))


def assert_counted(store: Store) -> None:
    """Whatever happened, the slots that are said to be taken are those that tasks hold."""
    said = dict(store.read(lambda s: s.execute(select(Comparison.id, Comparison.taken)).all()))
    held = store.read(lambda s: s.scalars(select(Task.comparison_id).where(Task.slot >= 0)).all())
    assert said == {**dict.fromkeys(said, 0), **Counter(held)}


def come(store: Store, name: str, now: float = 0.0) -> int:
    return people.enter(store, "public", Arrival(name), now).rater


def prepared(store: Store, n: int, models: tuple[str, ...] = ("m1", "m2"), **plan: int) -> Store:
    checks = read_checks() if plan.pop("checks", 0) else []
    plan.setdefault("check_every", 3 if checks else 0)
    plans.prepare(store, "t", [*pairs(n, models), *checks], now=0.0, lease=LEASE, **plan)
    return store


def votes_by_comparison(store: Store) -> Counter[tuple[str, str, str]]:
    return Counter((r.item, r.a, r.b) for r in people.ratings(store) if r.purpose == "item")


def all_of_them(store: Store, rater: int, now: float = 1.0) -> list[assign.Shown]:
    seen = []
    while (task := assign.desk(store, rater, now).shown) is not None:
        seen.append(task)
        assign.cast(store, rater, task.id, Ballot(1), now)
    return seen


def test_every_comparison_is_rated_by_k_distinct_raters_though_many_drop_out(either: Store) -> None:
    """A day of raters who come, vote, leave in the middle, and return, by a clock of our own."""
    prepared(either, 6, per_item=2, per_rater=5, checks=1)
    rng, now = random.Random(1), 0.0
    at_work: dict[int, str] = {}
    for number in range(40):
        now += rng.random() * 40
        rater = come(either, f"w{number % 25}", now)
        for _ in range(rng.randint(1, 8)):
            task = assign.desk(either, rater, now).shown
            if task is None:
                break
            at_work[rater] = task.id
            now += rng.random() * 20
            if rng.random() < 0.3:
                break  # with the task in hand
            try:
                assign.cast(either, rater, task.id, Ballot(rng.randint(-2, 2)), now)
            except TaskGone:
                continue
    # Those who dropped out come back, long after their leases.
    for rater, task in at_work.items():
        now += 1
        with suppress(TaskGone):
            assign.cast(either, rater, task, Ballot(0), now + LEASE)
    for number in range(12):
        all_of_them(either, come(either, f"late{number}"), now + 3 * LEASE)
    counts = votes_by_comparison(either)
    assert len(counts) == 12
    assert set(counts.values()) == {2}
    raters = Counter((r.rater, r.item) for r in people.ratings(either) if r.purpose == "item")
    assert max(raters.values()) == 1  # nobody sees a prompt's teacher twice, beside two models
    per_rater = Counter(r.rater for r in people.ratings(either) if r.purpose == "item")
    assert max(per_rater.values()) <= 5


def test_raters_at_once_never_fill_a_place_twice(either: Store) -> None:
    prepared(either, 6, ("m1",), per_item=3, per_rater=6)
    raters = [come(either, f"w{n}") for n in range(8)]
    failures: list[BaseException] = []

    def work(rater: int) -> None:
        try:
            all_of_them(either, rater)
        except (IntegrityError, TaskGone) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(rater,)) for rater in raters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert set(votes_by_comparison(either).values()) == {3}
    assert votes_by_comparison(either).total() == 18


def test_the_database_itself_refuses_a_vote_too_many(either: Store) -> None:
    prepared(either, 1, ("m1",), per_item=2)
    for n in range(2):
        assert assign.desk(either, come(either, f"w{n}"), 0.0).shown is not None
    with pytest.raises(IntegrityError):
        either.write(lambda session: session.execute(update(Task).values(slot=0)))


def test_a_vote_is_counted_once_however_often_it_is_sent(store: Store) -> None:
    prepared(store, 3, ("m1",))
    rater = come(store, "w")
    task = assign.desk(store, rater, 0.0).shown
    assert task is not None
    for now in (10.0, 11.0, 12.0):
        assign.cast(store, rater, task.id, Ballot(2, ("clear",), "so", 4.0), now)
    (rating,) = people.ratings(store)
    assert (rating.seconds, rating.reasons, rating.comment) == (4.0, ("clear",), "so")
    assert abs(rating.preference or 0) == 2
    assert len(store.read(lambda session: list(session.scalars(select(Vote))))) == 1


def test_the_last_vote_can_be_changed_until_the_next_one(store: Store) -> None:
    prepared(store, 3, ("m1",))
    rater = come(store, "w")
    first = assign.desk(store, rater, 0.0).shown
    assert first is not None
    assign.cast(store, rater, first.id, Ballot(2), 5.0)
    back = assign.previous(store, rater)
    assert back is not None and back.preference == 2 and back.left == first.left
    second = assign.desk(store, rater, 6.0).shown
    assert second is not None and second.id != first.id
    assign.cast(store, rater, first.id, Ballot(-1), 7.0)
    assign.cast(store, rater, second.id, Ballot(0), 8.0)
    with pytest.raises(TaskGone):
        assign.cast(store, rater, first.id, Ballot(0), 9.0)
    kept = {r.item: r.preference for r in people.ratings(store)}
    assert sorted(abs(p or 0) for p in kept.values()) == [0, 1]
    assert len(store.read(lambda session: list(session.scalars(select(Vote))))) == 3


def test_a_task_is_the_same_after_a_reload_and_its_side_as_well(store: Store) -> None:
    prepared(store, 4, ("m1",))
    rater = come(store, "w")
    first = assign.desk(store, rater, 0.0).shown
    again = assign.desk(store, rater, 50.0).shown
    # Its lease ran out, but nobody took it.
    later = assign.desk(store, rater, 50.0 + 2 * LEASE).shown
    assert first == again == later


def test_an_abandoned_task_goes_to_somebody_else_and_a_late_vote_is_refused(either: Store) -> None:
    prepared(either, 1, ("m1",), per_item=1)
    gone, other = come(either, "gone"), come(either, "other")
    task = assign.desk(either, gone, 0.0).shown
    assert task is not None
    fresh = come(either, "fresh")
    assert assign.progress(either, gone) == assign.Progress(0, 1)
    assert assign.progress(either, fresh) == assign.Progress(0, 0)  # of a place that is taken
    nothing = assign.desk(either, other, LEASE)
    assert (nothing.shown, nothing.later, nothing.progress.total) == (None, True, 0)
    taken = assign.desk(either, other, LEASE + 1).shown
    assert taken is not None
    with pytest.raises(TaskGone):
        assign.cast(either, gone, task.id, Ballot(1), LEASE + 2)
    assert assign.desk(either, gone, LEASE + 2).shown is None
    with pytest.raises(TaskGone):
        assign.cast(either, other, task.id, Ballot(1), LEASE + 2)  # another's task
    assign.cast(either, other, taken.id, Ballot(1), LEASE + 2)
    assert votes_by_comparison(either).total() == 1
    assert not assign.desk(either, come(either, "late"), LEASE + 2).later


def test_models_are_rated_equally_often_at_any_time(memory: Path) -> None:
    store = prepared(Store(memory / "r.db"), 12, ("m1", "m2", "m3"), per_item=2, per_rater=7)
    for n in range(6):
        all_of_them(store, come(store, f"w{n}"))
        by_pair = Counter((r.a, r.b) for r in people.ratings(store))
        assert max(by_pair.values()) - min(by_pair.values()) <= 1


def test_sides_are_even_stored_and_nobodys_habit(memory: Path) -> None:
    store = prepared(Store(memory / "r.db"), 20, ("m1",), per_item=5, per_rater=20)
    raters = [come(store, f"w{n}") for n in range(5)]
    for rater in raters:
        all_of_them(store, rater)
    ratings = list(people.ratings(store))
    left = [r.left == "a" for r in ratings]
    # 100 throws of a fair coin: five standard deviations are 25.
    assert abs(sum(left) - 50) < 25
    by_item = defaultdict(set)
    for r in ratings:
        by_item[r.item].add(r.left)
    assert sum(len(sides) == 2 for sides in by_item.values()) > 10
    # "Left is better" was clicked throughout: it counts for whichever was there.
    assert all((r.preference == 1) is (r.left == "a") for r in ratings)


def test_training_comes_first_then_a_check_in_every_block(memory: Path) -> None:
    store = prepared(Store(memory / "r.db"), 20, ("m1",), per_rater=12, checks=1, check_every=3)
    places: list[tuple[int, ...]] = []
    for n in range(3):
        rater = come(store, f"w{n}")
        assert assign.progress(store, rater).done == 0
        total = assign.progress(store, rater).total
        all_of_them(store, rater)
        assert assign.progress(store, rater) == assign.Progress(total, total)
        public = list(dict.fromkeys(r.rater for r in people.ratings(store)))[n]
        purposes = [r.purpose for r in people.ratings(store) if r.rater == public]
        assert purposes[:3] == ["training"] * 3
        assert "training" not in purposes[3:]
        rest = purposes[3:]
        assert rest.count("item") == 12
        # Both attention checks come to everybody, before what is known.
        checked = [p for p in rest if p != "item"]
        assert checked[:2] == ["attention"] * 2 and set(checked[2:]) == {"gold"}
        checks = [sum(p != "item" for p in rest[at : at + 4]) for at in range(0, len(rest), 4)]
        assert checks[:3] == [1, 1, 1] and max(checks) == 1
        places.append(tuple(i for i, p in enumerate(rest) if p != "item"))
    assert len(set(places)) > 1


def test_the_time_of_a_task_begins_when_it_is_handed_out(memory: Path) -> None:
    store = prepared(Store(memory / "r.db"), 3, ("m1",), checks=1, check_every=0)
    rater, now = come(store, "w"), 0.0
    while (task := assign.desk(store, rater, now).shown) is not None:
        now += 5.0
        assign.cast(store, rater, task.id, Ballot(1), now)
        # What was expected is read for long; the next task is not in sight yet.
        now += 60.0 if task.training else 0.0
    assert {r.seconds for r in people.ratings(store)} == {5.0}
    store.close()


def test_an_excluded_raters_places_go_to_others_and_can_come_back(store: Store) -> None:
    prepared(store, 2, ("m1",), per_item=1)
    spammer = people.enter(store, "public", Arrival("spam"), 0.0)
    all_of_them(store, spammer.rater)
    people.exclude(store, spammer.public, "always left", 1.0, who="me")
    assert assign.desk(store, spammer.rater, 2.0).shown is None
    honest = come(store, "honest")
    assert assign.desk(store, honest, 2.0).shown is not None
    assert {r.excluded for r in people.ratings(store)} == {"always left"}
    people.include(store, spammer.public, "a mistake", 3.0, who="me")
    assert {r.excluded for r in people.ratings(store)} == {""}
    told = [(a.who, a.what, a.target, a.why) for a in logins.actions(store)]
    assert told == [
        ("me", "include", spammer.public, "a mistake"),
        ("me", "exclude", spammer.public, "always left"),
    ]
    with pytest.raises(UserError, match="no such rater"):
        people.exclude(store, "r-0", "x", 1.0, who="me")


def test_a_vote_that_counts_again_has_its_place_before_a_third_person(store: Store) -> None:
    prepared(store, 1, ("m1",), per_item=1)
    first = people.enter(store, "public", Arrival("a"), 0.0)
    second = people.enter(store, "public", Arrival("b"), 0.0)
    assert len(all_of_them(store, first.rater)) == 1
    people.exclude(store, first.public, "why", 1.0, who="me")
    assert len(all_of_them(store, second.rater)) == 1
    people.include(store, first.public, "why not", 2.0, who="me")
    people.exclude(store, second.public, "why", 3.0, who="me")
    assert assign.desk(store, come(store, "c"), 4.0).shown is None
    slots = store.read(lambda s: dict(s.execute(select(Task.rater_id, Task.slot)).all()))
    assert slots == {first.rater: 0, second.rater: None}


def test_what_was_handed_out_uncounted_takes_no_item_above_its_number(store: Store) -> None:
    prepared(store, 3, ("m1",), per_item=1)
    assert len(all_of_them(store, come(store, "a"))) == 3
    store.write(lambda s: s.execute(update(Comparison).values(taken=0)))
    assert assign.desk(store, come(store, "b"), 1.0).shown is None
    assert set(votes_by_comparison(store).values()) == {1}


def test_nobody_is_trained_for_nothing(store: Store) -> None:
    prepared(store, 1, ("m1",), per_item=1, checks=1)
    assert len(all_of_them(store, come(store, "a"))) > 1
    late = assign.desk(store, come(store, "b"), 1.0)
    assert (late.shown, late.progress.total) == (None, 0)


def test_no_rater_gets_more_tasks_than_were_promised(memory: Path) -> None:
    store = prepared(Store(memory / "r.db"), 8, ("m1",), per_item=20, checks=1, check_every=6)
    for n in range(20):
        rater = come(store, f"w{n}")
        promised = assign.progress(store, rater).total
        all_of_them(store, rater)
        assert assign.progress(store, rater).done <= promised
    store.close()


def test_the_same_comparisons_again_change_nothing_and_others_are_refused(store: Store) -> None:
    made = pairs(3, ("m1",))
    put = partial(plans.prepare, store, "t", now=0.0)
    assert put([*pairs(5, ("m1",)), *read_checks()]).new == 5 + len(read_checks())
    assert assign.desk(store, come(store, "early"), 0.0).shown is not None  # has not voted
    assert put(made) == (3, 0, 2 + len(read_checks()))
    assert put(made, per_item=5) == (3, 0, 0)
    assert store.plan().items == 3
    assert store.plan().per_item == 5
    changed = [replace(pair, a_text="new") for pair in made]
    with pytest.raises(UserError, match="not what raters were shown"):
        put(changed)
    with pytest.raises(UserError, match="another study or seed"):
        put(made, seed=3)
    for n in range(3):
        assign.desk(store, come(store, f"w{n}"), 0.0)
    with pytest.raises(UserError, match="more ratings already"):
        put(made, per_item=0)
    assert len(store.read(lambda session: list(session.scalars(select(Comparison))))) == 3
    all_of_them(store, come(store, "w0"))
    with pytest.raises(UserError, match=r"voted on comparisons .* no longer .*another --db"):
        put(made[:2], per_item=5)
