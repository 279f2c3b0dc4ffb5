"""A judge in a study file: its steps, what changes them, what they cost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.study.test_steps import TEXT, World

from epigone.errors import EndpointError, UserError
from epigone.evaluation.judge.ask import reminder
from epigone.evaluation.judge.estimate import THOUGHTS
from epigone.evaluation.judge.verdicts import TOKENS, form
from epigone.files import read_jsonl, write_jsonl
from epigone.findings import Subject, analyse, win_scores
from epigone.report.assemble import _win_scores
from epigone.runs.checks import check_before
from epigone.runs.perform import perform, task_alone
from epigone.runs.plan import work
from epigone.runs.resolve import World as Real
from epigone.runs.teacher_cost import asking, check_budget, told
from epigone.schema import Message, Rating, Sample, Score, silent
from epigone.study.file import parse
from epigone.study.specs import JudgeSpec, ModelSpec
from epigone.study.step import Step
from epigone.study.steps import expand
from epigone.study.values import Mistake
from epigone.teachers.keeper import Ledger
from epigone.teachers.money import BUDGET, LEDGERS, PURPOSE

JUDGE = """\
  judge:
    endpoint: {url: "http://127.0.0.1:1/v1", model: wise, price: [1, 10]}
    name: stand-in
    protocols: [pairwise, tone]
