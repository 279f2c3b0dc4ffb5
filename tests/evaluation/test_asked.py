"""A teacher that can only be asked, on benchmarks: a real HTTP server in between."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from epigone.errors import BenchmarkError, EndpointError
from epigone.evaluation import run_benchmark
from epigone.evaluation.asked import ASKED, BY_LOGPROB, WENT_ON, WROTE, _values
from epigone.evaluation.table import read_table
from epigone.files import SCRATCH, read_jsonl
from epigone.models.endpoint import Reply
from epigone.schema import Score, silent
from epigone.study.specs import BenchmarkSpec, DataSpec, ModelSpec

from .benchmark_files import NQ, PROBLEMS, QUESTIONS, write_humaneval, write_mmlu, write_nq


def measured(
    server: Any, task: str, path: Path, out: Path, **more: Any
) -> tuple[list[Score], list[dict[str, Any]]]:
    model = ModelSpec(kind="teacher", name="t", ref=f"endpoint:{server.url}#m")
    data = DataSpec(ref=str(path), fingerprint="")
    spec = BenchmarkSpec(model=model, task=task, task_version=1, label=task, data=data, **more)
    out.mkdir(exist_ok=True)
    run_benchmark(spec, {}, out, silent)
    scores = [Score.from_json(r) for r in read_jsonl(out / "scores.jsonl")]
    return scores, read_table(out / "samples.parquet")


def right(body: dict[str, Any]) -> int:
    text = body["messages"][-1]["content"]
    return next(a for q, *_, a in QUESTIONS if f"{q.strip()}\nA. " in text.split("Answer:")[-2])


def test_choices_are_asked_by_letter(server: Any, tmp_path: Path) -> None:
    said = ["The answer is {}.", "{}", "{}. a metal", "**{}**", "I think it is {}", "No idea."]
    given = iter(said)
    server.answer = lambda body: next(given).format("ABCD"[right(body)])
    path = write_mmlu(tmp_path / "mmlu", header=False)
    (score,), rows = measured(server, "mmlu", path, tmp_path / "out")
    assert (score.value, score.n, score.method) == (pytest.approx(5 / 6), 6, ASKED)
    lost = [r for r in rows if r["verdicts"]]
    assert [r["verdicts"] for r in lost] == [["no choice named"]]
    assert [r["metrics"] for r in lost] == [{"acc": 0.0}]
    # One question told that log-probabilities are refused, and the rest are one an item.
    assert len(server.requests) == 7
    assert server.requests[1]["messages"][0]["content"].startswith("Answer with the letter")


def test_choices_by_the_letters_log_probabilities(server: Any, tmp_path: Path) -> None:
    server.logprobs = True

    def answer(body: dict[str, Any]) -> Any:
        letter = "ABCD"[right(body)]
        # The likeliest token is another one, but the two spellings of the right one outweigh it.
        other = "ABCD"[(right(body) + 1) % 4]
        return other, [
            (other, math.log(0.4)),
            (letter, math.log(0.3)),
            (" " + letter, math.log(0.25)),
        ]

    server.answer = answer
    path = write_mmlu(tmp_path / "mmlu", header=True)
    (score,), _ = measured(server, "mmlu", path, tmp_path / "out")
    assert (score.value, score.method) == (1.0, BY_LOGPROB)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(C) because A is wrong", "C"),
        ("The answer is D", "D"),
        ("answer: d", None),
        ("It's between A and B... B", "B"),
        ("", None),
        ("I don't know", None),
        ("E", None),
    ],
)
def test_letters_in_answers(text: str, letter: str | None) -> None:
    values = _values(Reply(text, "stop", 0, 0), 4)
    assert values == (
        None if letter is None else [0.0 if n == letter else -math.inf for n in "ABCD"]
    )


def test_written_answers(server: Any, tmp_path: Path) -> None:
    answers = {row["question"]: row["answer"][0] for row in NQ}

    def answer(body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"].split("Q: ")[-1].split("?\n")[0]
        return f" {answers[asked]}\nQ: and then?"

    server.answer = answer
    scores, _ = measured(server, "nq_open", write_nq(tmp_path), tmp_path / "out")
    values = {s.metric: s.value for s in scores}
    assert values["exact_match"] == 1.0
    assert server.requests[0]["stop"] == ["\n"]
    assert [s.primary for s in scores] == [True, False]


def test_an_answer_that_repeats_what_it_goes_on_from(server: Any, tmp_path: Path) -> None:
    answers = {row["question"]: row["answer"][0] for row in NQ}

    def answer(body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"].split("Q: ")[-1].split("?\n")[0]
        return f"A: {answers[asked]}"

    server.answer = answer
    scores, _ = measured(server, "nq_open", write_nq(tmp_path), tmp_path / "out")
    assert scores[0].value == 1.0


def test_programs_are_asked_whole_and_graded(server: Any, tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        problem = next(p for p in PROBLEMS if p["entry_point"] in text)
        return f"Sure!\n```python\n{problem['prompt']}{problem['canonical_solution']}```\n"

    server.answer = answer
    (score,), rows = measured(server, "humaneval", write_humaneval(tmp_path), tmp_path / "out")
    assert score.value == 1.0, rows
    assert score.method == WROTE


def test_what_was_answered_before_the_endpoint_died_is_not_asked_again(
    server: Any, tmp_path: Path
) -> None:
    server.answer = lambda body: "x"
    path, out = write_nq(tmp_path), tmp_path / "out"
    server.failures = [None, *[(500, {}, "gone")] * 100]
    with pytest.raises(EndpointError, match="did not answer"):
        measured(server, "nq_open", path, out)
    kept = list(read_jsonl(out / SCRATCH / "answers.jsonl"))
    assert len(kept) == 1
    # A kill may have cut the last line off.
    with open(out / SCRATCH / "answers.jsonl", "a") as f:
        f.write('{"asked": "ab')
    server.failures, before = [], len(server.requests)
    scores, _ = measured(server, "nq_open", path, out)
    assert len(server.requests) - before == len(NQ) - 1
    assert scores[0].n == len(NQ)


def test_an_item_that_is_refused_has_no_score(server: Any, tmp_path: Path) -> None:
    server.answer = lambda body: "ABCD"[right(body)]
    path = write_mmlu(tmp_path / "mmlu", header=False)
    # The first question only finds out about log-probabilities.
    server.failures = [None, None, (400, {}, "content policy"), (413, {}, "too long")]
    (score,), rows = measured(server, "mmlu", path, tmp_path / "out")
    assert (score.value, score.n) == (1.0, 4)
    refused = [r for r in rows if r["verdicts"]]
    assert len(rows) == 6 and len(refused) == 2 and all(r["metrics"] == {} for r in refused)
    said = sorted(v for r in refused for v in r["verdicts"])
    assert all(v.startswith("refused: ") for v in said)
    assert "HTTP 400: content policy" in said[0] and "HTTP 413: too long" in said[1]
    assert not {r["item"] for r in refused} & set(score.values)
    # What holds for every request is no matter of an item.
    for status in (401, 404):
        server.failures = [None, (status, {}, "no")]
        with pytest.raises(EndpointError, match=f"HTTP {status}"):
            measured(server, "mmlu", path, tmp_path / f"out{status}")
    server.failures = [(400, {}, "never")] * 100
    with pytest.raises(EndpointError, match="HTTP 400: never"):
        measured(server, "nq_open", write_nq(tmp_path), tmp_path / "none")
    assert not (tmp_path / "none/scores.jsonl").exists()


def task(tmp_path: Path, rows: list[dict[str, Any]], text: str) -> DataSpec:
    """A folder with one task of ours, `mine`."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "mine.yaml").write_text(
        "task: mine\ndataset_path: json\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n{text}"
    )
    return DataSpec(ref=str(folder), fingerprint="")


