"""Pools of pairs that a fake teacher makes: what joins, what does not, and going on."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.teachers.conftest import Running

from epigone.corpus.contamination import Item, words
from epigone.errors import EndpointError, UserError
from epigone.files import read_jsonl
from epigone.teachers import task as tasks
from epigone.teachers.ask import Asker
from epigone.teachers.means import Means
from epigone.teachers.money import BudgetReached, Price
from epigone.teachers.pairs import NEAR, Pair, rouge_l
from epigone.teachers.synthesis import BARREN, Growth
from epigone.teachers.synthesize import SETTINGS, synthesize_task
from epigone.teachers.tldr import summarize
from epigone.teachers.wordings import built_in

Fakes = Callable[..., Running]
PRICE = Price(Decimal("2"), Decimal("8"))
NQ = tasks.read(built_in()["nq"])


def make(server: Running, folder: Path, size: int = 60, **more: Any) -> dict[str, Any]:
    means = replace(more.pop("means", None) or Means(price=PRICE), ledgers=folder / "ledger")
    told = more.pop("task", NQ)
    growth = more.pop("growth", Growth(size))
    return synthesize_task(told, folder / "out", server.ref, growth, means=means, **more)


def rows(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path))


def test_a_pool_grows_to_its_size_and_holds_no_two_alike(fake: Fakes, tmp_path: Path) -> None:
    server = fake(says="pairs")
    facts = make(server, tmp_path, 200)
    found = rows(tmp_path / "out" / "answers.jsonl")
    assert facts["written"] == len(found) == 200
    assert [m["role"] for r in found for m in r["messages"]] == ["user", "assistant"] * 200
    said = [words(r["messages"][0]["content"]) for r in found]
    said += [words(p.question) for p in NQ.seeds]
    assert all(rouge_l(a, b) < NEAR for i, a in enumerate(said) for b in said[:i])
    refused = rows(tmp_path / "out" / "rejected.jsonl")
    assert facts["rejected"]["nearly asked already"] > 10
    assert sum(facts["rejected"].values()) == len(refused)
    # Every pair that came is either accepted or rejected, but for those beyond the last one.
    assert 5 * facts["asked"] - 200 - len(refused) < 5 * 4
    told = server.told()
    assert told["mistakes"] == []
    assert sum(told["billed"].values()) == facts["asked"]
    assert float(facts["cost"]) == pytest.approx(told["cost"])


def test_how_many_are_asked_at_once_decides_nothing(
    fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Asker, "_pause", lambda *_: 0.0)
    contents = []
    for concurrency in (1, 3, 32):
        server = fake(says="pairs", faults={"500": 0.2, "drop": 0.1, "length": 0.1})
        folder = tmp_path / str(concurrency)
        make(server, folder, 80, means=Means(concurrency, price=PRICE))
        contents.append((folder / "out" / "answers.jsonl").read_bytes())
    assert contents[0] == contents[1] == contents[2]


def test_other_draws_make_another_pool(fake: Fakes, tmp_path: Path) -> None:
    server = fake(says="pairs")
    found = []
    for seed in (0, 1):
        make(server, tmp_path / str(seed), growth=Growth(30, seed=seed))
        found.append((tmp_path / str(seed) / "out" / "answers.jsonl").read_bytes())
    assert found[0] != found[1]


def test_a_pool_goes_on_where_the_budget_ended(fake: Fakes, tmp_path: Path) -> None:
    server = fake(says="pairs")
    make(server, tmp_path / "whole", 100)
    whole = (tmp_path / "whole" / "out" / "answers.jsonl").read_bytes()
    other = fake(says="pairs")
    for budget in ("0.0095", "0.012"):
        with pytest.raises(BudgetReached):
            make(other, tmp_path, 100, means=Means(price=PRICE, budget=Decimal(budget)))
        assert Decimal(str(other.told()["cost"])) <= Decimal(budget)
    make(other, tmp_path, 100)
    assert (tmp_path / "out" / "answers.jsonl").read_bytes() == whole
    assert other.told()["billed"] == server.told()["billed"]


def test_a_pool_survives_kills(fake: Fakes, tmp_path: Path) -> None:
    calm, server = fake(says="pairs"), fake(says="pairs", latency=0.05)
    make(calm, tmp_path / "calm", 300)
    draw = random.Random(5)
    for kill in range(8):
        seen = server.told()["seen"]
        child = os.fork()
        if not child:
            make(server, tmp_path, 300)
            os._exit(0)
        # Some when requests are on their way, however slow this machine is.
        while kill % 2 == 0 and server.told()["seen"] == seen:
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "nothing was left to ask"
    make(server, tmp_path, 300)
    ends = [folder / "out" / "answers.jsonl" for folder in (tmp_path, tmp_path / "calm")]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    # What was in flight at a kill came twice, nothing else did.
    told = server.told()["billed"]
    assert set(told) == set(calm.told()["billed"])
    (ledger,) = (tmp_path / "ledger").glob("*.jsonl")
    kinds = Counter((row["row"]["key"], row["row"]["kind"]) for row in read_jsonl(ledger))
    open_ = sum(n - kinds[key, "came"] for (key, kind), n in kinds.items() if kind == "sent")
    assert sum(told.values()) - len(told) <= open_ <= 8 * 32


def test_a_teacher_that_has_no_more_is_told(fake: Fakes, tmp_path: Path) -> None:
    server = fake(says="Question: what is it\nAnswer: this")
    with pytest.raises(EndpointError, match="gives no more") as raised:
        make(server, tmp_path, 40)
    assert "1 of 40 examples" in str(raised.value)
    assert len(rows(tmp_path / "out" / "answers.jsonl")) == 1
    assert len(server.told()["billed"]) <= BARREN + 64


def test_items_of_an_evaluation_are_kept_out(fake: Fakes, tmp_path: Path) -> None:
    server = fake(says="Question: who sang the song by heart\nAnswer: Bo\nQuestion: why\nAnswer: b")
    avoid = [Item("nq/3", "Who sang the song by heart?")]
    with pytest.raises(EndpointError):
        make(server, tmp_path, 2, avoid=avoid)
    (found,) = rows(tmp_path / "out" / "answers.jsonl")
    assert found["messages"][0]["content"] == "why"
    told = json.loads((tmp_path / "out" / "asked.json").read_text())
    assert told["rejected"]["an item of the evaluation"] > 0


def test_answers_cut_at_their_longest_lose_their_last_pair(fake: Fakes, tmp_path: Path) -> None:
    server = fake(says="pairs", faults={"length": 1.0})
    facts = make(server, tmp_path, 20)
    assert facts["rejected"]["cut at its longest"] > 0
    cut = [r for r in rows(tmp_path / "out" / "rejected.jsonl") if "cut at" in r["reason"]]
    made = {r["messages"][0]["content"] for r in rows(tmp_path / "out" / "answers.jsonl")}
    assert not made & {r["text"].splitlines()[0].partition(": ")[2] for r in cut}


TASK = """
name: sums
description: Sums of small numbers.
answer: Sum
prompt: "Add: {{question}}"
validator: validate.py:check
longest_answer: 2
seeds: [{question: 1 + 1, answer: "2"}, {question: 1 + 2, answer: "3"}]
"""
VALIDATOR = """
def check(question, answer):
    return "" if eval(question) == int(answer) else "wrong sum"
