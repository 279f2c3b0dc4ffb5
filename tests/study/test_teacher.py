"""A teacher that is asked, in a study file: what can be said, what cannot, what changes a step."""

from __future__ import annotations

import pytest
from tests.study.test_steps import World

from epigone.errors import UserError
from epigone.study.declare import Declaration
from epigone.study.file import parse
from epigone.study.rounds import lonely, random_twins
from epigone.study.specs import AskSpec, SecondSpec, SelectSpec, TrainSpec
from epigone.study.step import Step
from epigone.study.steps import expand

ENDPOINT = "{url: http://127.0.0.1:1/v1, model: m, price: [0.15, 0.6], requests_per_minute: 60}"
TEXT = f"""\
name: asked
teacher:
  name: t
  terms: openai
  endpoint: {ENDPOINT}
bases: [one, two]
corpora:
  talk: {{kind: broad, synthesize: {{task: answers, prompts: p.jsonl}}, size: 10, held_out: 4}}
  quiz: {{kind: local, synthesize: nq, size: 7, for: facts, held_out: 0}}
amounts: {{talk: [8k, 32k], quiz: [1k]}}
evaluate:
  benchmarks: [facts]
  style: {{n: 4}}
"""


class Asking(World):
    def wording(self, task: str) -> str | None:
        known = {"answers": "a", "nq": "n", "tldr": "t", "": "k"}
        return known.get(task)

    def task_version(self, task: str) -> int:
        return 1

    def suite(self, task: str) -> str:
        return ""


def steps_of(text: str) -> dict[str, Step]:
    found = expand(parse(text), Asking()).steps
    return {f"{s.stage}/{s.slug}": s for s in found}


def test_what_is_asked_comes_before_its_corpus_and_avoids_what_is_measured() -> None:
    steps = steps_of(TEXT)
    order = list(steps)
    assert order.index("items/facts") < order.index("ask/talk") < order.index("corpus/talk")
    talk, quiz = steps["ask/talk"], steps["ask/quiz"]
    assert set(talk.inputs) == {"items_facts"}
    # The prompts that all models answer are asked by nobody else.
    assert set(quiz.inputs) == {"items_facts", "held_out"}
    assert set(steps["corpus/quiz"].inputs) == {"items_facts", "held_out", "asked_1"}
    assert isinstance(talk.spec, AskSpec)
    assert isinstance(quiz.spec, AskSpec)
    assert (talk.spec.task, talk.spec.size, talk.spec.terms) == ("answers", 10, "openai")
    assert (quiz.spec.task, quiz.spec.wording) == ("nq", "n")


def test_a_second_sample_is_asked_as_the_first_or_read_from_a_file() -> None:
    def second(old: str = "", new: str = "") -> SecondSpec | None:
        step = steps_of(TEXT.replace(old, new)).get("second/t")
        assert step is None or isinstance(step.spec, SecondSpec)
        return step.spec if step is not None else None

    told = second("p.jsonl}", "p.jsonl, temperature: 0.7, top_p: 0.9, seed: 4, max_tokens: 99}")
    assert told is not None
    assert (told.temperature, told.top_p, told.seed, told.max_tokens) == (0.7, 0.9, 5, 99)
    usual = second()
    assert usual is not None
    assert (usual.temperature, usual.top_p, usual.seed, usual.max_tokens) == (None, None, 1, 512)
    # Pairs that the teacher made up are no answers to their questions.
    made_up = TEXT.replace("talk: {kind: broad, synthesize: {task: answers, prompts: p.jsonl}",
                           "talk: {kind: broad, synthesize: nq")  # fmt: skip
    assert "second/t" not in steps_of(made_up)
    recorded = second("  terms: openai", "  second: again.jsonl")
    assert recorded is not None
    assert recorded.data is not None
    assert (recorded.data.ref, recorded.model.ref) == ("again.jsonl", "")


