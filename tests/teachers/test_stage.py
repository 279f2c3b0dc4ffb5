"""The stage `ask`: what a study's spec says is what a fake endpoint is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.teachers.conftest import Running
from tests.teachers.test_synthesis import TASK, passage, task_folder

from epigone.errors import CorpusError
from epigone.files import read_jsonl, write_jsonl
from epigone.models.references import data_fingerprint
from epigone.schema import silent
from epigone.study.specs import AskSpec, DataSpec, MeansSpec, ModelSpec
from epigone.teachers import run
from epigone.teachers.money import BUDGET, LEDGERS, PURPOSE

Fakes = Callable[..., Running]
GERMAN = "Bitte erzähle mir, wie die Menschen dieser alten Stadt eine lange Brücke gebaut haben"


@pytest.fixture(autouse=True)
def _means(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(LEDGERS, str(tmp_path / "ledger"))
    monkeypatch.setenv(PURPOSE, "study")
    monkeypatch.delenv(BUDGET, raising=False)


def data(path: Path) -> DataSpec:
    return DataSpec(ref=str(path), fingerprint=data_fingerprint(str(path)) or "")


def asked(server: Running, folder: Path, inputs: dict[str, Path] | None = None, **told: Any) -> Any:
    model = ModelSpec(kind="teacher", name="mine", ref=f"endpoint:{server.ref}",
                      means=MeansSpec(price="2,8"))  # fmt: skip
    spec = AskSpec(model=model, wording="", terms="openai", **told)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return run(spec, inputs or {}, out, silent)


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(folder / "out" / "answers.jsonl"))


def test_answers_to_drawn_prompts(fake: Fakes, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": f"Tell me more about the number {i}."}
                                       for i in range(30)])  # fmt: skip
    server = fake()
    facts = asked(server, tmp_path, task="answers", size=12, data=data(tmp_path / "p.jsonl"),
                  system="Be brief.", max_tokens=64, seed=5, temperature=0.5)  # fmt: skip
    assert facts["written"] == 12
    found = rows(tmp_path)
    assert {(r["teacher"], r["terms"]) for r in found} == {("mine", "openai")}
    chosen = [r["id"] for r in read_jsonl(tmp_path / "out" / "chosen.jsonl")]
    assert chosen == [r["id"] for r in found]
    assert found[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    (ledger,) = (tmp_path / "ledger").glob("*.jsonl")
    bodies = [r["row"]["request"] for r in read_jsonl(ledger) if r["row"]["kind"] == "came"]
    assert {(b["seed"], b["temperature"], b["max_tokens"]) for b in bodies} == {(5, 0.5, 64)}
    # Those that an earlier step chose, in its order.
    select = tmp_path / "select"
    select.mkdir()
    write_jsonl(select / "chosen.jsonl", [{"id": name} for name in chosen[:3][::-1]])
    asked(server, tmp_path, {"chosen": select}, task="answers", size=3,
          data=data(tmp_path / "p.jsonl"), system="Be brief.")  # fmt: skip
    assert [r["id"] for r in rows(tmp_path)] == chosen[:3][::-1]


def test_passages_are_drawn_and_left_out_like_prompts(fake: Fakes, tmp_path: Path) -> None:
    english = [f"{passage(i)} and people still talk about that old bridge today" for i in range(6)]
    german = f"{GERMAN} und warum sie heute noch steht, obwohl der Fluss so breit ist wie ein See"
    write_jsonl(tmp_path / "posts.jsonl", [{"post": t} for t in [german, *english]])
    items = tmp_path / "items"
    items.mkdir()
    write_jsonl(items / "items.jsonl", [{"name": "q/1", "question": english[2], "text": ""}])
    told = {"task": "tldr", "data": data(tmp_path / "posts.jsonl"), "languages": ("en",)}
    server = fake(says="People talk of a bridge.")
    with pytest.raises(CorpusError, match="can be asked"):
        asked(server, tmp_path, {"items_q": items}, size=7, **told)
    assert server.told()["billed"] == {}, "nothing is paid before it is known"
    asked(server, tmp_path, size=4, **told)
    found = rows(tmp_path)
    assert len(found) == 4
    assert not any("Brücke" in r["messages"][0]["content"] for r in found)
    assert all(r["messages"][0]["content"].startswith("Summarize") for r in found)


def test_pairs_of_nq_and_of_a_task_of_ones_own(fake: Fakes, tmp_path: Path) -> None:
    facts = asked(fake(says="pairs"), tmp_path, task="nq", size=15, shown=3, each=2)
    assert (facts["task"], facts["written"]) == ("nq", 15)
    assert {r["terms"] for r in rows(tmp_path)} == {"openai"}
    folder = task_folder(tmp_path / "sums", TASK)
    said = "Question: 20 + 22\nSum: 42\nQuestion: 7 + 8\nSum: 15"
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text('{"question": "1 + 5", "answer": "6"}\n{"question": "2 + 5", "answer": "7"}\n')
    facts = asked(fake(says=said), tmp_path, task="", size=2, data=data(folder), seeds=data(seeds))
    found = [[m["content"] for m in r["messages"]] for r in rows(tmp_path)]
    assert found == [["Add: 20 + 22", "42"], ["Add: 7 + 8", "15"]]
    assert facts["task"] == "sums"
    # What it took to ask differs from run to run, and no file of the result tells of it.
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["answers.jsonl", "rejected.jsonl"]
