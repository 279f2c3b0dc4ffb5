"""One arm of bench/training.py, in a process of its own: Epigone's loop or TRL's, step by step.

Started by bench/training.py as `training_arms.py JSON`. What libraries print goes to stderr; the
arm answers on the stdout that it was given, one JSON object a line. The steady arms take a step for
each line they read, and each turns its library's own whole loop, held up between two steps.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The clock starts before the libraries are read in.
BORN = time.time()

import torch  # noqa: E402

from epigone.processes import die_with_parent  # noqa: E402

CUDA = torch.cuda.is_available()
LR = 2e-5


class Parent:
    """The bench on the other end of the pipes, which says when a step begins."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._begun: float | None = None
        self._cpu = 0.0

    def say(self, **facts: Any) -> None:
        self._out.write(json.dumps(facts) + "\n")
        self._out.flush()

    def between(self, facts: Callable[[], dict[str, Any]], *, last: bool = False) -> None:
        """Tell of the step that has just ended, then wait until the next one may begin."""
        if CUDA:
            torch.cuda.synchronize()
        now, cpu = time.perf_counter(), time.process_time()
        if self._begun is None:
            self.say(prepared=time.time() - BORN)
        else:
            self.say(seconds=now - self._begun, cpu=cpu - self._cpu, **facts())
        if not last and not sys.stdin.readline():
            raise SystemExit("the bench has gone")
        self._begun, self._cpu = time.perf_counter(), time.process_time()

    def end(self, **facts: Any) -> None:
        self.say(peak=peak(), **facts)


def peak() -> float:
    """Bytes: the largest that this process held, on the GPU where there is one."""
    if CUDA:
        return float(torch.cuda.max_memory_allocated())
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def recipe(told: dict[str, Any], block: int, batch: int) -> dict[str, Any]:
    return {
        "preset": "adamw",
        "lr": LR,
        "warmup": 0.0,
        "batch": batch,
        "block": block,
        "precision": told["precision"],
    }


def steady_ours(told: dict[str, Any], parent: Parent) -> None:
    from epigone.study.recipes import PRESETS
    from epigone.study.specs import ModelSpec, RecipeSpec, TrainSpec
    from epigone.training import loop
    from epigone.training.blocks import Block, Piece
    from epigone.training.launch import joined
    from epigone.training.model import prepare
    from epigone.training.schedule import Batch

    # TRL's arms write no checkpoint either, and one would be written beside the others' steps.
    loop.CHECKPOINT_SECONDS = float("inf")
    steps = json.loads(Path(told["rows"]).read_text())[: told["steps"]]
    settings = PRESETS["adamw"] | recipe(told, told["block"], len(steps[0]))
    spec = TrainSpec(
        base=ModelSpec(kind="base", name="base", ref=told["folder"]),
        amounts=(1,),
        recipe=RecipeSpec(**settings),
    )
    batches = [
        Batch(
            tuple(Block((Piece(tuple(r["ids"]), tuple(map(bool, r["mask"]))),)) for r in rows), None
        )
        for rows in steps
    ]
    prepared = prepare(spec, joined(), lambda *_: None)

    def told_of() -> dict[str, Any]:
        row = run.log[-1]
        return {k: row[k] for k in ("loss", "gradient_norm", "supervised", "tokens")}

    def progress(done: float, total: float, text: str = "") -> None:
        parent.between(told_of, last=done == total)

    run = loop.Run(spec, prepared, batches, [], Path(told["out"]), progress)
    facts = run.go()
    parent.end(micro_tokens=facts["micro_tokens"], compute=facts["compute"])


def trl_settings(told: dict[str, Any], rows: int) -> dict[str, Any]:
    """What both of TRL's arms are matched in, and what the tuned one switches off."""
    split = told.get("split", 1)
    settings: dict[str, Any] = {
        "output_dir": told["out"],
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": rows // split,
        "gradient_accumulation_steps": split,
        "num_train_epochs": 1,
        "bf16": told["precision"] == "bf16",
        "use_cpu": not CUDA,
        "report_to": [],
        "disable_tqdm": True,
    }
    if told["arm"] == "tuned":
        settings |= {
            "gradient_checkpointing": False,
            "logging_steps": 10**9,
            "logging_nan_inf_filter": False,
            "save_strategy": "no",
        }
    return settings


