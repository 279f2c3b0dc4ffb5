from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence

import pytest

from epigone.errors import UserError
from epigone.study import step as step_module
from epigone.study.file import parse
from epigone.study.specs import FeedbackSpec, SecondSpec, TrainSpec
from epigone.study.step import STAGES, Step
from epigone.study.steps import Expansion, expand
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

    def template(self, name: str) -> str:
        return f"text of {name.rsplit('/', 1)[-1]}"

    def task_version(self, task: str) -> int:
        return 1

    def suite(self, task: str) -> str:
        return ""

    def rubrics(self, file: str | None, protocols: Sequence[str]) -> dict[str, str]:
        return {name: f"{file or 'own'}: {name}" for name in protocols}


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


def test_a_teacher_that_can_be_asked_is_measured_with_the_others() -> None:
    where = "endpoint:https://host/v1#m"
    asked = TEXT.replace("{name: t}", f"{{name: t, endpoint: '{where}'}}").replace(
        "  benchmarks: [facts]",
        "  benchmarks: [facts]\n  toxicity: {prompts: p.jsonl, scorers: [proxy]}",
    )
    found = expanded(asked)
    own = [s for s in found.steps if s.model == "t" and not s.slug.startswith("t-heldout")]
    stages = {s.stage: s for s in own}
    assert set(stages) == {
        "benchmark", "continuations", "toxicity", "generate", "second", "style",
    }  # fmt: skip
    for stage in ("benchmark", "continuations"):
        assert stages[stage].spec.model.ref == where
    # What students were trained on are the recorded answers: style is theirs.
    assert stages["generate"].spec.model.ref == ""
    # What style can reach at best is that of a second answer to the same prompts.
    second = stages["second"].spec
    assert isinstance(second, SecondSpec)
    assert (second.model.ref, second.n, second.seed, second.max_tokens) == (where, 32, 1, 512)
    assert stages["style"].inputs == {"teacher": stages["generate"], "model": stages["second"]}
    assert not [s for s in expanded().steps if s.model == "t" and s.stage == "benchmark"]
    assert "t" not in {s.model for s in found.subjects}
    with pytest.raises(UserError, match=r"not an endpoint: gpt-4 \(write endpoint:https"):
        expanded(TEXT.replace("{name: t}", "{name: t, endpoint: gpt-4}"))


def test_two_bases_of_one_name_are_refused() -> None:
    with pytest.raises(Mistake, match="two bases of one name"):
        expanded(TEXT.replace("[one, two]", "[a/one, b/one]"))


FEEDBACK = """\
feedback:
  ranked: {method: dpo, from: [p.jsonl], after: talk}
  small: {method: revise, from: [q.jsonl], after: talk, amount: 8k, lr: 1e-4, warmup: 20%}
  alone: {method: dpo, from: [{ref: r.jsonl, teacher: gpt-4}], beta: 0.3, epochs: 2}
"""


def swept(sweep: str, recipe: str = "{}") -> Expansion:
    return expanded(f"{TEXT}recipe: {recipe}\nsweep: {sweep}\n")


def steps_of(found: Expansion, stage: str) -> list[Step]:
    return [s for s in found.steps if s.stage == stage]


def test_a_sweep_multiplies_the_grid() -> None:
    found = swept("{replay: [0, 0.25], kl: [0, 0.1]}", "{replay_from: [w.txt]}")
    assert len(found.cells()) == 4 * 12
    assert len(steps_of(found, "train")) == 4 * 8
    assert len({s.model for s in found.subjects}) == len(found.subjects) == 4 * 12 + 2
    last = found.cells()[-1]
    assert (last.corpus, last.variant) == ("quiz", "replay=0.25,kl=0.1")
    assert found.subjects[-1].model == "two:quiz:replay=0.25,kl=0.1:1k:s1"
    for step in steps_of(found, "train"):
        assert isinstance(step.spec, TrainSpec)
        assert bool(step.spec.replay) == (step.spec.recipe.replay > 0)
        assert f"replay-{step.spec.recipe.replay:g}-kl-{step.spec.recipe.kl:g}" in step.slug
    assert len(steps_of(found, "corpus")) == 2


def test_names_of_steps_are_different_and_readable_however_much_is_swept() -> None:
    found = swept(
        "{schedule: [constant, wsd, cosine], lr: [1e-3, 2e-3], weight_decay: [0, 1e-4], "
        "block: [1024, 2048], precision: [fp32, bf16]}"
    )
    names = [(s.stage, s.slug) for s in found.steps]
    assert len(set(names)) == len(names)
    assert all(len(slug) <= 100 for _, slug in names)
    assert len({s.hash for s in found.steps}) == len(found.steps)


