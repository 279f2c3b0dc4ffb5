from __future__ import annotations

import importlib
import json
import math
import os
import random
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from epigone.errors import CorpusError, MissingExtra, StepFailed, UserError
from epigone.models.chat import PLAIN_TEMPLATE, conversation_tokens, prompt_ids, stop_ids
from epigone.models.load import load
from epigone.runs.store import outputs
from epigone.schema import Message, silent
from epigone.study.specs import DataSpec, FeedbackSpec, ModelSpec
from epigone.training import run_feedback
from epigone.training.feedback import tokens
from epigone.training.preferences import Pair, Revision
from epigone.training.student import save_student

from .conftest import end_of_a_fork, in_a_fork
from .runs_example import every_step_saved

pytest.importorskip("trl", reason="needs the extra 'feedback'")

from epigone.training import trainers

N = 5


def answer(rng: random.Random, words: str) -> str:
    return " ".join(rng.choice(words.split()) for _ in range(rng.randint(2, 14)))


@pytest.fixture(scope="module")
def examples() -> list[tuple[str, str, str]]:
    """Prompts with a better and a worse answer, all of different lengths."""
    rng = random.Random(1)
    return [
        (f"Tell me about {i}.", answer(rng, "yes good fine well"), answer(rng, "no bad poor ill"))
        for i in range(N)
    ]


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory, examples: list[tuple[str, str, str]]
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    pairs = [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in examples]
    revisions = [{"prompt": p, "draft": b, "critique": "x", "revision": a} for p, a, b in examples]
    found = {}
    for method, rows in (("dpo", pairs), ("revise", revisions)):
        found[method] = folder / f"{method}.json"
        found[method].write_text(json.dumps(rows))
    return found


def spec(method: Any, base: Path, file: Path, **more: Any) -> FeedbackSpec:
    settings = {"lr": 1e-3, "batch": 2, "epochs": 2, "block": 128, **more}
    return FeedbackSpec(
        method=method,
        base=ModelSpec(kind="base", name="tiny", ref=str(base), fingerprint=""),
        sources=(DataSpec(ref=str(file), fingerprint="", teacher="gpt-4"),),
        **settings,
    )


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, data: dict[str, Path]
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The output and the facts of a run of each method that nothing stopped."""
    found = {}
    for method in ("dpo", "revise"):
        out = tmp_path_factory.mktemp(method)
        found[method] = out, run_feedback(spec(method, tiny_base, data[method]), {}, out, silent)
    return found


Whole = dict[str, tuple[Path, dict[str, Any]]]


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def answer_logprob(model: Any, tokenizer: Any, prompt: str, text: str) -> tuple[Any, int]:
    """Log-probability of an answer with its end, and its number of tokens, the slow plain way."""
    messages = (Message("user", prompt), Message("assistant", text))
    ids, supervised = (
        (t := conversation_tokens(tokenizer, messages)).ids,
        t.supervised,
    )
    logits = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    at = [i for i, s in enumerate(supervised) if s]
    return sum(logits[i - 1, ids[i]] for i in at), len(at)


def gradient_norm(model: Any, loss: Any) -> float:
    model.zero_grad()
    loss.backward()
    return math.sqrt(sum(float(p.grad.double().pow(2).sum()) for p in model.parameters()))


def losses(
    method: str, model: Any, tokenizer: Any, examples: list[tuple[str, str, str]]
) -> Callable[[list[int]], Any]:
    """The loss of some examples at the start, by the formula of the method's paper."""
    beta = 0.1

    def loss(some: list[int]) -> Any:
        total, n = torch.zeros((), dtype=torch.float64), 0
        for prompt, good, bad in (examples[i] for i in some):
            up, size = answer_logprob(model, tokenizer, prompt, good)
            if method == "revise":
                total, n = total - up, n + size
                continue
            down, _ = answer_logprob(model, tokenizer, prompt, bad)
            ratio = (up - up.detach()) - (down - down.detach())
            total, n = total - torch.nn.functional.logsigmoid(beta * ratio), n + 1
        return total / n

    return loss


