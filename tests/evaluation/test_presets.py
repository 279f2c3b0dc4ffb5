"""MMLU, NQ-open and HumanEval: prompts as lm-eval's own tasks write them, and their scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from epigone.errors import BenchmarkError, SandboxError
from epigone.evaluation import benchmarks, code, items, presets
from epigone.evaluation.benchmarks import measure
from epigone.evaluation.catalogue import lm_eval_folders
from epigone.evaluation.parts import load_parts
from epigone.evaluation.table import read_table, write_table
from epigone.models.chat import PLAIN_TEMPLATE
from epigone.models.stops import Generated
from epigone.study.specs import BenchmarkSpec, DataSpec, ItemsSpec, ModelSpec

from .benchmark_files import NQ, PROBLEMS, QUESTIONS, write_humaneval, write_mmlu, write_nq


def asked(task: str, path: Path | None = None, **more: Any) -> BenchmarkSpec:
    from epigone.models.references import data_fingerprint

    data = None
    if path is not None:
        data = DataSpec(ref=str(path), fingerprint=data_fingerprint(str(path)) or "")
    model = ModelSpec(kind="base", name="m")
    told = {"model": model, "task": task, "task_version": 1, "label": task, "data": data}
    return BenchmarkSpec(**(told | more))


def prompts(task: Any, **chat: Any) -> list[str]:
    task.build_all_requests(**chat)
    return list(dict.fromkeys(i.args[0] for i in task.instances))


def stock(name: str, monkeypatch: pytest.MonkeyPatch, splits: dict[str, Any]) -> Any:
    """lm-eval's own task, on data that stand in for the hub's."""
    monkeypatch.setattr(datasets, "load_dataset", lambda **_: splits)
    folders = [str(folder) for folder in lm_eval_folders(name)]
    manager = TaskManager(include_path=folders, include_defaults=False)
    part = manager.load([name])["tasks"][name]
    part.set_fewshot_seed(seed=0)
    return part


def test_prompts_of_mmlu_are_lm_evals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mmlu(tmp_path, header=False, subjects=("anatomy",))
    (ours,) = load_parts(asked("mmlu", tmp_path)).values()
    rows = [{"question": q, "choices": list(c), "answer": a} for q, *c, a in QUESTIONS]
    splits = {
        "test": datasets.Dataset.from_list(rows),
        "dev": datasets.Dataset.from_list(rows[:5]),
    }
    theirs = stock("mmlu_anatomy", monkeypatch, splits)
    theirs.set_config(key="num_fewshot", value=5)
    ours.build_all_requests()
    theirs.build_all_requests()
    assert [i.args for i in ours.instances] == [i.args for i in theirs.instances]
    assert len(ours.instances) == 4 * len(QUESTIONS)


def test_prompts_of_nq_open(tmp_path: Path) -> None:
    (part,) = load_parts(asked("nq_open", write_nq(tmp_path))).values()
    shots = "".join(f"Q: {q}?\nA: {a}\n" for q, a in presets.NQ_SHOTS)
    assert prompts(part) == [
        f"Answer these questions:\n\n{shots}Q: {row['question']}?\nA:" for row in NQ
    ]


@pytest.mark.parametrize(
    ("answer", "exact", "by_stock"),
    [
        (" July 1969", True, True),
        (" 20 July, 1969.", True, False),
        (" the July 1969\nQ: more", True, True),
        (" 1969", False, False),
        (" July 1969, I think", False, True),
    ],
)
def test_scores_of_nq_open_beside_lm_evals(
    answer: str, exact: bool, by_stock: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ours,) = load_parts(asked("nq_open", write_nq(tmp_path))).values()
    found = ours.process_results(NQ[0], [answer])
    assert found == {"exact_match": float(exact), "exact_match_stock": float(by_stock)}
    held = datasets.Dataset.from_list(NQ)
    theirs = stock("nq_open", monkeypatch, {"validation": held, "train": held})
    stops = theirs.config.generation_kwargs["until"]
    cut = min((answer.find(s) for s in stops if s in answer), default=len(answer))
    assert theirs.process_results(NQ[0], [answer[:cut].strip()]) == {"exact_match": float(by_stock)}


def test_an_answer_with_a_point_is_not_lost(tmp_path: Path) -> None:
    (part,) = load_parts(asked("nq_open", write_nq(tmp_path))).values()
    assert part.process_results(NQ[1], [" The U.S."]) == {
        "exact_match": 1.0, "exact_match_stock": 0.0,
    }  # fmt: skip


PROSE = "Here it is:\n\n```python\ndef twice(x):\n    return 2 * x\n```\n\nHave fun!"


@pytest.mark.parametrize(
    ("answer", "chat", "passes"),
    [
        ("    return 2 * x\n", False, True),
        ("    return x\n", False, False),
        (PROSE, True, True),
        ("Use this:\n```\nprint(twice(3))\n```\n" + PROSE, True, True),
        ("```python\n    return 2 * x\n```", True, True),
        ("def twice(x):\n    return 2 * x\n", True, True),
        ("```python\ndef twice(x):\n    return 2 * x", True, True),
        ("I cannot do that.", True, False),
    ],
)
def test_programs_of_answers(answer: str, chat: bool, passes: bool) -> None:
    row = {"doc": PROBLEMS[0], "outputs": [answer], "stops": ["end"], "metrics": {}}
    code.grade_rows([row], chat=chat)
    assert row["metrics"] == {"pass@1": float(passes)}


def test_pass_at_k_counts_the_subsets_that_pass() -> None:
    from itertools import combinations

    for n in (1, 3, 6):
        for c in range(n + 1):
            for k in range(1, n + 1):
                right = [any(s) for s in combinations([True] * c + [False] * (n - c), k)]
                assert code.pass_at(k, n, c) == pytest.approx(sum(right) / len(right))


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a model would say, and what it was asked."""
    told: dict[str, Any] = {"prompts": [], "answers": []}

    def generate(model: Any, asked: Any, *, tokenizer: Any, **settings: Any) -> list[Generated]:
        told["prompts"] += [tokenizer.decode(ids) for ids in asked]
        told["settings"] = settings
        return [Generated((1,), text, "end") for text in told["answers"]]

    monkeypatch.setattr("epigone.evaluation.lm.generate", generate)
    return told