def trl_model(told: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(told["folder"], dtype=torch.float32, attn_implementation="sdpa")
    return model, AutoTokenizer.from_pretrained(told["folder"])


def steady_trl(told: dict[str, Any], parent: Parent) -> None:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    steps = json.loads(Path(told["rows"]).read_text())[: told["steps"]]
    flat = [
        {
            "input_ids": r["ids"],
            "labels": [i if m else -100 for i, m in zip(r["ids"], r["mask"], strict=True)],
        }
        for rows in steps
        for r in rows
    ]
    seen: list[dict[str, Any]] = []

    class Recorded(SFTTrainer):
        """Keeps references to what is computed anyway; they are read between the steps."""

        def compute_loss(self, model: Any, inputs: Any, **named: Any) -> Any:
            loss = super().compute_loss(model, inputs, **named)
            real = inputs["attention_mask"].sum()
            targets = (inputs["labels"][:, 1:] != -100).sum()
            seen.append({"loss": loss.detach(), "supervised": targets, "tokens": real})
            return loss

        def _clip_grad_norm(self, model: Any) -> Any:
            norm = super()._clip_grad_norm(model)
            seen[-1]["norm"] = norm
            return norm

    def facts() -> dict[str, Any]:
        found = {
            "loss": sum(float(s["loss"]) for s in seen),
            "gradient_norm": float(seen[-1]["norm"]),
            **{k: sum(int(s[k]) for s in seen) for k in ("supervised", "tokens")},
        }
        seen.clear()
        return found

    class Held(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            parent.between(facts)

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            parent.between(facts, last=True)

    model, tokenizer = trl_model(told)
    settings = trl_settings(told, len(steps[0]))
    settings |= {"max_length": None, "train_sampling_strategy": "sequential"}
    settings["save_strategy"] = "no"
    trainer = Recorded(
        model=model,
        args=SFTConfig(**settings),
        train_dataset=Dataset.from_list(flat),
        processing_class=tokenizer,
        callbacks=[Held()],
    )
    trainer.train()
    parent.end()


def whole_ours(told: dict[str, Any], parent: Parent) -> None:
    from epigone import api
    from epigone.files import read_jsonl

    record = api.train(
        told["name"],
        told["corpus"],
        told["out"],
        amounts=told["amounts"],
        recipe=recipe(told, told["block"], told["batch"]),
    )
    whole = time.time() - BORN
    log = list(read_jsonl(Path(told["out"]) / "metrics.jsonl"))
    training = record.facts["seconds_training"]
    parent.end(
        prepared=whole - training,
        trained=whole,
        supervised=sum(r["supervised"] for r in log),
        tokens=sum(r["tokens"] for r in log),
        steps=len(log),
        loss=log[-1]["loss"],
    )


def whole_trl(told: dict[str, Any], parent: Parent) -> None:
    from datasets import load_dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    marks: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.time() - BORN)

    model, tokenizer = trl_model(told)
    tokenizer.chat_template = told["template"]
    rows = load_dataset("json", data_files=told["messages"], split="train")
    settings = trl_settings(told, told["batch"])
    settings |= {
        "max_length": told["block"],
        "packing": True,
        "packing_strategy": "bfd",
        "assistant_only_loss": True,
    }
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**settings),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    found = trainer.train()
    trainer.save_model(told["out"])
    whole = time.time() - BORN
    supervised = tokens = 0
    for row in trainer.train_dataset:
        at = 0
        for length in row["seq_lengths"]:
            supervised += sum(label != -100 for label in row["labels"][at + 1 : at + length])
            at += length
        tokens += at
    parent.end(
        prepared=marks[0],
        trained=whole,
        supervised=supervised,
        tokens=tokens,
        steps=found.global_step,
        loss=found.training_loss,
    )


def main() -> None:
    die_with_parent()
    told = json.loads(sys.argv[1])
    arms = {
        ("steady", True): steady_ours,
        ("steady", False): steady_trl,
        ("whole", True): whole_ours,
        ("whole", False): whole_trl,
    }
    arms[told["part"], told["arm"] == "ours"](told, Parent())


if __name__ == "__main__":
    main()