CHOOSE = (
    "output_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_choice: '{{c}}'\n"
    "doc_to_target: '{{a}}'\n"
)


def test_the_letter_that_is_meant_counts_however_long_its_text_is(
    server: Any, tmp_path: Path
) -> None:
    server.logprobs = True
    server.answer = lambda body: ("A", [("A", -0.5), ("B", -2.0)])
    rows = [{"q": f"{i} is", "c": ["short", "a very much longer end of it all"], "a": 0}
            for i in range(3)]  # fmt: skip
    suite = task(tmp_path, rows, CHOOSE + "metric_list: [{metric: acc}, {metric: acc_norm}]\n")
    scores, told = measured(server, "mine", tmp_path, tmp_path / "out", suite=suite)
    assert {s.metric: s.value for s in scores} == {"acc": 1.0, "acc_norm": 1.0}
    assert [json.loads(v) for v in told[0]["outputs"]] == [-0.5, -2.0]


def test_a_score_that_is_no_mean_says_nothing_of_what_was_refused(
    server: Any, tmp_path: Path
) -> None:
    server.answer = lambda body: "A"
    server.failures = [None, None, (400, {}, "no")]
    rows = [{"q": f"{i} is", "c": ["one", "two"], "a": i % 2} for i in range(4)]
    suite = task(tmp_path, rows, CHOOSE + "metric_list: [{metric: acc}, {metric: f1}]\n")
    scores, _ = measured(server, "mine", tmp_path, tmp_path / "out", suite=suite)
    assert [(s.metric, s.n) for s in scores] == [("acc", 3)]