def test_variants_do_not_change_each_other() -> None:
    one = {s.slug: s.hash for s in swept("{kl: [0, 0.1]}").steps}
    more = {s.slug: s.hash for s in swept("{kl: [0, 0.1, 0.2]}").steps}
    assert one.items() <= more.items()


@pytest.mark.parametrize(("schedule", "runs"), [("constant", 8), ("wsd", 8), ("cosine", 12)])
def test_amounts_share_a_run_where_the_rate_knows_no_end(schedule: str, runs: int) -> None:
    found = expanded(f"{TEXT}recipe: {{schedule: {schedule}}}\n")
    trained = steps_of(found, "train")
    assert len(trained) == runs
    for subject in found.subjects:
        if subject.cell is not None:
            (made,) = [s for s in found.steps_of(subject) if s.stage == "train"]
            assert made is subject.made_by
            assert isinstance(made.spec, TrainSpec)
            assert subject.cell.amount in made.spec.amounts
            assert (len(made.spec.amounts) == 1) == (
                schedule == "cosine" or subject.cell.corpus == "quiz"
            )
    assert {s.slug for s in trained} >= (
        {"one_talk_8k_s0", "one_talk_32k_s0"} if schedule == "cosine" else {"one_talk_s0"}
    )


def test_bases_whose_revisions_are_not_known_yet_keep_steps_of_their_own() -> None:
    class Offline(World):
        def fingerprint(self, ref: str) -> str:
            return "unresolved"

    found, known = expand(parse(TEXT + FEEDBACK), Offline()), expanded(TEXT + FEEDBACK)
    assert [s.slug for s in found.steps] == [s.slug for s in known.steps]
    for subject, same in zip(found.subjects, known.subjects, strict=True):
        assert [s.slug for s in found.steps_of(subject)] == [s.slug for s in known.steps_of(same)]


def test_feedback_goes_on_from_the_students_that_it_names() -> None:
    found = expanded(TEXT + FEEDBACK)
    # 2 bases x 2 seeds x 3
    fed = steps_of(found, "feedback")
    assert len(fed) == 12
    by_model = {s.model: s for s in fed}
    ranked = by_model["one:talk:ranked:32k:s0"]
    assert ranked.inputs["student"].slug == "one_talk_s0"
    assert isinstance(ranked.spec, FeedbackSpec)
    assert (ranked.spec.amount, ranked.spec.lr, ranked.spec.beta) == (32_000, 5e-7, 0.1)
    small = by_model["two:talk:small:8k:s1"].spec
    assert isinstance(small, FeedbackSpec)
    assert (small.amount, small.lr, small.seed, small.warmup) == (8_000, 1e-4, 1, 0.2)
    alone = by_model["one:alone:s0"]
    assert isinstance(alone.spec, FeedbackSpec)
    assert alone.inputs == {}
    assert (alone.spec.amount, alone.spec.epochs, alone.spec.beta) == (0, 2, 0.3)
    # Who judged is the study's teacher unless the source says otherwise.
    assert [s.teacher for s in (*ranked.spec.sources, *alone.spec.sources)] == ["t", "gpt-4"]


def test_students_of_feedback_are_measured_like_all_others() -> None:
    found = expanded(TEXT + FEEDBACK)
    for name in ("one:talk:ranked:32k:s0", "one:alone:s0"):
        (subject,) = [s for s in found.subjects if s.model == name]
        assert subject.cell is not None
        stages = [s.stage for s in found.steps_of(subject)]
        train = ["train"] if subject.cell.corpus else []
        assert stages == [*train, "feedback", "generate", "style", "benchmark"]
        for step in found.steps_of(subject):
            if step.stage in ("generate", "benchmark"):
                assert step.inputs["student"] is subject.made_by
                assert step.spec.model.amount == subject.cell.amount  # type: ignore[attr-defined]


def test_every_variant_gets_its_feedback_and_the_base_one() -> None:
    found = expanded(f"{TEXT}{FEEDBACK}sweep: {{kl: [0, 0.1], precision: [fp32, bf16]}}\n")
    fed = steps_of(found, "feedback")
    assert len(fed) == 2 * 2 * (2 * 4 + 1)
    for step in fed:
        assert isinstance(step.spec, FeedbackSpec)
        if "student" in step.inputs:
            trained = step.inputs["student"].spec
            assert isinstance(trained, TrainSpec)
            assert step.spec.precision == trained.recipe.precision
    assert "one:talk:kl=0.1,precision=bf16,ranked:32k:s0" in {s.model for s in fed}
    assert len({(s.stage, s.slug) for s in found.steps}) == len(found.steps)


