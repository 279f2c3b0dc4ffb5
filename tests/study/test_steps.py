from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest

from epigone.study.file import parse
from epigone.study.steps import STAGES, Expansion, expand
from epigone.study.values import Mistake

TEXT = """\
name: tiny
teacher: {name: t}
bases: [one, two]
corpora:
  talk: {kind: broad, from: [x.json]}
  quiz: {kind: local, from: [y.json]}
amounts: {talk: [8k, 32k], quiz: [1k]}
seeds: [0, 1]
evaluate:
  benchmarks: [facts]
  style: {n: 32}
"""


class World:
    def __init__(self, where: str = "/here") -> None:
        self.where = where

    def fingerprint(self, ref: str) -> str:
        return f"sha256:{ref}"

    def reference(self, ref: str) -> str:
        return ref

    def data_fingerprint(self, ref: str) -> str:
        return self.fingerprint(ref)

    def provenance(self, ref: str) -> tuple[str, str]:
        return "", ""

    def model_name(self, ref: str) -> str:
        return ref.rsplit("/", 1)[-1]

    def task_version(self, task: str) -> int:
        return 1


def expanded(text: str = TEXT) -> Expansion:
    return expand(parse(text), World())


def changed(edit: Callable[[str], str]) -> set[str]:
    """Slugs of steps whose identity an edit of the study changes, by stage."""
    before = {(s.stage, s.slug): s.hash for s in expanded().steps}
    after = {(s.stage, s.slug): s.hash for s in expanded(edit(TEXT)).steps}
    return {"/".join(k) for k in before if after.get(k) != before[k]}


def test_the_grid() -> None:
    expansion = expanded()
    # 2 bases x (2 + 1 amounts) x 2 seeds
    assert len(expansion.cells()) == 12
    assert len(expansion.subjects) == 14
    # one trunk per base, corpus and seed, however many amounts
    assert sum(s.stage == "train" for s in expansion.steps) == 8
    assert sum(s.stage == "benchmark" for s in expansion.steps) == 14
    # the teacher answers the same prompts as the models
    assert sum(s.stage == "generate" for s in expansion.steps) == 15


def test_steps_come_after_their_inputs_and_are_all_different() -> None:
    seen: set[str] = set()
    for step in expanded().steps:
        assert all(i.hash in seen for i in step.inputs.values())
        assert step.hash not in seen
        seen.add(step.hash)


def test_every_model_answers_the_prompts_of_one_corpus() -> None:
    corpora = {s.inputs["corpus"].slug for s in expanded().steps if s.stage == "generate"}
    assert corpora == {"talk"}


def test_a_change_reruns_what_depends_on_it_and_nothing_else() -> None:
    assert changed(lambda t: t.replace("n: 32", "n: 16")) == {
        f"{s.stage}/{s.slug}" for s in expanded().steps if s.stage in ("generate", "style")
    }
    quiz = changed(lambda t: t.replace("y.json", "z.json"))
    assert quiz
    assert all("quiz" in name for name in quiz)
    assert changed(lambda t: t.replace("name: tiny", "name: other")) == set()


def test_another_seed_leaves_finished_seeds_alone() -> None:
    assert changed(lambda t: t.replace("[0, 1]", "[0, 1, 2]")) == set()


def test_where_files_lie_is_not_in_the_identity() -> None:
    class Moved(World):
        def fingerprint(self, ref: str) -> str:
            return super().fingerprint(ref.rsplit("/", 1)[-1])

    here = expand(parse(TEXT.replace("x.json", "/a/x.json")), Moved())
    there = expand(parse(TEXT.replace("x.json", "/b/x.json")), Moved())
    assert [s.hash for s in here.steps] == [s.hash for s in there.steps]


def test_two_bases_of_one_name_are_refused() -> None:
    with pytest.raises(Mistake, match="two bases of one name"):
        expanded(TEXT.replace("[one, two]", "[a/one, b/one]"))


@pytest.mark.parametrize("stage", STAGES)
def test_every_lazy_string_names_a_function(stage: str) -> None:
    module, _, name = STAGES[stage].run.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    for preload in STAGES[stage].preload:
        assert importlib.util.find_spec(preload) is not None
