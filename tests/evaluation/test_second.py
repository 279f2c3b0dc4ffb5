"""The teacher's second answers: asked anew and kept, or read from a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.endpoint_server import Server

from epigone.errors import CorpusError
from epigone.evaluation import run_second
from epigone.files import read_jsonl
from epigone.models.endpoint import Client, Endpoint
from epigone.runs.perform import perform, task_alone
from epigone.schema import Conversation, Message, Provenance, Sample, silent
from epigone.study.specs import DataSpec, MeansSpec, ModelSpec, SecondSpec
from epigone.teachers.keeper import keeping
from epigone.teachers.money import LEDGERS, PURPOSE

PROMPTS = [
    ("c0", (Message("user", "What is 0?"),)),
    ("c1", (Message("system", "Be brief."), Message("user", "What is 1?"))),
    ("c2", (Message("user", "What is 2?"),)),
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = [
        Conversation(item, (*turns, Message("assistant", f"It is {item}.")), Provenance("s", "t"))
        for item, turns in PROMPTS
    ]
    text = "".join(json.dumps(r.to_json()) + "\n" for r in rows)
    (folder / "held_out.jsonl").write_text(text)
    return folder


def samples(folder: Path) -> list[Sample]:
    return [Sample.from_json(row) for row in read_jsonl(folder / "samples.jsonl")]


def test_it_is_asked_as_the_first_was_and_is_no_copy_of_it(
    server: Server, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LEDGERS, str(tmp_path / "ledger"))
    monkeypatch.setenv(PURPOSE, "study")
    said = iter(range(100))
    server.answer = lambda body: f" answer {next(said)} "
    ref = f"endpoint:{server.url}#teacher"
    model = ModelSpec(kind="teacher", name="t", ref=ref, means=MeansSpec(price="1,2"))
    told: dict[str, Any] = {"max_tokens": 64, "temperature": 0.7, "top_p": 0.9}
    spec = SecondSpec(model=model, n=3, max_new_tokens=32, seed=1, **told)
    # What the first answers were asked with lies in the ledger.
    with keeping(model, lambda: None):
        client = Client(Endpoint(server.url, "teacher"))
        first = [client.ask(turns, **told).text for _, turns in PROMPTS]
        client.close()
    out = tmp_path / "second"
    record = perform(task_alone("second", spec, {"corpus": corpus}, out), silent)
    found = samples(out)
    assert [s.item for s in found] == ["c0", "c1", "c2"]
    assert not {s.output for s in found} & {text.strip() for text in first}
    assert all(s.output.startswith("answer ") for s in found)
    asked = server.requests[3:]
    assert len(asked) == 3
    turns = [{"role": m.role, "content": m.content} for m in PROMPTS[1][1]]
    assert {"model": "teacher", "messages": turns, "seed": 1, **told} in asked
    assert (record.facts["samples"], record.facts["same_as_the_first"]) == (3, 0)
    # A step that is lost is made again from the ledger.
    shutil.rmtree(out)
    perform(task_alone("second", spec, {"corpus": corpus}, out), silent)
    assert samples(out) == found
    assert len(server.requests) == 6


def test_what_is_refused_is_missing_and_what_is_the_same_is_counted(
    server: Server, corpus: Path, tmp_path: Path
) -> None:
    model = ModelSpec(kind="teacher", name="t", ref=f"endpoint:{server.url}#teacher")
    item = {"What is 0?": "c0", "What is 1?": "c1", "What is 2?": "c2"}
    server.answer = lambda body: f"It is {item[body['messages'][-1]['content']]}."
    server.failures = [None, (400, {}, "content")]
    facts = run_second(SecondSpec(model=model, n=3), {"corpus": corpus}, tmp_path, silent)
    assert (facts["samples"], facts["missing"], facts["same_as_the_first"]) == (2, 1, 2)


def test_a_file_is_matched_by_item_or_by_prompt(corpus: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": " What is 0? ", "output": "zero"},
        {"item": "c1", "output": "one"},
        {"messages": [{"role": "user", "content": "What is 2?"},
                      {"role": "assistant", "content": "two"}]},
        {"prompt": "Another?", "output": "no"},
    ]  # fmt: skip
    file = tmp_path / "second.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    spec = SecondSpec(
        model=ModelSpec(kind="teacher", name="t"), n=3,
        data=DataSpec(ref=str(file), fingerprint=""),
    )  # fmt: skip
    run_second(spec, {"corpus": corpus}, tmp_path, silent)
    assert [(s.item, s.output) for s in samples(tmp_path)] == [
        ("c0", "zero"), ("c1", "one"), ("c2", "two"),
    ]  # fmt: skip
    file.write_text(json.dumps(rows[3]) + "\n")
    with pytest.raises(CorpusError, match="answers none of the held-out prompts"):
        run_second(spec, {"corpus": corpus}, tmp_path, silent)
    for bad in ("[]\n", '{"prompt": "x"}\n', '{"messages": [3, 4]}\n', "{\n"):
        file.write_text(bad)
        with pytest.raises(CorpusError):
            run_second(spec, {"corpus": corpus}, tmp_path, silent)
