"""The training loop: one run, a student at each amount."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from epigone.errors import StepFailed
from epigone.files import SCRATCH, write_jsonl
from epigone.models.references import locate_data
from epigone.schema import Progress, Provenance
from epigone.study import train_file
from epigone.study.amounts import refuse_empty, segments
from epigone.study.specs import TrainSpec, amount_folder
from epigone.training import checkpoint, data, probe
from epigone.training.card import card
from epigone.training.launch import Stop, joined
from epigone.training.model import Prepared, prepare
from epigone.training.optimizer import OPTIMIZERS, Optimizer, clip_
from epigone.training.schedule import Batch, Update, programme, warmup_steps
from epigone.training.student import METRICS, save_student
from epigone.training.track import tracker

# A kill loses at most about this much work: a checkpoint is due when the next step would pass it.
CHECKPOINT_SECONDS = 50.0
# A disk slower than the steps may hold them up a tenth of the time.
WAIT_TIMES = 10


def train(spec: TrainSpec, corpus: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """Train `spec.base` on nested amounts of a corpus; see `epigone.training.run`."""
    # Refuses amounts that the corpus cannot give before a model is loaded.
    parts = segments(corpus / train_file.NAME, spec.amounts)
    refuse_empty(parts, spec.amounts)
    world = joined()
    prepared = prepare(spec, world, progress)
    stats, batches = data.batches(spec, parts, prepared, progress)
    facts: dict[str, Any] = stats.to_json()
    if not prepared.packs:
        # Rows are padded to the longest beside them, not to a block.
        del facts["padding"], facts["efficiency"]
    if spec.recipe.replay:
        files = [locate_data(s.ref, progress, fingerprint=s.fingerprint) for s in spec.replay]
        batches, passes = data.with_text(batches, files, spec.recipe, prepared)
        facts["text_blocks"] = sum(len(b.text) for b in batches)
        facts["text_passes"] = passes
    origins: set[Provenance] = set()
    seen = [frozenset(origins := origins | {c.provenance for c in part}) for part in parts]
    # The texts are gigabytes at the paper's scale, and nothing reads them any more.
    parts.clear()
    run = Run(spec, prepared, batches, seen, out, progress)
    facts |= run.go()
    world.barrier()
    return facts


class Run:
    """Everything that one training run holds, and its steps in order."""

    def __init__(
        self,
        spec: TrainSpec,
        prepared: Prepared,
        batches: Sequence[Batch],
        origins: Sequence[Collection[Provenance]],
        out: Path,
        progress: Progress,
    ) -> None:
        self.spec, self.prepared, self.batches = spec, prepared, batches
        self.out, self.progress = out, progress
        self.world = prepared.world
        self.updates = programme(spec.recipe, batches)
        self.optimizer: Optimizer = OPTIMIZERS[spec.recipe.optimizer](
            prepared.parameters, spec.recipe, self.world, prepared.base
        )
        self.tensors = {f"p.{n}": p for n, p in prepared.parameters.items()}
        self.tensors |= self.optimizer.state()
        self.log: list[dict[str, Any]] = []
        self._origins = origins

    def go(self) -> dict[str, Any]:
        """Run every update that is not done yet; facts for the record are returned."""
        checkpoint.refuse_unshared(self.out, self.world)
        folder = self.out / SCRATCH / "checkpoint"
        position = checkpoint.restore(folder, self.tensors, self.world)
        done = 0 if position is None else position.update
        if position is not None:
            self.log = list(position.log)
        fit = probe.fit(self.spec, self.prepared, self.batches, self.updates, position)
        saved = started = time.monotonic()
        interval = CHECKPOINT_SECONDS
        with (
            checkpoint.Saver(folder, self.tensors, self.world) as saver,
            Stop(self.world) as stop,
            tracker(self.spec, self.out, self.world) as track,
        ):
            for index in range(done, len(self.updates)):
                begun = time.monotonic()
                update = self.updates[index]
                told = f"loss {self.log[-1]['loss']:.3f}" if self.log else fit.told()
                self.progress(index, len(self.updates), told)
                here = checkpoint.Position(index, tuple(self.log), fit.settings)
                if position is None or position.settings.get("returned") != index:
                    here = self._branch(update, here, saver)
                elif update.fork:
                    self._keep(here)
                try:
                    row = self._gradients(update, fit.micro_tokens, stop)
                    # The last checkpoint is written while the gradients are computed, but not
                    # later.
                    waiting = time.monotonic()
                    saver.wait()
                    waited = self.world.most(time.monotonic() - waiting)
                    interval = max(interval, WAIT_TIMES * waited)
                    if row is not None:
                        row |= self._apply(update)
                except StepFailed:
                    saver.wait()
                    self._save(folder, here)
                    raise
                if row is None:
                    self._save(folder, here)
                    stop.raise_()
                self.log.append(row)
                self._take(update)
                now = time.monotonic()
                track(len(self.log) - 1, row, now - begun)
                due = self.world.most(now - saved + (now - begun)) > interval
                if due and index + 1 < len(self.updates):
                    saver.begin(checkpoint.Position(index + 1, tuple(self.log), fit.settings))
                    saved = time.monotonic()
                    # The same where several processes write, and all wait.
                    interval = max(CHECKPOINT_SECONDS, WAIT_TIMES * self.world.most(saved - now))
        self.progress(len(self.updates), len(self.updates))
        if self.world.leads:
            write_jsonl(self.out / METRICS, self.log)
        return self._facts(fit, done, time.monotonic() - started)

    def _branch(
        self, update: Update, here: checkpoint.Position, saver: checkpoint.Saver
    ) -> checkpoint.Position:
        """Leave the trunk for a decay, or come back to it; where the run then is."""
        if update.back:
            saver.wait()
            forks = [i for i, u in enumerate(self.updates[: here.update]) if u.fork]
            if checkpoint.restore(self._fork(forks[-1]), self.tensors, self.world) is None:
                raise StepFailed(f"what was kept of the trunk at step {forks[-1]} is damaged")
            # From here on nothing starts from the branch; and who resumes here is back already.
            settings = {**here.settings, "returned": here.update}
            here = checkpoint.Position(here.update, here.log, settings)
            self._save(self.out / SCRATCH / "checkpoint", here)
        if update.fork:
            saver.wait()
            self._keep(here)
        return here

    def _keep(self, here: checkpoint.Position) -> None:
        """Keep the state of the trunk; that before it stays for an older checkpoint."""
        forks = [i for i, u in enumerate(self.updates[: here.update]) if u.fork]
        for old in forks[:-1]:
            checkpoint.drop(self._fork(old), self.world)
        checkpoint.drop(self._fork(here.update), self.world)
        self._save(self._fork(here.update), here)

    def _fork(self, update: int) -> Path:
        return self.out / SCRATCH / f"fork-{update}"

    def _save(self, folder: Path, here: checkpoint.Position) -> None:
        checkpoint.save(folder, self.tensors, here, self.world)

    def _gradients(self, update: Update, tokens: int, stop: Stop) -> dict[str, Any] | None:
        """The row of the log for a step, its gradients summed; None when the run is to stop."""
        batch = self.batches[update.batch]
        self.prepared.model.train()
        world = self.world
        parts = torch.zeros(3, dtype=torch.float64, device=world.device)
        ranks = (world.data_rank, world.layout.data)
        micros = data.micro_batches(batch, self.spec.recipe, tokens, ranks, flat=self.prepared.flat)
        for number, micro in enumerate(micros):
            if stop.asked():
                for p in self.prepared.parameters.values():
                    p.grad = None
                return None
            # Seeding every micro-batch by its number makes dropout the same in a resumed run, and
            # another one in each process with other data.
            seed = (self.spec.seed, update.batch, number * world.layout.data + world.data_rank)
            torch.manual_seed(hash(seed) % (1 << 62))
            with autocast(self.prepared):
                loss, own = self.prepared.trainee(micro.to(world.device))
            torch.autograd.backward(loss)
            parts += torch.stack([loss.detach(), *own]).double()
        total, nll, divergence = world.sum_data(parts).tolist()
        world.finish_gradients(self.prepared.parameters, self.prepared.partial)
        if not math.isfinite(total):
            raise StepFailed(f"the loss is {total} at step {update.batch}; nothing was applied")
        tokens_in = sum(b.width + len(b.pieces[0].source) for b in batch.blocks)
        row: dict[str, Any] = {"step": update.batch, "loss": nll}
        if self.spec.recipe.kl:
            row["kl"] = divergence / self.spec.recipe.kl
        if update.branch is not None:
            row["branch"] = update.branch
        return row | {
            "supervised": batch.targets,
            "tokens": tokens_in,
            "supervised_share": round(batch.targets / tokens_in, 4),
        }

    def _apply(self, update: Update) -> dict[str, Any]:
        norm = clip_(self.prepared.parameters, self.spec.recipe.clip, self.world)
        if not math.isfinite(norm):
            raise StepFailed(
                f"the gradient's norm is {norm} at step {update.batch}; nothing was applied"
            )
        self._refuse_divergence(update)
        self.optimizer.step(update.batch + 1, update.lr)
        return {"lr": update.lr, "gradient_norm": norm}

    def _refuse_divergence(self, update: Update) -> None:
        # A loss above that of guessing among all tokens, for many steps, is beyond repair.
        rows = self.prepared.model.get_input_embeddings().weight.shape[0]
        # (Untrained weights may begin above it, and only a rise from there counts.)
        recent = [r["loss"] for r in self.log[-20:]]
        most = 1.5 * max(math.log(rows), self.log[0]["loss"] if self.log else 0.0)
        if len(recent) == 20 and min(recent) > most:
            raise StepFailed(
                f"the loss diverges: above {min(recent):.2f} for 20 steps at step {update.batch}, "
                f"where guessing gives {math.log(rows):.2f}; try a lower learning rate"
            )

    def _take(self, update: Update) -> None:
        if update.amount is None:
            return
        k = self.spec.amounts.index(update.amount)
        lineage = [r for r in self.log if r.get("branch") in (None, update.amount)]
        steps = {r["step"]: r for r in lineage if r["step"] <= update.batch}
        log = [steps[i] for i in sorted(steps)]
        text = card(self.spec, update.amount, self._origins[k], log)
        folder = self.out / amount_folder(update.amount)
        save_student(self.prepared.model, self.prepared.tokenizer, folder, text, log, self.world)

    def _facts(self, fit: probe.Fit, done: int, seconds: float) -> dict[str, Any]:
        return {
            "steps": len(self.updates),
            "warmup_steps": warmup_steps(self.spec.recipe, self.batches),
            "master_weights": "fp32"
            if self.spec.recipe.lora is None
            else "adapters in fp32, the base in "
            + str(next(self.prepared.model.parameters()).dtype).removeprefix("torch."),
            "compute": str(self.prepared.compute).removeprefix("torch."),
            "students_saved_in": "bf16",
            "packed": self.prepared.packs,
            "attention": self.prepared.model.config._attn_implementation,
            "device": str(self.world.device),
            "layout": str(self.world.layout),
            **fit.facts(),
            "resumed_at_step": done,
            "seconds_training": round(seconds, 2),
            "first_loss": self.log[0]["loss"],
            "last_loss": self.log[-1]["loss"],
        }


def autocast(prepared: Prepared) -> AbstractContextManager[Any]:
    """The precision of products; shards are cast by what gathers them."""
    world = prepared.world
    if prepared.compute == torch.float32 or world.layout.shard > 1:
        return nullcontext()
    return torch.autocast(world.device.type, dtype=prepared.compute)
