"""A T5 through the stages and the command line: against lm-eval's backend and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from typer.testing import CliRunner

from epigone.cli import app
from epigone.evaluation.answers import answer_prompts
from epigone.evaluation.benchmarks import measure
from epigone.evaluation.lm import SharedPrefixLM
from epigone.models import newlines
from epigone.models.chat import source_ids
from epigone.models.load import Loaded, load
from epigone.schema import Message
from epigone.study.specs import BenchmarkSpec, ModelSpec

STEM = "Please tell me how glass came to be so important, and why people care. " * 2


def instance(kind: str, *args: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=args, idx=0)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def loaded(tiny_t5: Path) -> Loaded:
    return load(tiny_t5, "fp32")


@pytest.fixture(scope="module")
def reference(loaded: Loaded) -> HFLM:
    return HFLM(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        backend="seq2seq",
        batch_size=1,
        max_length=2048,
    )


def test_loglikelihoods_equal_lm_evals_backend(loaded: Loaded, reference: HFLM) -> None:
    pairs = [(STEM + q, c) for q in ("Why", "How so?", "") for c in (" A", " B", " glass is old")]
    pairs += [("", "bread and rivers"), ("trailing space ", "word")]
    asked = [instance("loglikelihood", *p) for p in pairs]
    ours = SharedPrefixLM(loaded).loglikelihood(asked)
    theirs = reference.loglikelihood(asked, disable_tqdm=True)
    assert [g for _, g in ours] == [g for _, g in theirs]
    assert [v for v, _ in ours] == pytest.approx([v for v, _ in theirs], abs=1e-4)


def test_rolling_is_the_decoders_alone(loaded: Loaded) -> None:
    (ours,) = SharedPrefixLM(loaded).loglikelihood_rolling(
        [instance("loglikelihood_rolling", "bees")]
    )
    ids = loaded.tokenizer("bees", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = loaded.model(
            input_ids=torch.tensor([[loaded.tokenizer.eos_token_id]]),
            decoder_input_ids=torch.tensor([[0, *ids[:-1]]]),
        ).logits[0]
    table = logits.log_softmax(-1)
    assert ours == pytest.approx(sum(float(table[i, t]) for i, t in enumerate(ids)), abs=1e-4)


def test_generation_equals_transformers(loaded: Loaded) -> None:
    prompts = [STEM + t for t in ("Why", "How so?", "And then", "Old maps")] + ["bees"]
    free = {"until": [], "max_gen_toks": 12, "do_sample": False}
    ours = SharedPrefixLM(loaded).generate_until(
        [instance("generate_until", p, dict(free)) for p in prompts]
    )
    newline = newlines.mark_id(loaded.tokenizer)
    for prompt, text in zip(prompts, ours, strict=True):
        asked = loaded.tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            said = loaded.model.generate(
                input_ids=asked["input_ids"], do_sample=False, max_new_tokens=12
            )[0].tolist()
        assert asked["input_ids"][0, -1] == loaded.tokenizer.eos_token_id
        assert text == newlines.decode(loaded.tokenizer, said, newline)


def test_contexts_beyond_the_stated_limit_lose_their_left(tiny_t5: Path) -> None:
    loaded = load(tiny_t5, "fp32")
    tail = "people care. Why bread?"
    long = STEM.removesuffix("people care. ") + tail
    loaded.tokenizer.model_max_length = len(loaded.tokenizer(tail)["input_ids"])
    lm = SharedPrefixLM(loaded)
    free = {"until": [], "max_gen_toks": 40}
    both = lm.generate_until([instance("generate_until", t, dict(free)) for t in (long, tail)])
    assert lm.shortened == 1
    assert both[0] == both[1]
    (cut, _), (whole, _) = lm.loglikelihood(
        [instance("loglikelihood", t, " yes") for t in (long, tail)]
    )
    assert lm.shortened == 2
    assert cut == whole


def test_benchmarks_measure_a_t5(tiny_t5: Path) -> None:
    for task in ("facts", "choices"):
        model = ModelSpec(kind="base", name="t5")
        spec = BenchmarkSpec(model=model, task=task, task_version=1, label=task, limit=4)
        found = measure(tiny_t5, spec)
        assert {s.task for s in found.scores} == {task}
        assert all(s.n == 4 and s.value is not None and 0 <= s.value <= 1 for s in found.scores)
        assert len(found.rows) == 4


def test_answers_are_those_of_transformers(tiny_t5: Path) -> None:
    asked = [
        ("a", (Message("user", "Why?"),)),
        ("b", (Message("system", "Be brief."), Message("user", "What\nis </s> glass?"))),
    ]
    got = answer_prompts(tiny_t5, asked, model="t5", max_new_tokens=8)
    loaded = load(tiny_t5)
    newline = newlines.mark_id(loaded.tokenizer)
    for (item, messages), sample in zip(asked, got, strict=True):
        ids = source_ids(loaded.tokenizer, messages)
        with torch.no_grad():
            said = loaded.model.generate(
                input_ids=torch.tensor([ids]), do_sample=False, max_new_tokens=8
            )[0].tolist()
        assert sample.item == item
        assert sample.output == newlines.decode(loaded.tokenizer, said, newline).strip()
        assert sample.tokens <= 8


def test_the_command_line_takes_a_t5(tiny_t5: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "p.txt", tmp_path / "s.jsonl"
    prompts.write_text("Why glass?\nTell me about bread.\n")
    verb = ["generate", str(tiny_t5), str(prompts), "-o", str(out), "--max-new-tokens", "6"]
    assert CliRunner().invoke(app, verb).exit_code == 0
    assert len(out.read_text().splitlines()) == 2
    verb = ["benchmark", str(tiny_t5), "--tasks", "facts", "--limit", "3", "--json"]
    told = CliRunner().invoke(app, verb)
    assert told.exit_code == 0
    assert "facts" in told.stdout