def test_means_change_no_step_and_what_is_asked_does() -> None:
    first = {name: s.hash for name, s in steps_of(TEXT).items()}
    for old, new in (
        ("price: [0.15, 0.6]", "price: [9, 9]"),
        ("minute: 60", "minute: 5, batch: true"),
        ("model: m,", "model: m, key_env: OTHER,"),
    ):
        assert {name: s.hash for name, s in steps_of(TEXT.replace(old, new)).items()} == first
    changed = steps_of(TEXT.replace("size: 7", "size: 8"))
    assert changed["ask/quiz"].hash != first["ask/quiz"]
    assert changed["corpus/quiz"].hash != first["corpus/quiz"]
    assert changed["ask/talk"].hash == first["ask/talk"]
    other = steps_of(TEXT.replace("model: m,", "model: m2,"))
    assert other["ask/talk"].hash != first["ask/talk"]


def test_a_teacher_of_one_line_is_the_same() -> None:
    long = TEXT.replace(", price: [0.15, 0.6], requests_per_minute: 60", "")
    short = long.replace(
        "{url: http://127.0.0.1:1/v1, model: m}", "endpoint:http://127.0.0.1:1/v1#m"
    )
    assert "endpoint:http" in short
    assert [s.hash for s in steps_of(short).values()] == [s.hash for s in steps_of(long).values()]


def test_a_folder_of_ones_own_is_a_task() -> None:
    steps = steps_of(TEXT.replace("synthesize: nq", "synthesize: {task: ./mine, seeds: s.jsonl}"))
    spec = steps["ask/quiz"].spec
    assert isinstance(spec, AskSpec)
    assert spec.data is not None
    assert spec.seeds is not None
    assert (spec.task, spec.wording, spec.data.ref, spec.seeds.ref) == (
        "",
        "k",
        "./mine",
        "s.jsonl",
    )


def rounds(by: str) -> str:
    return TEXT.replace("prompts: p.jsonl}", f"prompts: p.jsonl, select: {by}, rounds: 3}}")


def test_rounds_ask_train_and_select() -> None:
    steps = steps_of(rounds("disagreement"))
    asks = [steps[f"ask/talk_round{i}"].spec for i in (1, 2, 3)]
    # Ten prompts in three rounds.
    assert [a.size for a in asks if isinstance(a, AskSpec)] == [4, 3, 3]
    assert "chosen" not in steps["ask/talk_round1"].inputs
    select = steps["select/talk_round3"]
    assert isinstance(select.spec, SelectSpec)
    assert {"asked_1", "asked_2", "student_1", "student_2"} <= set(select.inputs)
    students = [select.inputs[f"student_{i}"].spec for i in (1, 2)]
    assert [(s.base.name, s.seed, s.amounts) for s in students if isinstance(s, TrainSpec)] == [
        ("one", 0, (0,)),
        ("one", 1, (0,)),
    ]
    before = select.inputs["student_1"].inputs["corpus"]
    assert {"asked_1", "asked_2"} <= set(before.inputs)
    assert "asked_3" not in before.inputs
    assert {"asked_1", "asked_2", "asked_3"} <= set(steps["corpus/talk"].inputs)
    # Whatever a step needs stands before it.
    seen: set[str] = set()
    for step in expand(parse(rounds("disagreement")), Asking()).steps:
        assert all(i.name in seen for i in step.inputs.values())
        seen.add(step.name)


def test_a_hundred_rounds_are_expanded_at_once() -> None:
    text = (
        rounds("disagreement").replace("rounds: 3", "rounds: 100").replace("size: 10", "size: 200")
    )
    stages = [s.stage for s in expand(parse(text), Asking()).steps]
    # As a tree instead of a graph it would not end.
    assert stages.count("ask") == 101
    assert stages.count("select") == 99


def test_one_student_for_the_loss_and_none_for_words() -> None:
    loss, words = steps_of(rounds("loss")), steps_of(rounds("diversity"))
    assert "student_2" not in loss["select/talk_round2"].inputs
    assert not any("before" in name for name in words)
    # Words need no student, not even in the first round.
    assert "chosen" in words["ask/talk_round1"].inputs