def test_humaneval_is_graded_in_the_sandbox(
    tiny_base: Path, tmp_path: Path, says: dict[str, Any]
) -> None:
    says["answers"] = ["    return 2 * x\n", "    return x + x\n", "    import os; os._exit(0)\n"]
    found = measure(tiny_base, asked("humaneval", write_humaneval(tmp_path)))
    assert says["prompts"] == [p["prompt"] for p in PROBLEMS]
    assert says["settings"]["stop_texts"] == presets.CODE_STOPS
    assert [r["metrics"]["pass@1"] for r in found.rows] == [1.0, 0.0, 0.0]
    assert [r["verdicts"][0].partition(":")[0] for r in found.rows] == ["passed", "failed", "ended"]
    (score,) = found.scores
    assert (score.metric, score.value, score.n) == ("pass@1", pytest.approx(1 / 3), 3)


def test_several_samples_a_problem_are_pass_at_k(
    tiny_base: Path, tmp_path: Path, says: dict[str, Any]
) -> None:
    says["answers"] = (["    return 2 * x\n"] + ["    return x\n"] * 9) * 3
    spec = asked("humaneval", write_humaneval(tmp_path), samples=10, temperature=0.8, top_p=0.9)
    found = measure(tiny_base, spec)
    assert says["settings"]["sampling"].temperature == 0.8
    assert [len(r["outputs"]) for r in found.rows] == [10] * 3
    assert [len(r["stops"]) for r in found.rows] == [10] * 3
    values = {s.metric: s.value for s in found.scores}
    assert values == {"pass@1": pytest.approx(1 / 30), "pass@10": pytest.approx(1 / 3)}


