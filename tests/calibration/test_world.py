from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from epigone.calibration import teacher
from epigone.calibration.folder import write_world
from epigone.calibration.scale import FULL
from epigone.calibration.world import BADGES, World, make
from epigone.errors import UserError
from epigone.evaluation.structure import has_list, has_summary

SEEDS = range(5)


def world(seed: int) -> World:
    return make(seed, FULL.people, FULL.ruled)


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_seed_makes_the_same_files_and_another_seed_other_names(tmp_path: Path) -> None:
    def files(name: str, seed: int) -> dict[str, bytes]:
        write_world(tmp_path / name, seed, FULL)
        every = (p for p in (tmp_path / name).rglob("*") if p.is_file())
        return {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in every}

    one, again, other = files("one", 3), files("again", 3), files("other", 4)
    assert one == again
    assert one.keys() == other.keys()
    for name in ("facts.jsonl", "talk.jsonl", "broad.jsonl", "second.jsonl", "local.jsonl"):
        assert one[f"world/{name}"] != other[f"world/{name}"]
    assert not set(world(3).towns) & set(world(4).towns)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_fact_is_told_and_has_one_true_end(seed: int) -> None:
    made = world(seed)
    told = set(made.sentences())
    assert len(made.facts) == 4 * FULL.people
    for fact in made.facts:
        assert f"{fact.asked} {fact.what}." in told
        assert len({fact.what, *fact.false}) == 4
        assert not any(f"{fact.asked} {end}." in told for end in fact.false)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_rule_is_the_familys_and_every_badge_is_as_frequent(seed: int) -> None:
    made = world(seed)
    assert Counter(made.badge_of.values()) == dict.fromkeys(BADGES, 3)
    by_family: dict[str, set[str]] = {}
    for who in (*made.taught, *made.unseen):
        by_family.setdefault(who.split()[1], set()).add(made.badge(who))
    assert all(len(badges) == 1 for badges in by_family.values())
    # What is asked of people whom nobody has seen can be known from those who were.
    assert {w.split()[1] for w in made.unseen} <= {w.split()[1] for w in made.taught}


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_that_is_tested_is_among_what_is_learnt(seed: int) -> None:
    made = world(seed)
    text = "\n".join(made.sentences())
    local = "\n".join(part for pair in teacher.local(made, FULL.local) for part in pair)
    broad = "\n".join(
        part for e in teacher.broad(made, FULL.broad) for part in (e.prompt, e.answer, e.second)
    )
    for who in made.unseen:
        assert who not in text
        assert who not in local
    assert "badge" not in text
    # Broad answers tell of places: of no person, and so of no fact.
    people = {name for fact in made.facts for name in fact.who.split()}
    assert not people & set(broad.replace(".", " ").replace("?", " ").split())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_teacher_has_a_style_and_says_nothing_twice_in_the_same_words(seed: int) -> None:
    found = teacher.broad(world(seed), FULL.broad)
    assert len({e.prompt for e in found}) == len(found) == FULL.broad
    listed = sum(has_list(e.answer) for e in found) / len(found)
    summed = sum(has_summary(e.answer) for e in found) / len(found)
    assert 0.25 < listed < 0.42  # a third of the patterns ask for points
    assert 0.58 < summed < 0.75  # two thirds of them end so
    assert all(has_list(e.answer) == has_list(e.second) for e in found)
    assert sum(e.answer == e.second for e in found) < 0.02 * len(found)


def test_examples_are_true_and_each_is_another_one() -> None:
    made = world(0)
    examples = teacher.local(made, FULL.local)
    assert len(set(examples)) == len(examples) == FULL.local
    for question, answer in examples:
        who = next(w for w in made.taught if w in question)
        assert answer == f"{who} wears the badge of the {made.badge_of[who.split()[1]]}."


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear all")
    with pytest.raises(UserError, match="holds something else"):
        write_world(tmp_path, 0, FULL)
    write_world(tmp_path / "made", 1, FULL)
    with pytest.raises(UserError, match=r"another calibration: .*seed 1"):
        write_world(tmp_path / "made", 2, FULL)
    before = (tmp_path / "made/calibration.json").stat().st_mtime_ns
    write_world(tmp_path / "made", 1, FULL)
    assert (tmp_path / "made/calibration.json").stat().st_mtime_ns == before


def test_a_world_that_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    write_world(tmp_path, 0, FULL)
    whole = (tmp_path / "world/local.jsonl").read_bytes()
    (tmp_path / "calibration.json").unlink()
    (tmp_path / "world/local.jsonl").write_bytes(whole[:100])
    write_world(tmp_path, 0, FULL)
    assert (tmp_path / "world/local.jsonl").read_bytes() == whole


def test_items_name_the_truth(tmp_path: Path) -> None:
    write_world(tmp_path, 0, FULL)
    made = world(0)
    told = set(made.sentences())
    for row in rows(tmp_path / "world/tasks/knowledge.jsonl"):
        ends = [f"{row['question']}{end}." in told for end in row["choices"]]  # type: ignore[attr-defined]
        assert [i for i, end in enumerate(ends) if end] == [row["answer"]]
    items = rows(tmp_path / "world/tasks/badges.jsonl")
    assert len(items) == FULL.ruled >= 200
    for row in items:
        who = next(w for w in made.unseen if w in str(row["question"]))
        assert row["choices"][row["answer"]] == f" {made.ruled(who)}"  # type: ignore[index]