"""


def task_folder(folder: Path, text: str = TASK, validator: str = VALIDATOR) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.yaml").write_text(text)
    (folder / "validate.py").write_text(validator)
    return folder


def test_a_sole_pair_that_was_cut_is_none(fake: Fakes, tmp_path: Path) -> None:
    server = fake(says="Question: why\nAnswer: they are cau", faults={"length": 1.0})
    with pytest.raises(EndpointError, match="gives no more"):
        make(server, tmp_path, 3)
    assert rows(tmp_path / "out" / "answers.jsonl") == []


def test_a_validator_is_not_run_before_it_is_asked(tmp_path: Path) -> None:
    task = tasks.read(task_folder(tmp_path / "sums", validator="raise SystemExit('run')"))
    assert task.labels.answer == "Sum"


def test_a_task_of_ones_own_with_a_validator(fake: Fakes, tmp_path: Path) -> None:
    task = tasks.read(task_folder(tmp_path / "sums"))
    assert sorted(p.name for p in (tmp_path / "sums").iterdir()) == ["task.yaml", "validate.py"]
    said = "Question: 20 + 22\nSum: 42\nQuestion: 7 + 8\nSum: 16\nQuestion: 8 x 8\nSum: ha"
    with pytest.raises(EndpointError):
        make(fake(says=said), tmp_path, 2, task=task)
    (found,) = rows(tmp_path / "out" / "answers.jsonl")
    assert [m["content"] for m in found["messages"]] == ["Add: 20 + 22", "42"]
    told = json.loads((tmp_path / "out" / "asked.json").read_text())["rejected"]
    assert set(told) == {"wrong sum", "the validator failed", "asked already"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text": TASK.replace("{{question}}", "it")}, "without its question"),
        ({"text": TASK.replace("answer: Sum", "answer: question")}, "one name"),
        (
            {"text": TASK.replace("longest_answer", "longest_anwser")},
            "did you mean .longest_answer",
        ),
        ({"text": TASK.replace("validate.py:check", "validate.py:chekc")}, "cannot be had"),
        ({"text": TASK.replace("validate.py:check", "nobody.py:check")}, "cannot be had"),
        ({"validator": "import nothing_of_that_name"}, "cannot be had"),
        ({"text": TASK.replace("validate.py:check", "validate")}, "not a validator"),
        ({"text": TASK + "schema: {type: 7}\n"}, "not a JSON schema"),
        ({"text": TASK.replace("{{question}}", "{{question}} in {{unit}}")}, "nothing fills"),
        ({"text": TASK.replace('answer: "3"', 'answer: "4"')}, "wrong by its own check"),
    ],
)
def test_mistakes_in_a_task_are_told_in_a_line(
    change: dict[str, str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says) as raised:
        tasks.read(task_folder(tmp_path / "sums", **change)).probe()
    assert "\n" not in str(raised.value)


def test_seeds_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "seeds.jsonl"
    file.write_text('{"question": "a", "answer": ["b", "c"]}\n{"prompt": "d", "output": "e"}\n')
    found = tasks.read(built_in()["nq"], file)
    assert [(p.question, p.answer) for p in found.seeds] == [("a", "b"), ("d", "e")]
    for text in ("", '{"question": "a"}\n', "{", '{"question": "a", "answer": 3}\n'):
        file.write_text(text)
        with pytest.raises(UserError, match="seeds"):
            tasks.read(built_in()["nq"], file)


def test_the_seeds_of_nq_pass_their_own_checks() -> None:
    assert len(NQ.seeds) == 10
    assert [NQ.check(p) for p in NQ.seeds] == [""] * 10


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("The answer is not provided.", "no answer"),
        ("Unknown", "no answer"),
        ("N/A", "no answer"),
        ("I don't know.", "no answer"),
        ("Not explicitly mentioned", "no answer"),
        ("who was it?", "an answer that is its question"),
        ("none of the above was found", "an answer too long"),
        ("The Unknown Soldier", ""),
        ("NASA", ""),
        ("no", ""),
    ],
)
def test_what_is_no_short_answer(answer: str, wrong: str) -> None:
    assert NQ.check(Pair("Who was it", answer)) == wrong


def passage(i: int) -> str:
    return " ".join(f"word{(i * 7 + j) % 97} and" for j in range(30)) + f" the end of {i}"


def test_summaries_of_passages(fake: Fakes, tmp_path: Path) -> None:
    file = tmp_path / "posts.jsonl"
    posts = [{"post": passage(i)} for i in range(20)]
    posts += [{"post": "too short"}, {"title": "none"}, posts[0]]
    file.write_text("".join(json.dumps(p) + "\n" for p in posts))
    server = fake()
    facts = summarize(file, tmp_path / "out", server.ref, means=Means(ledgers=tmp_path))
    assert facts["skipped"] == {"asked already": 1, "fewer than 20 words": 1, "no text": 1}
    found = rows(tmp_path / "out" / "answers.jsonl")
    assert facts["written"] + sum(facts["rejected"].values()) == 20
    assert passage(0) in found[0]["messages"][0]["content"]
    assert server.told()["mistakes"] == []


@pytest.mark.parametrize(
    ("says", "reason"),
    [(passage(3), "hardly shorter than its passage"),
     (" ".join(passage(3).split()[5:25]), "copied from its passage")],
)  # fmt: skip
def test_copies_are_no_summaries(fake: Fakes, tmp_path: Path, says: str, reason: str) -> None:
    file = tmp_path / "posts.txt"
    file.write_text(passage(3) + "\n" + passage(3) + " more\n")
    with pytest.raises(EndpointError, match="of use"):
        summarize(
            file, tmp_path / "out", fake(says=says).ref, 1, replace(SETTINGS, temperature=0),
            means=Means(ledgers=tmp_path),
        )  # fmt: skip
    with pytest.raises(EndpointError, match=reason):
        summarize(file, tmp_path / "out", fake(says=says).ref, 1, means=Means(ledgers=tmp_path))


def test_a_pool_grows_by_batches_as_it_does_live(
    fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epigone.teachers.batch.QUIET", 0.02)
    monkeypatch.setattr("epigone.teachers.batches.POLL", (0.01, 0.02))
    live = make(fake(says="pairs"), tmp_path / "live", 60)
    server = fake(says="pairs", faults={"500": 0.1})
    facts = make(server, tmp_path, 60, means=Means(price=PRICE, batch=True))
    ends = [folder / "out" / "answers.jsonl" for folder in (tmp_path, tmp_path / "live")]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert Decimal(facts["cost"]) * 2 == Decimal(live["cost"])
    assert set(server.told()["billed"].values()) == {1}