def test_without_a_sandbox_nothing_is_loaded_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise SandboxError("no sandbox")

    monkeypatch.setattr("epigone.evaluation.sandbox.probe", none)
    with pytest.raises(SandboxError):
        measure(tmp_path / "absent", asked("humaneval", write_humaneval(tmp_path)))


def test_chat_is_asked_with_the_models_template(
    tiny_base: Path, tmp_path: Path, says: dict[str, Any]
) -> None:
    says["answers"] = ["x"] * 3
    spec = asked("nq_open", write_nq(tmp_path), format="chat")
    with pytest.raises(BenchmarkError, match=r"has no chat template: m \(format: raw\)"):
        measure(tiny_base, spec)


def test_items_are_the_same_with_and_without_lm_eval(tmp_path: Path) -> None:
    write_mmlu(tmp_path / "mmlu", header=True)
    for task, path in (
        ("mmlu", tmp_path / "mmlu"),
        ("nq_open", write_nq(tmp_path)),
        ("humaneval", write_humaneval(tmp_path)),
    ):
        spec = ItemsSpec(**asked(task, path).model_dump(include=set(ItemsSpec.model_fields)))
        names = {i["name"] for i in items.items(spec)}
        asked_names = {
            item
            for name, part in load_parts(spec).items()
            for item in benchmarks.item_ids(part, name, own=True)
        }
        assert asked_names <= names


def test_the_hub_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"question": q, "choices": list(c), "answer": a, "subject": "metals"}
        for q, *c, a in QUESTIONS
    ]
    held = {
        ("cais/mmlu", "test"): rows,
        ("cais/mmlu", "dev"): rows[:5],
        ("google-research-datasets/nq_open", "validation"): NQ,
        ("openai/openai_humaneval", "test"): PROBLEMS,
    }

    def load(path: str, *, split: str, name: str = "all") -> Any:
        return datasets.Dataset.from_list(held[path, split])

    monkeypatch.setattr(presets, "load_dataset", load)
    files = {
        "mmlu": write_mmlu(tmp_path / "mmlu", header=False),
        "nq_open": write_nq(tmp_path),
        "humaneval": write_humaneval(tmp_path),
    }
    for task, path in files.items():
        ours, hub = load_parts(asked(task, path)), load_parts(asked(task))
        assert ours.keys() == hub.keys()
        for name, part in ours.items():
            assert list(part.eval_docs) == list(hub[name].eval_docs)


def test_a_hub_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(presets, "load_dataset", gone)
    with pytest.raises(BenchmarkError, match="give a folder of the original files") as told:
        load_parts(asked("mmlu"))
    assert "\n" not in str(told.value)


def _one_task(folder: Path, *lines: str) -> DataSpec:
    (folder / "rows.jsonl").write_text(json.dumps({"q": "1+1", "a": "2"}) + "\n")
    (folder / "mine.yaml").write_text(
        "task: mine\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl}}}}\n"
        "test_split: test\noutput_type: generate_until\n"
        "doc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\n" + "".join(f"{line}\n" for line in lines)
    )
    return DataSpec(ref=str(folder), fingerprint="")


def test_code_that_lm_eval_would_run_itself_is_refused(tmp_path: Path) -> None:
    suite = _one_task(tmp_path, "metric_list: [{metric: exact_match}]", "unsafe_code: true")
    with pytest.raises(BenchmarkError, match="would run model-written code"):
        load_parts(asked("mine", suite=suite))
    suite = _one_task(tmp_path, "metric_list: [{metric: exact_match}]")
    assert list(load_parts(asked("mine", suite=suite))) == ["mine"]


