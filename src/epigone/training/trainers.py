"""TRL's trainers, silent, resumable from whole checkpoints, and fed with token ids.

Imports trl, which is optional: import this module only where it is needed.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from epigone.errors import StepFailed
from epigone.files import fsync_dir, write_text
from epigone.models.load import Loaded
from epigone.schema import Progress
from epigone.study.specs import FeedbackSpec

# A kill loses at most about this much work: a checkpoint is due when the next step would pass it.
CHECKPOINT_SECONDS = 50.0
# A disk slower than the steps may hold them up a tenth of the time.
WAIT_TIMES = 10
# What a row of the log holds; token counts are left out, since TRL's begin anew after a resume.
LOGGED = (
    *("loss", "learning_rate", "grad_norm", "mean_token_accuracy"),
    *("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected"),
    *("logps/chosen", "logps/rejected"),
)
# Padding is masked everywhere, so its id is free; TRL's own choice would be written to the model.
_PADDING = 0


def train(
    spec: FeedbackSpec,
    loaded: Loaded,
    rows: list[dict[str, list[int]]],
    folder: Path,
    dtype: torch.dtype,
    progress: Progress,
) -> tuple[int, list[dict[str, Any]]]:
    """Train `loaded.model` in place on rows of token ids; the step resumed at, and the log.

    `folder` keeps checkpoints and the reference's log-probabilities, from which a killed run goes
    on. A row of dpo has `prompt_ids`, `chosen_ids` and `rejected_ids`, one of revise `input_ids`
    and `labels`. Raises StepFailed where a loss or a gradient is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for torn in folder.glob("checkpoint-*"):
        shutil.rmtree(torn)
    steps = math.ceil(len(rows) / spec.batch) * spec.epochs
    newest = max(_whole(folder), key=_step, default=None)
    with warnings.catch_warnings():
        # TRL speaks to transformers in words that the latter has begun to replace.
        warnings.simplefilter("ignore", FutureWarning)
        trainer: Any = (_Dpo if spec.method == "dpo" else _Revise)(
            model=loaded.model,
            args=_arguments(spec, folder, steps, loaded.device, dtype),
            train_dataset=Dataset.from_list(rows),
            # A copy, since TRL gives it a padding token.
            processing_class=copy.deepcopy(loaded.tokenizer),
            data_collator=(
                DataCollatorForPreference(pad_token_id=_PADDING)
                if spec.method == "dpo"
                else DataCollatorForLanguageModeling(pad_token_id=_PADDING)
            ),
            callbacks=[_Steps(progress)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    log = [
        {"step": row["step"]} | {key: row[key] for key in LOGGED if key in row}
        for row in trainer.state.log_history
        if "loss" in row
    ]
    return (0 if newest is None else _step(newest)), log


def _arguments(
    spec: FeedbackSpec, folder: Path, steps: int, device: torch.device, dtype: torch.dtype
) -> Any:
    shared: dict[str, Any] = {
        "output_dir": str(folder),
        "seed": spec.seed,
        "learning_rate": spec.lr,
        "num_train_epochs": spec.epochs,
        "warmup_steps": math.ceil(spec.warmup * steps),
        # One example at a time: then the mean over a step's examples is right for any batch, also
        # for the last one of an epoch, and the reference's pass makes the very same batches.
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": spec.batch,
        "max_length": None,
        "bf16": dtype == torch.bfloat16,
        "use_cpu": device.type == "cpu",
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "log_level": "error",
    }
    arguments: Any
    if spec.method == "dpo":
        arguments = DPOConfig(**shared, beta=spec.beta, precompute_ref_log_probs=True)
    else:
        arguments = SFTConfig(**shared, dataset_kwargs={"skip_prepare_dataset": True})
    # Otherwise a variable of the environment would decide.
    arguments.mixed_precision = "bf16" if dtype == torch.bfloat16 else "no"
    if arguments.n_gpu > 1:
        # A second GPU that happens to be there would make the trainer refuse to start.
        arguments._n_gpu = 1
    return arguments


class _Ours(Trainer):  # type: ignore[misc]
    """What both trainers do otherwise than TRL."""

    def _send_telemetry(self) -> None:
        """Send nothing: TRL reports every run to the hub unless told not to."""

    def compute_loss(self, *arguments: Any, **named: Any) -> Any:
        loss: Any = super().compute_loss(*arguments, **named)
        value = float(loss.detach())
        if not math.isfinite(value):
            at = self.state.global_step
            raise StepFailed(f"the loss is {value} at step {at}; nothing was applied")
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        if not math.isfinite(float(norm)):
            at = self.state.global_step
            raise StepFailed(f"the gradient's norm is {norm} at step {at}; nothing was applied")
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # Not TRL's, which writes a model card of its own before. The rename is what makes a
        # checkpoint count, since the trainer writes its files one after the other in place.
        Trainer._save_checkpoint(self, model, trial)
        folder = _folder(self)
        made = folder / f"checkpoint-{self.state.global_step}"
        for file in made.rglob("*"):
            if file.is_file():
                fd = os.open(file, os.O_RDONLY)
                os.fsync(fd)
                os.close(fd)
        made.rename(folder / f"whole-{self.state.global_step}")
        fsync_dir(folder)
        for older in _whole(folder):
            if _step(older) < self.state.global_step:
                shutil.rmtree(older)


class _Dpo(_Ours, DPOTrainer):  # type: ignore[misc]
    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        # TRL would render and tokenise otherwise than the student is asked.
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """The reference is the model before the first step, so no second one is ever held."""
        file = _folder(self) / "reference.jsonl"
        known = _read_reference(file)[: len(dataset)]
        tell: Progress = next(
            c.progress for c in self.callback_handler.callbacks if isinstance(c, _Steps)
        )
        # A killed run may have left half a line; the lines before it took their time.
        write_text(file, "".join(map(_line, known)))
        with open(file, "a") as f:
            for i in range(len(known), len(dataset)):
                if i % 8 == 0:
                    tell(0, 1, f"log-probabilities of the start: {i} of {len(dataset)}")
                batch = self.data_collator([dataset[i]])
                batch = {key: tensor.to(self.args.device) for key, tensor in batch.items()}
                chosen, rejected = self.compute_ref_log_probs(self.model, batch)
                known.append((float(chosen), float(rejected)))
                f.write(_line(known[-1]))
                f.flush()
        for column, values in zip(
            ("ref_chosen_logps", "ref_rejected_logps"), zip(*known, strict=True), strict=True
        ):
            dataset = dataset.add_column(column, list(values))
        return dataset


class _Revise(_Ours, SFTTrainer):  # type: ignore[misc]
    pass


class _Steps(TrainerCallback):  # type: ignore[misc]
    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._saved = self._begun = self._due = time.monotonic()
        self._interval = CHECKPOINT_SECONDS

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._begun = time.monotonic()
        last = state.log_history[-1] if state.log_history else {}
        note = f"loss {last['loss']:.3f}" if "loss" in last else ""
        if "rewards/accuracies" in last:
            note += f", accuracy {last['rewards/accuracies']:.2f}"
        self.progress(state.global_step, state.max_steps, note)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        now = time.monotonic()
        due = now - self._saved + (now - self._begun) > self._interval
        if due and state.global_step < state.max_steps:
            control.should_save, self._due = True, now
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._saved = time.monotonic()
        waited = self._saved - self._due
        self._interval = max(CHECKPOINT_SECONDS, WAIT_TIMES * waited)


def _read_reference(file: Path) -> list[tuple[float, float]]:
    known: list[tuple[float, float]] = []
    for line in file.read_text().splitlines() if file.is_file() else ():
        try:
            chosen, rejected = map(float, json.loads(line))
        except (ValueError, TypeError):
            break
        known.append((chosen, rejected))
    return known


def _line(pair: tuple[float, float]) -> str:
    return json.dumps(pair) + "\n"


def _folder(trainer: Trainer) -> Path:
    return Path(str(trainer.args.output_dir))


def _whole(folder: Path) -> list[Path]:
    return [p for p in folder.glob("whole-*") if p.name.removeprefix("whole-").isdigit()]


def _step(path: Path) -> int:
    return int(path.name.removeprefix("whole-"))
