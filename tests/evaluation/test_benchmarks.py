"""Benchmarks on a tiny model: against lm-eval's own Hugging Face backend, item by item."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing

from epigone import api
from epigone.errors import BenchmarkError, ModelError, UnknownName, UserError
from epigone.evaluation import benchmarks, run_benchmark
from epigone.evaluation.benchmarks import measure
from epigone.evaluation.catalogue import PRESETS, TASKS, known_tasks
from epigone.evaluation.lm import SharedPrefixLM
from epigone.evaluation.parts import load_parts
from epigone.evaluation.table import read_table
from epigone.files import SCRATCH
from epigone.models.generate import context_limit
from epigone.models.load import Loaded, load
from epigone.schema import Score, silent
from epigone.study.specs import BenchmarkSpec, DataSpec, ModelSpec

STEM = "Please tell me how glass came to be so important, and why people care. " * 2


def instance(kind: str, *args: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=args, idx=0)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def loaded(tiny_base: Path) -> Loaded:
    return load(tiny_base, "fp32")


@pytest.fixture(scope="module")
def reference(loaded: Loaded) -> HFLM:
    return HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=1, max_length=2048)


def test_known_tasks_are_the_shipped_files() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda *_: None)
    versions = {}
    for path in TASKS.rglob("*.yaml"):
        row = yaml.load(path.read_text(encoding="utf-8"), Loader)
        name = row.get("group") or row.get("task")
        if isinstance(name, str):
            versions[name] = row.get("metadata", {}).get("version")
    shipped = {t: v for t, v in known_tasks().items() if t not in PRESETS}
    assert {t: versions[t] for t in shipped} == shipped
    parts = {t for t in versions if t.startswith("choices_")}
    assert set(versions) - parts == set(shipped)


def test_the_catalogue_imports_nothing_heavy() -> None:
    code = (
        "import sys, epigone.evaluation.catalogue as c; c.known_tasks();"
        "print([m for m in ('torch', 'lm_eval', 'transformers', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_loglikelihoods_equal_lm_evals_backend(loaded: Loaded, reference: HFLM) -> None:
    pairs = [(STEM + q, c) for q in ("Why", "How so?", "") for c in (" A", " B", " glass is old")]
    pairs += [("", "bread and rivers"), ("trailing space ", "word")]
    asked = [instance("loglikelihood", *p) for p in pairs]
    ours = SharedPrefixLM(loaded).loglikelihood(asked)
    theirs = reference.loglikelihood(asked, disable_tqdm=True)
    assert [g for _, g in ours] == [g for _, g in theirs]
    assert [v for v, _ in ours] == pytest.approx([v for v, _ in theirs], abs=1e-4)


def test_rolling_equals_lm_evals_backend(loaded: Loaded, reference: HFLM) -> None:
    asked = [instance("loglikelihood_rolling", t) for t in (STEM, "bees", "")]
    ours = SharedPrefixLM(loaded).loglikelihood_rolling(asked)
    theirs = reference.loglikelihood_rolling(asked[:2], disable_tqdm=True)
    assert ours[:2] == pytest.approx(theirs, abs=1e-3)
    assert ours[2] == 0
    long = instance("loglikelihood_rolling", STEM * 40)
    assert SharedPrefixLM(loaded).loglikelihood_rolling([long])[0] < 20 * ours[0]


def test_generation_equals_lm_evals_backend(loaded: Loaded, reference: HFLM) -> None:
    prompts = [STEM + t for t in ("Why", "How so?", "And then", "Old maps")] + ["bees"]
    free = {"until": [], "max_gen_toks": 12, "do_sample": False}
    asked = [instance("generate_until", p, dict(free)) for p in prompts]
    ours = SharedPrefixLM(loaded).generate_until(asked)
    assert ours == reference.generate_until(asked, disable_tqdm=True)
    stop = ours[0][4:6]
    asked = [instance("generate_until", p, {**free, "until": [stop]}) for p in prompts]
    cut = SharedPrefixLM(loaded).generate_until(asked)
    assert cut == [text.split(stop)[0] for text in ours]
    assert cut == reference.generate_until(asked, disable_tqdm=True)


def test_overlong_requests_are_shortened_and_counted(loaded: Loaded) -> None:
    lm = SharedPrefixLM(loaded)
    long = "Why bread? " * 1500
    assert len(lm.tok_encode(long)) > 2048
    free = {"until": [], "max_gen_toks": 4}
    got = lm.generate_until([instance("generate_until", t, dict(free)) for t in (long, "bees")])
    assert lm.shortened == 1
    tail = loaded.tokenizer.decode(lm.tok_encode(long)[-(2048 - 4) :])
    assert got[0] == lm.generate_until([instance("generate_until", tail, dict(free))])[0]
    lm.loglikelihood([instance("loglikelihood", t, " yes") for t in (long, "bees")])
    assert lm.shortened == 2


def test_the_start_token_comes_exactly_once(
    loaded: Loaded, tiny_base: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_base, tmp_path / "bos")
    other = load(tmp_path / "bos", "fp32")
    other.tokenizer.add_special_tokens({"bos_token": "<pad>"})
    start = other.tokenizer.bos_token_id
    other.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<pad> $A", special_tokens=[("<pad>", start)]
    )
    lm = SharedPrefixLM(other)
    plain = SharedPrefixLM(loaded).tok_encode("Why bread?")
    assert start not in plain
    for text in ("Why bread?", "<pad>Why bread?"):
        assert lm.tok_encode(text) == [start, *plain]
    assert lm.tok_encode("Why bread?", add_special_tokens=False) == plain
    context, continuation = lm._encode_pair("Why", " bread?")
    assert context[0] == start and start not in (*context[1:], *continuation)


@pytest.fixture(scope="module")
def measured(
    tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, Any], BenchmarkSpec, Path]]:
    student = tmp_path_factory.mktemp("student")
    (student / "amount-600").symlink_to(tiny_base)
    out = tmp_path_factory.mktemp("out")
    spec = BenchmarkSpec(
        model=ModelSpec(kind="student", name="tiny", amount=600),
        task="choices",
        task_version=1,
        label="choices",
        limit=20,
        seed=3,
    )
    return out, run_benchmark(spec, {"student": student}, out, silent), spec, student


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_the_stage_writes_scores_of_the_asked_items(measured: Any) -> None:
    out, facts, _, _ = measured
    (score,) = (Score.from_json(r) for r in rows(out / "scores.jsonl"))
    samples = read_table(out / "samples.parquet")
    assert (score.metric, score.family, score.task, score.version) == (
        "acc",
        "capability",
        "choices",
        1,
    )
    assert score.n == len(score.values) == len(samples) == 20
    assert score.value == pytest.approx(sum(score.values.values()) / 20)
    assert facts["values"] == {"acc": score.value} and facts["requests_shortened"] == 0
    assert score.clusters == {}  # subjects are fixed strata: the items are independent
    for row in samples:
        # The most likely letter, worked out from the four log-likelihoods.
        best = max(range(4), key=lambda i: json.loads(row["outputs"][i])[0])
        assert (
            score.values[row["item"]] == float(best == int(row["target"])) == row["metrics"]["acc"]
        )
        assert row["subject"] != ""
        assert row["item"].startswith(f"choices-{row['subject']}-")
        assert len(row["prompt_sha256"]) == 64


def test_the_stage_writes_the_same_bytes_twice(measured: Any, tmp_path: Path) -> None:
    out, _, spec, student = measured
    run_benchmark(spec, {"student": student}, tmp_path, silent)
    for name in ("samples.parquet", "scores.jsonl"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def asked(task: str = "facts", **more: Any) -> BenchmarkSpec:
    model = ModelSpec(kind="base", name="m")
    return BenchmarkSpec(**{"model": model, "task": task, "task_version": 1, "label": task} | more)


def test_models_that_differ_in_one_weight_never_share_an_answer(
    tiny_base: Path, tmp_path: Path
) -> None:
    def values(folder: Path) -> list[list[str]]:
        table = read_table(folder / "choices/samples.parquet")
        return [row["outputs"] for row in table]

    other = tmp_path / "other"
    shutil.copytree(tiny_base, other)
    weights = load_file(other / "model.safetensors")
    name = max(weights, key=lambda n: weights[n].numel())
    weights[name].view(-1)[0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    # One after the other, into one place, and beside it into another: the same question each time.
    out = tmp_path / "out"
    api.benchmark(str(tiny_base), ["choices"], out, limit=6)
    first = values(out)
    with pytest.raises(UserError):
        api.benchmark(str(other), ["choices"], out, limit=6)
    # A run that was killed leaves its answers, which are those of its model.
    (tmp_path / "next/choices.partial" / SCRATCH).mkdir(parents=True)
    left = tmp_path / "next/choices.partial" / SCRATCH
    measure(tiny_base, asked("choices", limit=6), left)
    assert (left / "answers.jsonl").stat().st_size > 0
    (left / "asked").write_text("the hash of a task on the first model")
    api.benchmark(str(other), ["choices"], tmp_path / "next", limit=6)
    second = values(tmp_path / "next")
    api.benchmark(str(other), ["choices"], tmp_path / "fresh", limit=6)
    assert second == values(tmp_path / "fresh")
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_a_question_keeps_half_of_a_small_context(loaded: Loaded) -> None:
    long = STEM * 20
    request = instance("generate_until", long, {"until": [], "max_gen_toks": 4096})
    lm = SharedPrefixLM(loaded)
    before = lm.tok_encode(long)
    (told,) = lm.generate_until([request])
    limit = context_limit(loaded.model)
    assert len(before) < limit // 2 and lm.shortened == 0
    assert len(lm.tok_encode(long + told, add_special_tokens=False)) > len(before)


def test_generation_settings_by_any_of_their_names(loaded: Loaded) -> None:
    lm = SharedPrefixLM(loaded)
    told = [{"max_gen_toks": 3}, {"max_new_tokens": 3}, {"max_tokens": 3, "do_sample": False,
            "temperature": 0.7}]  # fmt: skip
    answers = {lm.generate_until([instance("generate_until", STEM, t)])[0] for t in told}
    assert len(answers) == 1
    # A temperature alone means sampling, as it does in lm-eval.
    drawn = [
        SharedPrefixLM(loaded, seed=s).generate_until(
            [instance("generate_until", STEM, {"max_gen_toks": 8, "temperature": 1.0})]
        )[0]
        for s in range(4)
    ]
    assert len(set(drawn)) > 1


def test_a_template_without_a_system_turn(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    )
    monkeypatch.setattr(loaded.tokenizer, "chat_template", template)
    lm = SharedPrefixLM(loaded, chat=True)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert lm.apply_chat_template(turns) == "<user>Be brief.\n\nWhy?"
    monkeypatch.setattr(loaded.tokenizer, "chat_template", "{{ raise_exception('never') }}")
    with pytest.raises(ModelError, match="refuses a benchmark: never"):
        lm.apply_chat_template(turns[1:])


def test_a_subset_depends_on_the_seed_and_grows_with_the_limit(tiny_base: Path) -> None:
    parts = load_parts(asked("choices"))
    sizes = [len(p.eval_docs) for p in parts.values()]

    def chosen(limit: int | None, seed: int) -> set[tuple[str, int]]:
        found = benchmarks._chosen(parts, asked("choices", limit=limit, seed=seed))
        return {(name, i) for name, indices in found.items() for i in indices}

    assert len(chosen(None, 0)) == sum(sizes) == len(chosen(10_000, 0))
    assert chosen(20, 0) == chosen(20, 0) < chosen(30, 0)
    assert chosen(20, 0) != chosen(20, 1)


def test_generated_answers_and_silence(tiny_base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[float, float]] = []
    found = measure(tiny_base, asked(limit=5), progress=lambda d, t, note="": seen.append((d, t)))
    assert capfd.readouterr() == ("", "")
    assert seen[-1] == (5, 5)
    assert [(s.metric, s.n) for s in found.scores] == [("exact_match", 5)]
    assert set(found.scores[0].values) == {r["item"] for r in found.rows}
    assert all("\n" not in r["outputs"][0] for r in found.rows)
    assert {stop for r in found.rows for stop in r["stops"]} <= {"end", "length", "text"}


def test_unknown_and_broken_tasks(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'facts'"):
        measure(tmp_path / "absent", asked("fact"))
    (tmp_path / "broken.yaml").write_text("task: mine\noutput_type: [unclosed\n")
    suite = DataSpec(ref=str(tmp_path), fingerprint="")
    with pytest.raises(BenchmarkError, match="cannot read a task of this name: mine"):
        measure(tiny_base, asked("mine", suite=suite))
