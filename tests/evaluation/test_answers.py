"""Answers of a real, tiny model to held-out prompts, and the reading of prompt files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from epigone.errors import CorpusError
from epigone.evaluation import run_generate
from epigone.evaluation.answers import answer_prompts, read_prompts
from epigone.models.chat import prompt_ids, stop_ids
from epigone.models.load import load
from epigone.schema import Conversation, Message, Provenance, Sample, silent
from epigone.study.specs import GenerateSpec, ModelSpec, SourceSpec

ROWS = [
    Conversation(
        f"c{i}",
        (
            *((Message("system", "Be brief."),) if i == 1 else ()),
            Message("user", f"What is\u2028number {i}?"),
            Message("assistant", f" It is {i}. "),
        ),
        Provenance("s", "t"),
    )
    for i in range(4)
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "held_out.jsonl").write_text(
        "".join(json.dumps(r.to_json(), ensure_ascii=False) + "\n" for r in ROWS), encoding="utf-8"
    )
    return folder


def samples(folder: Path) -> list[Sample]:
    text = (folder / "samples.jsonl").read_text(encoding="utf-8")
    return [Sample.from_json(json.loads(line)) for line in text.split("\n") if line]


def test_the_teacher_is_what_was_recorded(corpus: Path, tmp_path: Path) -> None:
    spec = GenerateSpec(model=ModelSpec(kind="teacher", name="t"), n=3)
    facts = run_generate(spec, {"corpus": corpus}, tmp_path, silent)
    got = samples(tmp_path)
    assert [s.item for s in got] == ["c0", "c1", "c2"]
    assert [s.output for s in got] == [" It is 0. ", " It is 1. ", " It is 2. "]
    assert {(s.stop, s.tokens, s.prompt_sha256) for s in got} == {("recorded", 0, "")}
    assert got[1].prompt == ROWS[1].messages[:2]
    assert facts["samples"] == 3


def test_a_recorded_answer_ends_where_a_limit_would_have_ended_it(
    corpus: Path, tmp_path: Path, tiny_base: Path
) -> None:
    words = "Caf\u00e9 \U0001f600 " * 40
    row = Conversation(
        "long", (Message("user", "?"), Message("assistant", words)), ROWS[0].provenance
    )
    line = json.dumps(row.to_json()) + "\n"
    held = corpus / "held_out.jsonl"
    held.write_text(line + held.read_text(encoding="utf-8"), encoding="utf-8")
    spec = GenerateSpec(
        model=ModelSpec(kind="teacher", name="t"),
        n=2,
        max_new_tokens=64,
        tokenizer=SourceSpec(ref=str(tiny_base), fingerprint=""),
    )
    run_generate(spec, {"corpus": corpus}, tmp_path, silent)
    cut, whole = samples(tmp_path)
    tokenizer = load(tiny_base, "fp32").tokenizer
    assert (cut.stop, whole.stop, whole.output) == ("length", "recorded", " It is 0. ")
    assert words.startswith(cut.output)
    ids = tokenizer(words)["input_ids"][:64]
    # A character whose last bytes fell beyond the limit is kept whole.
    assert cut.output.startswith(tokenizer.decode(ids).rstrip("\ufffd"))
    assert len(tokenizer(cut.output)["input_ids"]) - 64 in range(4)


def test_a_student_answers_as_transformers_does(
    corpus: Path, tmp_path: Path, tiny_base: Path
) -> None:
    student = tmp_path / "student"
    student.mkdir()
    (student / "amount-600").symlink_to(tiny_base)
    spec = GenerateSpec(
        model=ModelSpec(kind="student", name="tiny-600", amount=600), n=4, max_new_tokens=8
    )
    inputs = {"corpus": corpus, "student": student}
    out = tmp_path / "out"
    out.mkdir()
    facts = run_generate(spec, inputs, out, silent)
    first = (out / "samples.jsonl").read_bytes()
    got = samples(out)
    loaded = load(tiny_base, "fp32")
    for row, sample in zip(ROWS, got, strict=True):
        ids = prompt_ids(loaded.tokenizer, row.messages[:-1])
        with torch.no_grad():
            said = loaded.model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                do_sample=False,
                max_new_tokens=8,
                eos_token_id=sorted(stop_ids(loaded.tokenizer)),
            )[0, len(ids) :]
        assert sample.output == loaded.tokenizer.decode(said, skip_special_tokens=True).strip()
        assert (sample.item, sample.model) == (row.id, "tiny-600")
        assert 0 < sample.tokens <= 8 and sample.stop in ("length", "end")
    assert len({s.prompt_sha256 for s in got}) == 4
    assert facts["tokens"] == sum(s.tokens for s in got)
    run_generate(spec, inputs, out, silent)
    assert (out / "samples.jsonl").read_bytes() == first
    for word in ("second", "time"):
        assert word not in json.dumps(json.loads(first.split(b"\n")[0]))  # no timings in the rows


def test_too_few_held_out_prompts(corpus: Path, tmp_path: Path) -> None:
    spec = GenerateSpec(model=ModelSpec(kind="teacher", name="t"), n=5)
    with pytest.raises(CorpusError, match="4 prompts only"):
        run_generate(spec, {"corpus": corpus}, tmp_path, silent)


def test_answers_keep_the_order_of_the_prompts(tiny_base: Path) -> None:
    asked = [(f"p{i}", (Message("user", "word " * (i * 7 % 5)),)) for i in range(5)]
    together = answer_prompts(tiny_base, asked, model="m", max_new_tokens=4)
    alone = [answer_prompts(tiny_base, [p], model="m", max_new_tokens=4)[0] for p in asked]
    assert together == alone


def test_prompt_files_of_every_kind(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(
        '{"prompt": "Why?", "id": "q1"}\n\n'
        '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}\n'
        '{"prompt": [{"role": "user", "content": "again"}], "item": 7}\n'
        '{"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]}\n'
    )
    got = read_prompts(file)
    assert [m for _, m in got] == [
        (Message("user", "Why?"),),
        (Message("system", "s"), Message("user", "u")),
        (Message("user", "again"),),
        (Message("user", "h"),),
    ]
    assert (got[0][0], got[2][0]) == ("q1", "7")
    assert read_prompts(corpus / "held_out.jsonl") == [(r.id, r.messages[:-1]) for r in ROWS]
    plain = tmp_path / "plain.txt"
    plain.write_text("\ufeffOne?\r\n\r\n  Two?\n", encoding="utf-8")
    assert [m[0].content for _, m in read_prompts(plain)] == ["One?", "Two?"]
    assert [i for i, _ in read_prompts(plain)] == [i for i, _ in read_prompts(plain)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no prompts"),
        ('{"prompt": "a"}\n{"answer": "b"}', ":2: no prompt"),
        ("{broken", ":1: no prompt"),
        ('{"messages": [{"role": "user"}]}', ":1: no prompt"),
        ('{"messages": [{"role": "user", "content": null}]}', ":1: no user turn"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', ":1: no user turn"),
        ('{"messages": [{"role": "wizard", "content": "a"}]}', ":1: no prompt"),
        ('{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}', "one id"),
    ],
)
def test_prompt_files_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(text)
    with pytest.raises(CorpusError, match=said):
        read_prompts(file)


def test_prompt_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "p", tmp_path / "absent", tmp_path):
        with pytest.raises(CorpusError, match="cannot be read"):
            read_prompts(path)