def declared(text: str) -> Declaration:
    return parse(text)


def test_a_choice_is_compared_with_the_same_prompts_at_random() -> None:
    asked = "synthesize: {task: answers, prompts: p.jsonl}, size: 10, held_out: 4"
    twin = f"  chance: {{kind: broad, {asked}}}\n"
    text = rounds("loss").replace("  quiz:", f"{twin}  quiz:")
    text = text.replace("quiz: [1k]", "quiz: [1k], chance: [8k]")
    assert random_twins(declared(text).corpora, declared(text).amounts) == {"talk": "chance"}
    assert lonely(declared(text).corpora, declared(text).amounts) == []
    assert lonely(declared(rounds("loss")).corpora, declared(rounds("loss")).amounts) == ["talk"]
    other = text.replace(twin, twin.replace("p.jsonl", "q.jsonl"))
    assert random_twins(declared(other).corpora, declared(other).amounts) == {}
    for changed in (
        text.replace(twin, twin.replace("broad", "local")),
        text.replace(twin, twin.replace("held_out: 4", "held_out: 4, languages: []")),
        text.replace("chance: [8k]", "chance: [9k]"),
    ):
        study = declared(changed)
        assert lonely(study.corpora, study.amounts) == ["talk"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("synthesize: nq, size: 7", "synthesize: nq", "what is synthesized has a size"),
        ("synthesize: nq, size: 7", "from: [x], size: 7", "what is synthesized has a size"),
        ("synthesize: nq, size: 7", "synthesize: nq, from: [x], size: 7", "one of two"),
        ("synthesize: nq, size: 7, ", "", "one of two"),
        ("for: facts", "for: fact", "facts"),
        ("size: 7, for: facts, held_out: 0", "size: 7", "as many prompts held out as are asked"),
        (
            "prompts: p.jsonl",
            "prompts: p.jsonl, select: loss, rounds: 11",
            "more rounds than prompts",
        ),
        ("prompts: p.jsonl", "prompts: p.jsonl, turns: 1, max_tokens: 9", "at most 54 tokens"),
        ("{task: answers, prompts: p.jsonl}", "answers", "answers needs prompts"),
        ("synthesize: nq", "synthesize: {task: nq, prompts: p}", "nq takes no prompts"),
        ("synthesize: nq", "synthesize: {task: nq, rounds: 2}", "nq takes no rounds"),
        ("synthesize: nq", "synthesize: {task: nq, keep_cut: true}", "nq takes no keep_cut"),
        ("prompts: p.jsonl", "prompts: p.jsonl, each: 9", "answers takes no each"),
        ("prompts: p.jsonl", "prompts: p.jsonl, select: loss", "second round"),
        ("prompts: p.jsonl", "prompts: p.jsonl, rounds: 4", "at random are one round"),
        ("prompts: p.jsonl", "prompts: p.jsonl, select: los", "select"),
        ("price: [0.15, 0.6]", "price: [0.15]", "price"),
        ("price: [0.15, 0.6]", "price: [-1, 0.6]", "no less than 0"),
        ("model: m,", "model: m, key_env: 'sk-123 4',", "key_env"),
        ("requests_per_minute", "request_per_minute", "did you mean .requests_per_minute"),
        ("terms: openai", "terms: opnai", "opnai"),
        (ENDPOINT, "endpoint:http://me:pass@h/v1", r"not an endpoint: h/v1 \("),
    ],
)
def test_mistakes_are_told_at_their_place(old: str, new: str, says: str) -> None:
    assert old in TEXT
    with pytest.raises((UserError, ValueError), match=says):
        steps_of(TEXT.replace(old, new))


def test_who_cannot_be_asked_makes_nothing() -> None:
    text = TEXT.replace(
        "  endpoint: {url: http://127.0.0.1:1/v1, model: m, price: [0.15, 0.6], "
        "requests_per_minute: 60}\n", "",
    )  # fmt: skip
    with pytest.raises(UserError, match="a teacher that cannot be asked: t"):
        steps_of(text)