def test_what_students_learn_from_is_in_the_identity_and_where_it_lies_is_not() -> None:
    text = TEXT + FEEDBACK + "recipe: {replay: 0.1, replay_from: [w.txt], template: x.jinja}\n"

    class Moved(World):
        def fingerprint(self, ref: str) -> str:
            return super().fingerprint(ref.rsplit("/", 1)[-1])

    moved = text.replace("w.txt", "/a/w.txt").replace("p.jsonl", "/b/p.jsonl")
    here = expand(parse(text), Moved())
    there = expand(parse(moved.replace("x.jinja", "/c/x.jinja")), Moved())
    assert [s.hash for s in here.steps] == [s.hash for s in there.steps]

    class Rewritten(World):
        def template(self, name: str) -> str:
            return "another text"

    def trained(found: Expansion) -> set[str]:
        return {s.hash for s in found.steps if s.stage in ("train", "feedback")}

    assert not trained(expand(parse(text), World())) & {
        s.hash for s in expand(parse(text), Rewritten()).steps if s.inputs.get("corpus")
    }
    other = expand(parse(text.replace("w.txt", "v.txt").replace("p.jsonl", "o.jsonl")), World())
    left = trained(other) & trained(expand(parse(text), World()))
    assert {s.model for s in other.steps if s.hash in left} == {"one:alone:s0", "one:alone:s1",
        "two:alone:s0", "two:alone:s1"}  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("terms: mit", "terms: mti", ("recipe", "replay_from", 0), "unknown terms: mti"),
        ("terms: openai", "terms: opnai", ("feedback", "ranked", "from", 0), "unknown terms"),
    ],
)
def test_terms_that_nobody_knows_have_a_place(
    old: str, new: str, where: tuple[object, ...], what: str
) -> None:
    text = TEXT + (
        "recipe: {replay: 0.1, replay_from: [{ref: w.txt, terms: mit}]}\n"
        "feedback: {ranked: {method: dpo, from: [{ref: p, terms: openai}], after: talk}}\n"
    )
    expanded(text)
    with pytest.raises(Mistake, match=what) as caught:
        expanded(text.replace(old, new))
    assert caught.value.where == where


def test_templates_of_one_text_are_one_recipe() -> None:
    class Same(World):
        def template(self, name: str) -> str:
            return "{{ messages }}"

    text = TEXT + "sweep: {template: [x.jinja, y.jinja]}\n"
    with pytest.raises(Mistake, match=r"same recipe: template=x.jinja: template=y.jinja") as told:
        expand(parse(text), Same())
    assert told.value.where == ("sweep",)


def test_a_template_that_cannot_be_read_has_the_place_of_its_value() -> None:
    class Strict(World):
        def template(self, name: str) -> str:
            raise UserError("no such template", value=name)

    for extra, where in (
        ("recipe: {template: x.jinja}\n", ("recipe", "template")),
        ("sweep: {template: [x.jinja]}\n", ("sweep", "template", 0)),
    ):
        with pytest.raises(Mistake) as caught:
            expand(parse(TEXT + extra), Strict())
        assert caught.value.where == where


@pytest.mark.parametrize("stage", STAGES)
def test_every_lazy_string_names_a_function(stage: str) -> None:
    module, _, name = STAGES[stage].run.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    for preload in STAGES[stage].preload:
        assert importlib.util.find_spec(preload) is not None


def test_the_model_whose_tokenizer_counts_is_part_of_corpora_and_of_what_is_cut_by_it() -> None:
    own = expand(parse(TEXT + "tokenizer: models/mine\n"), World())
    specs = [s.spec for s in own.steps if s.stage == "corpus" or s.model == "t"]
    assert [spec.tokenizer.ref for spec in specs] == ["models/mine"] * 3  # type: ignore[attr-defined,union-attr]
    usual = changed(lambda text: text + "tokenizer: smollm2-135m-instruct\n")
    assert usual == set()
    assert {"corpus/talk", "corpus/quiz"} <= changed(lambda text: text + "tokenizer: mine\n")


def test_every_step_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    digest = step_module.digest

    def counted(identity: Mapping[str, object]) -> str:
        hashed.append(str(identity["stage"]))
        return digest(identity)

    monkeypatch.setattr(step_module, "digest", counted)
    seeds = ", ".join(map(str, range(100)))
    found = expanded(TEXT.replace("[0, 1]", f"[{seeds}]"))
    named = {s.name for s in found.steps}
    for subject in found.subjects:
        assert {s.name for s in found.steps_of(subject)} <= named
    assert len(named) == len(found.steps) > 2_000
    # The items of a benchmark are made for the corpora and again for the measures.
    assert len(hashed) == len(found.steps) + hashed.count("items") - 1
    assert hashed.count("items") == 2


def test_the_steps_of_a_model_are_those_that_make_and_measure_it_in_their_order() -> None:
    found = expanded(TEXT + FEEDBACK)
    for subject in found.subjects:
        made, step = set(), subject.made_by
        while step is not None:
            made.add(step.name)
            step = step.inputs.get("student")
        naive = [s for s in found.steps if s.model == subject.model or s.name in made]
        assert found.steps_of(subject) == naive