@pytest.mark.parametrize("method", ["dpo", "revise"])
def test_loss_and_gradient_are_the_formulas_for_full_and_for_last_batches(
    method: str,
    tiny_base: Path,
    data: dict[str, Path],
    examples: list[tuple[str, str, str]],
    tmp_path: Path,
) -> None:
    # Warm-up keeps the weights as they are in the first step, so that both steps are at the start:
    # one of four examples and one of the fifth.
    asked = spec(method, tiny_base, data[method], batch=4, epochs=1)
    facts = run_feedback(asked, {}, tmp_path, silent)
    assert facts["steps"] == 2 and facts["examples"] == N
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    loss = losses(method, model, AutoTokenizer.from_pretrained(tiny_base), examples)
    first, second = log(tmp_path)
    assert first["learning_rate"] == 0.0
    found = []
    for last in range(N):
        rest = [i for i in range(N) if i != last]
        told = (loss(rest), loss([last]))
        numbers = [(float(x.detach()), gradient_norm(model, x)) for x in told]
        wanted = [(row["loss"], row["grad_norm"]) for row in (first, second)]
        found.append(
            all(a == pytest.approx(b, rel=1e-4) for a, b in zip(numbers, wanted, strict=True))
        )
    assert sum(found) == 1
    if method == "dpo":
        assert first["loss"] == second["loss"] == pytest.approx(math.log(2), abs=1e-7)