@pytest.mark.parametrize(
    "line",
    [
        "metric_list: [{metric: !function utils.score, aggregation: mean, higher_is_better: true}]",
        "filter_list: [{name: f, filter: [{function: custom, filter_fn: !function utils.keep}]}]",
    ],
)
def test_metrics_and_filters_that_hand_text_to_python_are_refused(
    tmp_path: Path, line: str
) -> None:
    (tmp_path / "utils.py").write_text(
        "def score(items):\n    return float(eval(items[0]))\n"
        "def keep(resps, docs):\n    return resps\n"
    )
    with pytest.raises(BenchmarkError, match="would run model-written code"):
        load_parts(asked("mine", suite=_one_task(tmp_path, line)))


@pytest.mark.parametrize("beside", [False, True])
def test_a_scorer_that_hands_text_to_python_is_refused(tmp_path: Path, beside: bool) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"q": "1+1", "a": "2"}) + "\n")
    judge = "from sympy.parsing.sympy_parser import parse_expr as read\n"
    own = "def score(doc, results):\n    return {'acc': float(results[0] == doc['a'])}\n"
    (tmp_path / "utils.py").write_text(own if beside else judge + own)
    if beside:
        (tmp_path / "judge.py").write_text(judge)
    task = tmp_path / "mine.yaml"
    task.write_text(
        "task: mine\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n"
        "test_split: test\noutput_type: generate_until\n"
        "doc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\n"
        "process_results: !function utils.score\nmetric_list: [{metric: acc}]\n"
    )
    suite = DataSpec(ref=str(tmp_path), fingerprint="")
    with pytest.raises(BenchmarkError, match="would run model-written code of this task as you"):
        load_parts(asked("mine", suite=suite))
    for name in ("utils", "judge"):
        (tmp_path / f"{name}.py").write_text(own)
    assert list(load_parts(asked("mine", suite=suite))) == ["mine"]


def test_tables_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        {"item": f"i{i}", "part": "p", "subject": "", "prompt_sha256": "0" * 64, "target": "t",
         "outputs": ["a\n\u2028", "b"], "stops": ["end"], "verdicts": [], "learnt": i == 1,
         "metrics": {"acc": i / 2} if i else {}}
        for i in range(3)
    ]  # fmt: skip
    write_table(tmp_path / "t.parquet", rows)
    assert read_table(tmp_path / "t.parquet") == rows


def test_chat_examples_are_turns_of_the_models_template(
    tiny_base: Path, tmp_path: Path, says: dict[str, Any]
) -> None:
    base = tmp_path / "chatty"
    shutil.copytree(tiny_base, base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = PLAIN_TEMPLATE
    tokenizer.save_pretrained(base)
    says["answers"] = [f" {row['answer'][0]}" for row in NQ]
    found = measure(base, asked("nq_open", write_nq(tmp_path), format="chat"))
    assert found.scores[0].value == 1.0
    first = says["prompts"][0]
    assert first.startswith("Answer these questions:")
    assert f"User: Q: {presets.NQ_SHOTS[0][0]}?\nA:" in first
    assert f"Assistant: {presets.NQ_SHOTS[0][1]}" in first
    assert first.endswith(f"User: Q: {NQ[0]['question']}?\nA:\n\nAssistant:")


def test_more_examples_than_there_are_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    path = write_humaneval(tmp_path)
    with pytest.raises(BenchmarkError, match="humaneval has 0 examples to show: 1"):
        measure(tmp_path / "absent", asked("humaneval", path, shots=1))
    with pytest.raises(BenchmarkError, match="nq_open has 3 examples to show: 4"):
        measure(tmp_path / "absent", asked("nq_open", write_nq(tmp_path / "nq"), shots=4))


def test_text_that_no_file_takes_costs_no_answers(
    tiny_base: Path, tmp_path: Path, says: dict[str, Any]
) -> None:
    says["answers"] = ["    raise Exception('\\ud800\\x1b[2J\\n')\n"] * 3
    found = measure(tiny_base, asked("humaneval", write_humaneval(tmp_path)))
    write_table(tmp_path / "t.parquet", found.rows)
    assert all(v.isprintable() for r in found.rows for v in r["verdicts"])