"""
JUDGED = TEXT + JUDGE


def steps_of(text: str, world: Any = None) -> dict[str, Step]:
    found = expand(parse(text), world or World()).steps
    return {f"{s.stage}/{s.slug}": s for s in found}


def test_a_step_for_each_model_and_one_for_the_teacher() -> None:
    steps = steps_of(JUDGED)
    judged = {name: s for name, s in steps.items() if s.stage == "judge"}
    # The teacher, two bases, and of each two students of talk and one of quiz, of two seeds.
    assert len(judged) == 1 + 2 + 2 * 3 * 2
    assert {s.hash for n, s in steps.items() if n not in judged} == {
        s.hash for s in steps_of(TEXT).values()
    }, "nothing else changes"
    teacher, base = judged["judge/stand-in_t"], judged["judge/stand-in_one"]
    assert isinstance(teacher.spec, JudgeSpec)
    assert isinstance(base.spec, JudgeSpec)
    assert (set(teacher.inputs), [*teacher.spec.rubrics]) == ({"model"}, ["tone"])
    assert (set(base.inputs), [*base.spec.rubrics]) == ({"model", "against"}, ["pairwise", "tone"])
    assert base.inputs["against"] is steps["generate/t"]
    assert (base.spec.model, base.spec.against, base.model) == ("one", "t", "one")


def test_all_pairs_are_steps_of_their_own() -> None:
    judged = [s for s in steps_of(JUDGED + "    against: all\n").values() if s.stage == "judge"]
    assert len(judged) == 1 + 14 + 14 * 13 // 2
    assert len({s.name for s in judged}) == len(judged)


def test_the_teachers_second_answers_are_judged_as_a_models(tmp_path: Path) -> None:
    text = JUDGED.replace("{name: t}", "{name: t, second: again.jsonl}") + "    against: all\n"
    steps = steps_of(text)
    judged = [s for s in steps.values() if s.stage == "judge"]
    # It meets the teacher, and no model beside.
    assert len(judged) == 1 + 1 + 14 + 14 * 13 // 2
    step = steps["judge/stand-in_t_second"]
    assert isinstance(step.spec, JudgeSpec)
    assert (step.spec.model, step.spec.against) == ("t (second sample)", "t")
    assert (step.inputs["model"], step.inputs["against"]) == (
        steps["second/t"],
        steps["generate/t"],
    )
    assert sum(a.requests for a in asking([step])) == 96
    # What it wins against itself is the most that an imitation can be expected to win.
    rows = [Rating("1", "stand-in", "t", step.spec.model, p, left, "judge")
            for left, p in (("a", 2), ("b", -2))]  # fmt: skip
    write_jsonl(tmp_path / "ratings.jsonl", (r.to_json() for r in rows))
    planned: Any = SimpleNamespace(step=step, record=True)
    store: Any = SimpleNamespace(folder=lambda step: tmp_path)
    own = [*_win_scores([planned], store, "t")]
    assert [(s.model, s.metric, s.value) for s in own] == [
        ("t", "win_rate", 0.5), ("t", "equal_or_better", 0.5),
    ]  # fmt: skip


def test_what_changes_a_verdict_changes_its_step() -> None:
    before = steps_of(JUDGED)["judge/stand-in_one"].hash
    for old, new, same in (
        ("price: [1, 10]", "price: [5, 5], concurrency: 2, key_env: OTHER", True),
        ("model: wise", "model: wiser", False),
        ("[pairwise, tone]", "[pairwise, tone]\n    tries: 2", False),
        ("[pairwise, tone]", "[pairwise, tone]\n    rubric: mine.yaml", False),
        ("[pairwise, tone]", "[pairwise, tone]\n    n: 3", False),
        ("name: stand-in", "name: other", False),
    ):
        after = steps_of(JUDGED.replace(old, new))
        found = next(s for n, s in after.items() if n in ("judge/stand-in_one", "judge/other_one"))
        assert (found.hash == before) is same, new


def test_mistakes_of_a_judge() -> None:
    for old, new, what in (
        ("  style: {n: 32}\n", "", "a judge without answers to judge"),
        ("[pairwise, tone]", "[pairwise, pairwise]", "named twice"),
        ("[pairwise, tone]", "[pairwise]\n    references: a.jsonl", "only correct takes"),
        ("[pairwise, tone]", "[tone]\n    against: all", "nothing is compared"),
        ("[pairwise, tone]", "[pairwise]\n    both_orders: false", "both_orders"),
    ):
        with pytest.raises(UserError, match=what):
            parse(JUDGED.replace(old, new))


def test_a_rubric_that_is_wrong_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("tone: no place")
    with pytest.raises(UserError, match="needs the place"):
        Real(online=False, folder=tmp_path).rubrics("mine.yaml", ["tone"])

    class Wrong(World):
        def rubrics(self, file: str | None, protocols: Any) -> dict[str, str]:
            raise UserError("a wrong rubric", value=file)

    with pytest.raises(Mistake) as raised:
        steps_of(JUDGED + "    rubric: mine.yaml\n", Wrong())
    assert raised.value.where == ("evaluate", "judge", "rubric")


def test_a_key_is_asked_for_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = parse(JUDGED.replace("[facts]", "[]"))
    check_before(near, tmp_path)
    far = JUDGED.replace("[facts]", "[]").replace("http://127.0.0.1:1", "https://judge.example")
    monkeypatch.delenv("EPIGONE_API_KEY", raising=False)
    with pytest.raises(EndpointError, match=r"needs a key: \$EPIGONE_API_KEY"):
        check_before(parse(far), tmp_path)
    monkeypatch.setenv("EPIGONE_API_KEY", "x")
    check_before(parse(far), tmp_path)


def test_a_plan_tells_what_the_judge_costs() -> None:
    steps = [*steps_of(JUDGED).values()]
    asks = {a.step.rpartition("-")[0]: a for a in asking(steps)}
    base, teacher = asks["judge/stand-in_one"], asks["judge/stand-in_t"]
    assert (base.requests, teacher.requests, base.whom) == (32 * 3, 32, "judge")
    # Rubric and form in tokens of four bytes, a prompt of 100, answers of 250 or fewer.
    own = {p: -(-len(f"own: {p}{form(p)}".encode()) // 4) for p in ("pairwise", "tone")}
    assert base.tokens == 96 * TOKENS
    assert base.usd == pytest.approx((base.prompt_tokens + 10 * base.tokens) / 1e6)
    again = sum(-(-len(reminder(n)) // 4) for n in (2, 3))
    most = 3 * base.prompt_tokens + 96 * again + 10 * 96 * 3 * 512
    assert base.most_usd == pytest.approx(most / 1e6)
    thinker = {
        a.step: a for a in asking([*steps_of(JUDGED.replace("model: wise", "model: o3")).values()])
    }
    found = next(a for name, a in thinker.items() if name.startswith("judge/stand-in_one"))
    assert found.tokens == 96 * (TOKENS + THOUGHTS)
    assert found.most_usd == pytest.approx((most + 10 * 96 * 3 * 4096) / 1e6)
    # 2 s a verdict, 32 at once.
    assert {round(work(s)) for s in steps if s.stage == "judge"} == {5 + 2, 5 + 6}
    each = (teacher.prompt_tokens / 32) - own["tone"]
    prompt = base.prompt_tokens - 32 * (2 * own["pairwise"] + own["tone"])
    assert 100 < each < prompt / 32 < 5 * each
    assert next(told([*asks.values()])).startswith("the judge is asked ")
    check_budget(steps, None)
    with pytest.raises(UserError, match="a budget needs the price"):
        check_budget([*steps_of(JUDGED.replace(", price: [1, 10]", "")).values()], 5)  # type: ignore[arg-type]


def test_a_step_is_kept_in_the_ledger_and_made_again_from_it(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ((LEDGERS, str(tmp_path / "ledger")), (PURPOSE, "s"), (BUDGET, "")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EPIGONE_HOME", str(tmp_path / "cache"))
    server.answer = lambda body: '{"verdict": "first"}'
    inputs = {}
    for role in ("model", "against"):
        inputs[role] = tmp_path / role
        rows = [Sample(str(i), role, (Message("user", "?"),), f"{role} {i}", "end") for i in "123"]
        write_jsonl(inputs[role] / "samples.jsonl", (r.to_json() for r in rows))
    who = ModelSpec(kind="judge", name="j", ref=f"endpoint:{server.url}#j", fingerprint="f")
    spec = JudgeSpec(model="m", against="t", judge=who, rubrics={"pairwise": RUBRIC})
    records = [perform(task_alone("judge", spec, inputs, tmp_path / n), silent) for n in "ab"]
    # A schema is refused once a run, and the rest is asked once in all.
    assert len(server.requests) == 1 + 6 + 1
    assert records[0].outputs == records[1].outputs
    assert set(records[0].outputs) == {"verdicts.jsonl", "ratings.jsonl", "scores.jsonl"}
    (file,) = (tmp_path / "ledger").iterdir()
    ledger = Ledger(file, "s")
    assert len(ledger) == 6
    ledger.close()
    ratings = [Rating.from_json(r) for r in read_jsonl(tmp_path / "a/ratings.jsonl")]
    assert win_scores(ratings, "m", "t", "j")[0].value == 0.5


RUBRIC = "{{conversation}} {{first}} {{second}}"


def test_a_judges_opinion_changes_no_verdict() -> None:
    subjects = [Subject("b", "b"), Subject("s", "b", "talk", 8000, 0)]
    measured = [
        Score(metric, model, family, sum(values) / 4, 4, dict(zip("1234", values, strict=True)),
              ceiling=1.0, task=task)
        for metric, family, task in (("list", "style", ""), ("acc", "capability", "facts"))
        for model, values in (("b", (0.0, 1.0, 0.0, 0.0)), ("s", (1.0, 1.0, 0.0, 1.0)))
    ]  # fmt: skip
    judged = [
        Score(metric, model, family, 0.5, 2, {"1": 0.0, "2": 1.0}, task="judge", primary=False)
        for metric, family in (("win_rate", "preference"), ("tone", "style"),
                               ("correct", "capability"))
        for model in ("b", "s")
    ]  # fmt: skip
    judged.append(Score("tone", "t", "style", 1.0, 2, {"1": 1.0, "2": 1.0}, task="judge"))
    before = analyse(subjects, measured, "t")  # type: ignore[arg-type]
    after = analyse(subjects, [*measured, *judged], "t")  # type: ignore[arg-type]
    assert after.verdicts == before.verdicts
    assert [s for s in after.summaries if s.family != "preference"] == [*before.summaries]
    tone = next(g for g in after.gaps if g.metric == "tone")
    assert (tone.teacher.value, tone.teacher.source) == (1.0, "measured")