def test_dpo_learns_which_answers_are_better(whole: Whole) -> None:
    out, facts = whole["dpo"]
    assert facts["first_loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert facts["last_loss"] < 0.5
    assert facts["last_reward_accuracy"] == 1.0
    assert facts["last_reward_margin"] > 0
    assert facts["master_weights"] == "fp32"
    # What TRL tells beside its loss must be of the same pairs.
    for row in log(out)[2:]:
        margin = row["rewards/chosen"] - row["rewards/rejected"]
        assert row["rewards/margins"] == pytest.approx(margin, abs=1e-6)


@pytest.mark.parametrize("method", ["dpo", "revise"])
def test_the_student_is_its_start_with_other_weights(
    method: str, tiny_base: Path, whole: Whole, tmp_path: Path
) -> None:
    out, _ = whole[method]
    student, start = out / "amount-0", tmp_path / "start"
    before = load(tiny_base, train=True)
    save_student(before.model, before.tokenizer, start, "", [])
    # Above all not TRL's padding token, which others take for one that ends an answer.
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        assert json.loads((student / name).read_text()) == json.loads((start / name).read_text())
    assert AutoTokenizer.from_pretrained(student).chat_template == PLAIN_TEMPLATE
    old, new = (load_file(f / "model.safetensors") for f in (tiny_base, student))
    assert old.keys() == new.keys()
    assert {t.dtype for t in new.values()} == {torch.bfloat16}
    assert all(not torch.equal(old[k].bfloat16(), new[k]) for k in old)
    assert sorted(p.name for p in out.iterdir() if p.name != ".scratch") == [
        "amount-0",
        "metrics.jsonl",
    ]


def test_a_student_goes_on_and_inherits_its_terms(
    tiny_base: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    asked = spec("revise", tiny_base, data["revise"], amount=64)
    run_feedback(asked, {}, first, silent)
    further = spec("dpo", tiny_base, data["dpo"], amount=64, lr=1e-9, epochs=1)
    facts = run_feedback(further, {"student": first}, second, silent)
    assert facts["start"] == "student"
    old, new = (load_file(f / "amount-64/model.safetensors") for f in (first, second))
    for name, tensor in old.items():
        torch.testing.assert_close(new[name], tensor, rtol=0.01, atol=1e-6)
    card = (second / "amount-64/README.md").read_text()
    assert card.count("OpenAI terms of use") == 2
    assert "Of the base: not known" in card and "5 pairs" in card


def interrupt(at: int) -> Callable[..., None]:
    def progress(done: float, total: float, note: str = "") -> None:
        if total > 1 and done == at:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("method", ["dpo", "revise"])
def test_interrupted_at_any_step_it_goes_on_to_the_same_bytes(
    method: str,
    tiny_base: Path,
    data: dict[str, Path],
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done, facts = whole[method]
    assert facts["steps"] == 6
    asked = spec(method, tiny_base, data[method])
    every_step_saved(monkeypatch, trainers)
    if method == "dpo":

        def in_reference(done: float, total: float, note: str = "") -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_feedback(asked, {}, tmp_path, in_reference)
        reference = tmp_path / ".scratch/trainer/reference.jsonl"
        kept = (done / ".scratch/trainer/reference.jsonl").read_text()
        reference.write_text(kept[: len(kept) // 2])
    for step in (1, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            run_feedback(asked, {}, tmp_path, interrupt(step))
    assert run_feedback(asked, {}, tmp_path, silent)["resumed_at_step"] == 4
    assert outputs(tmp_path) == outputs(done)
    assert len(list((tmp_path / ".scratch/trainer").glob("whole-*"))) == 1


def killed_at_a_checkpoint(asked: FeedbackSpec, out: Path) -> None:
    save = trainers.Trainer._save_rng_state

    def killed(self: Any, folder: str) -> None:
        save(self, folder)
        if folder.endswith("checkpoint-3"):
            os.kill(os.getpid(), signal.SIGKILL)

    trainers.CHECKPOINT_SECONDS, trainers.WAIT_TIMES = -1.0, 0
    trainers.Trainer._save_rng_state = killed
    run_feedback(asked, {}, out, silent)


def test_the_stage_imports_trl_only_to_work() -> None:
    def imports() -> None:
        for name in list(sys.modules):
            if name.startswith(("trl", "epigone.training")):
                del sys.modules[name]
        importlib.import_module("epigone.training.feedback")
        assert not any(name.partition(".")[0] == "trl" for name in sys.modules)

    assert "trl" in sys.modules
    in_a_fork(imports)


def test_kill_9_while_a_checkpoint_is_written_leaves_the_one_before(
    tiny_base: Path, data: dict[str, Path], whole: Whole, tmp_path: Path
) -> None:
    asked = spec("dpo", tiny_base, data["dpo"])
    ended = end_of_a_fork(lambda: killed_at_a_checkpoint(asked, tmp_path))
    assert ended == -signal.SIGKILL
    kept = tmp_path / ".scratch/trainer"
    assert {p.name for p in kept.glob("*-*")} == {"whole-2", "checkpoint-3"}
    assert run_feedback(asked, {}, tmp_path, silent)["resumed_at_step"] == 2
    assert outputs(tmp_path) == outputs(whole["dpo"][0])


def test_what_is_not_finite_fails_the_step_and_costs_nothing_that_was_done(
    tiny_base: Path,
    data: dict[str, Path],
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = spec("dpo", tiny_base, data["dpo"])
    every_step_saved(monkeypatch, trainers)
    loss, clip = trainers.DPOTrainer._compute_loss, trainers.Trainer._clip_grad_norm

    def poisoned(self: Any, *arguments: Any) -> Any:
        return loss(self, *arguments) * (math.nan if self.state.global_step == 2 else 1)

    def overflown(self: Any, model: Any) -> Any:
        if self.state.global_step == 3:
            next(p for p in model.parameters()).grad.view(-1)[7] = math.inf
        return clip(self, model)

    for at, owner, name, faulty in (
        (2, trainers.DPOTrainer, "_compute_loss", poisoned),
        (3, trainers.Trainer, "_clip_grad_norm", overflown),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, faulty)
            with pytest.raises(StepFailed, match=rf"at step {at}; nothing was applied"):
                run_feedback(asked, {}, tmp_path, silent)
        assert not (tmp_path / "amount-0").exists()
    assert run_feedback(asked, {}, tmp_path, silent)["resumed_at_step"] == 3
    assert outputs(tmp_path) == outputs(whole["dpo"][0])


def test_bf16_compute_compares_the_student_with_its_start_alike(
    tiny_base: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    asked = spec("dpo", tiny_base, data["dpo"], precision="bf16", epochs=1, lr=1e-7)
    facts = run_feedback(asked, {}, tmp_path, silent)
    assert facts["compute"] == "bfloat16"
    assert facts["first_loss"] == pytest.approx(math.log(2), abs=1e-7)


def test_another_seed_is_another_order_and_nothing_is_sent(
    tiny_base: Path,
    data: dict[str, Path],
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import trl.trainer.base_trainer

    asked: list[object] = []
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(trl.trainer.base_trainer, "send_telemetry", lambda *a, **k: asked.append(k))
    monkeypatch.setattr(socket.socket, "connect", lambda *a: asked.append(a))
    run_feedback(spec("revise", tiny_base, data["revise"], seed=1), {}, tmp_path, silent)
    told = [[row["loss"] for row in log(out)] for out in (tmp_path, whole["revise"][0])]
    assert told[0] != told[1]
    assert asked == []


def test_the_page_on_feedback_runs(
    tiny_base: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/feedback.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("my-model").symlink_to(tiny_base)
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, json.loads(data["dpo"].read_text()))))
    exec(compile(code, "docs/feedback.md", "exec"), {})
    assert (tmp_path / "further/amount-0/model.safetensors").is_file()


def test_without_the_extra_one_line_names_it_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "epigone.training.trainers")
    asked = spec("dpo", tmp_path / "no-base", tmp_path / "no-file")
    with pytest.raises(MissingExtra, match=r"pip install 'epigone\[feedback\]'"):
        run_feedback(asked, {}, tmp_path, silent)
    assert list(tmp_path.iterdir()) == []


def test_what_is_longer_than_a_block_is_dropped_with_a_count(
    tiny_base: Path, data: dict[str, Path], examples: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    sizes = []
    for prompt, good, bad in examples:
        ask = Message("user", prompt)
        rows = [conversation_tokens(tokenizer, (ask, Message("assistant", t))) for t in (good, bad)]
        sizes.append(max(r.supervised.index(True) + sum(r.supervised) for r in rows))
    block = sorted(sizes)[2]
    asked = spec("dpo", tiny_base, data["dpo"], block=block, epochs=1)
    facts = run_feedback(asked, {}, tmp_path, silent)
    assert facts["examples"] == sum(size <= block for size in sizes) < N
    assert facts["skipped"] == {f"longer than {block} tokens": N - facts["examples"]}
    with pytest.raises(CorpusError, match=rf"needs a block of {min(sizes)} tokens"):
        run_feedback(spec("dpo", tiny_base, data["dpo"], block=16), {}, tmp_path, silent)


def test_settings_of_corpora_that_mean_nothing_here_are_refused(
    tiny_base: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    for more in ({"format": "openai"}, {"weight": 0.5}):
        source = DataSpec(ref=str(data["dpo"]), fingerprint="", **more)
        asked = spec("dpo", tiny_base, data["dpo"]).model_copy(update={"sources": (source,)})
        with pytest.raises(UserError, match="takes no"):
            run_feedback(asked, {}, tmp_path, silent)


@pytest.mark.parametrize("bos", [False, True])
def test_tokens_are_those_that_the_student_is_asked_with(bos: bool, tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    if bos:
        tokenizer.add_special_tokens({"bos_token": "<bos>"})
    turns = (Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "A river <eos>"))
    prompt, good, bad = tokens(tokenizer, Pair(turns, " well", "no  "))
    assert prompt == prompt_ids(tokenizer, turns)
    # Nothing stands between a prompt and its answers, and the border is no place to merge at.
    for text, ids in ((" well", good), ("no  ", bad)):
        whole = conversation_tokens(tokenizer, (*turns, Message("assistant", text)))
        assert (prompt + ids) == whole.ids[: len(prompt) + len(ids)]
        assert ids[-1] in stop_ids(tokenizer)
        assert sum(i in stop_ids(tokenizer) for i in ids) == 1
        assert not any(whole.supervised[len(prompt) + len(ids) :])
    assert tokens(tokenizer, Revision(turns, " well")) == [prompt, good]
    if bos:
        assert (prompt + good).count(tokenizer.bos_token_id) == 1
        assert prompt[0] == tokenizer.bos_token_id
