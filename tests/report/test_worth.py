from __future__ import annotations

import json
from pathlib import Path

import pytest

from epigone.findings import Subject
from epigone.report.cells import cells_of
from epigone.report.worth import bases_of, dollars_of, processes, worth
from epigone.runs.plan import Planned
from epigone.runs.store import Store
from epigone.schema import Record
from epigone.study.file import parse
from epigone.study.steps import expand

TEXT = """\
name: tiny
teacher:
  name: t
  endpoint: {url: "https://x.example/v1", model: m}
bases: [smollm2-135m-instruct, ./gone]
corpora:
  talk: {kind: broad, from: [x.json]}
  nq: {kind: local, synthesize: nq, size: 500, for: facts}
amounts: {talk: [8k, 32k], nq: [8k]}
evaluate: {benchmarks: [facts, {task: wikitext}]}
"""


class World:
    def fingerprint(self, ref):
        return f"sha256:{ref}"

    data_fingerprint = fingerprint

    def reference(self, ref):
        return "/nowhere/gone" if ref == "./gone" else ref

    def model_name(self, ref):
        return ref.removeprefix("./")

    def provenance(self, ref):
        return "", ""

    def task_version(self, task):
        return 1

    def suite(self, task):
        return "0.4"

    def wording(self, task):
        return "w"


def recorded(facts, seconds=0.0):
    return Record("s", "s", "h", {}, {}, {}, facts, "", "", seconds, 0, {})


@pytest.fixture
def made(tmp_path: Path):
    declaration = parse(TEXT)
    expansion = expand(declaration, World())
    store = Store(tmp_path)
    planned = []
    for step in expansion.steps:
        record = None
        if step.stage == "train":
            record = recorded({"layout": "replicate=2,shard=1,tensor=1"}, 3_600.0)
            folder = store.folder(step)
            logs = {"": 100, "amount-8000": 25, "amount-32000": 100}
            for name, n in logs.items():
                (folder / name).mkdir(parents=True, exist_ok=True)
                rows = [json.dumps({"supervised": n // 5})] * 5
                (folder / name / "metrics.jsonl").write_text("\n".join(rows) + "\n")
        elif step.stage == "corpus":
            record = recorded({"train_tokens": 40_000})
        elif step.stage == "ask":
            record = recorded({"cost": "2.50", "price": "given", "known": 0})
        elif step.stage == "benchmark" and step.spec.model.kind == "base":
            loss = 0.9 if step.spec.model.name == "gone" else 1.1
            facts = {"bits_per_byte": loss} if step.spec.task == "wikitext" else {"acc": 0.5}
            record = recorded({"values": facts})
        state = "done" if record else "to do"
        planned.append(Planned(step, state, "", 0.0, record))
    subjects = [
        Subject(s.model, s.base, s.cell.corpus if s.cell else None,
                s.cell.amount if s.cell else 0)
        for s in expansion.subjects
    ]  # fmt: skip
    return declaration, expansion, planned, store, subjects


def test_a_student_costs_its_share_of_the_run_and_of_the_answers(made):
    declaration, expansion, planned, store, subjects = made
    found = worth(subjects, declaration, expansion, planned, store)
    base = "smollm2-135m-instruct"
    own = {(s.corpus, s.amount): s for s in found if s.base == base}
    # An hour on two processes, of which the first student took a quarter of the tokens.
    assert own["talk", 8_000].hours == pytest.approx(0.5)
    assert own["talk", 32_000].hours == pytest.approx(2.0)
    # 8k of the 40k tokens that 2.50 dollars bought.
    assert own["nq", 8_000].dollars == pytest.approx(0.5)
    assert own["talk", 8_000].dollars is None
    assert own["nq", 8_000].supports == ("facts",)
    assert own["talk", 8_000].supports == ()
    assert own[None, 0] == Subject(base, base)


def test_bases_have_their_weights_and_loss_where_these_are_known(made):
    known, gone = bases_of(made[2])
    assert known.name == "smollm2-135m-instruct"
    assert 130e6 < known.parameters < 140e6
    assert (known.loss, gone.loss) == (1.1, 0.9)
    assert gone.parameters is None


def test_cells_count_the_steps_that_make_and_measure_them(made):
    _, expansion, planned, _, subjects = made
    cells = cells_of(subjects, expansion, planned)
    assert [c.subject for c in cells] == subjects
    # Both benchmarks of the bases are done, none of the students'.
    assert [(c.state, c.done, c.steps) for c in cells if not c.subject.corpus] == [
        ("done", 2, 2)
    ] * 2
    students = [(c.state, c.done, c.steps) for c in cells if c.subject.corpus]
    assert students == [("pending", 1, 3)] * 6
    broken = [
        Planned(p.step, "failed", "out of memory", 0.0, None) if p.step.stage == "train" else p
        for p in planned
    ]
    for c in cells_of(subjects, expansion, broken):
        assert (c.state == "failed") is (c.subject.corpus is not None)
        assert ("out of memory" in c.note) is (c.state == "failed")


@pytest.mark.parametrize(
    ("facts", "cost"),
    [
        ({"cost": "0.0125", "price": "given", "known": 0}, 0.0125),
        ({"cost": "0", "price": "not known"}, None),
        # What an earlier run paid for is not in what the last one did.
        ({"cost": "0.01", "price": "given", "known": 3}, None),
        ({"values": {}}, None),
    ],
)
def test_dollars_are_those_of_the_record_or_not_known(facts, cost):
    assert dollars_of(recorded(facts)) == cost
    assert dollars_of(None) is None


def test_processes_are_the_product_of_a_layout():
    assert processes(recorded({"layout": "replicate=2,shard=4,tensor=1"})) == 8
    assert processes(recorded({})) == 1