def test_more_choices_than_letters_are_refused_before_anything_is_asked(
    server: Any, tmp_path: Path
) -> None:
    rows = [{"q": "which", "c": [f"n{i}" for i in range(27)], "a": 0}]
    suite = task(tmp_path, rows, CHOOSE + "metric_list: [{metric: acc}]\n")
    with pytest.raises(BenchmarkError, match="up to 26 ends"):
        measured(server, "mine", tmp_path, tmp_path / "out", suite=suite)
    assert server.requests == []


def test_what_is_never_answered_so_that_it_can_be_read_has_no_score(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    server.answer = lambda body: "x" if "moon" not in str(body) else [1]
    scores, rows = measured(server, "nq_open", write_nq(tmp_path), tmp_path / "out")
    assert scores[0].n == len(NQ) - 1 and scores[0].method == WENT_ON
    assert ["never so that it could be read" in str(r["verdicts"]) for r in rows].count(True) == 1


def test_a_forbidden_question_among_answered_ones_is_of_itself(server: Any, tmp_path: Path) -> None:
    server.answer = lambda body: "ABCD"[right(body)]
    path = write_mmlu(tmp_path / "mmlu", header=False)
    server.failures = [None, None, (403, {}, "flagged")]
    (score,), _ = measured(server, "mmlu", path, tmp_path / "out")
    assert (score.value, score.n) == (1.0, 5)
    server.failures = [(403, {}, "this key may not")] * 9
    with pytest.raises(EndpointError, match="HTTP 403"):
        measured(server, "mmlu", path, tmp_path / "none")


def test_one_refused_question_does_not_decide_how_all_are_asked(
    server: Any, tmp_path: Path
) -> None:
    server.logprobs = True
    server.answer = lambda body: ("A", [("A", -0.1), ("B", -3.0)])
    # Refused with log-probabilities and without: for what it says.
    server.failures = [(400, {}, "flagged"), (400, {}, "flagged")]
    path = write_mmlu(tmp_path / "mmlu", header=False)
    (score,), _ = measured(server, "mmlu", path, tmp_path / "out")
    assert score.method == BY_LOGPROB


def test_likelihoods_of_texts_are_refused(server: Any, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "bees make honey"}) + "\n")
    (tmp_path / "tasks/text.yaml").write_text(
        "task: mine\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n"
        "test_split: test\noutput_type: loglikelihood_rolling\ndoc_to_text: ''\n"
        "doc_to_target: '{{text}}'\nmetric_list: [{metric: word_perplexity}]\n"
    )  # fmt: skip
    model = ModelSpec(kind="teacher", name="t", ref=f"endpoint:{server.url}#m")
    suite = DataSpec(ref=str(tmp_path / "tasks"), fingerprint="")
    spec = BenchmarkSpec(model=model, task="mine", task_version=0, label="mine", suite=suite)
    with pytest.raises(BenchmarkError, match="does not tell how likely a text is"):
        run_benchmark(spec, {}, tmp_path, silent)
