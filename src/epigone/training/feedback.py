"""Learning from feedback: a student trained further on pairs, or on revisions after a critique."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epigone.errors import CorpusError, MissingExtra, ModelError, UserError
from epigone.files import SCRATCH, write_jsonl
from epigone.models import references
from epigone.models.chat import conversation_tokens, prompt_ids
from epigone.models.load import compute_dtype, load
from epigone.schema import Message, Progress
from epigone.study.specs import DataSpec, FeedbackSpec, amount_folder
from epigone.training.card import feedback_card
from epigone.training.preferences import Example, Feedback, Pair, read
from epigone.training.student import METRICS, save_student

Row = dict[str, list[int]]
# What of the first and the last step stands in the record.
_TOLD = {
    "loss": "loss",
    "rewards/accuracies": "reward_accuracy",
    "rewards/margins": "reward_margin",
}


def train_further(
    spec: FeedbackSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Train a student, or the base, on feedback; see `epigone.training.run_feedback`."""
    try:
        from epigone.training.trainers import train
    except ImportError as error:
        raise MissingExtra("learning from feedback", "feedback") from error
    found = [_read(source, spec, progress) for source in spec.sources]
    start = (
        inputs["student"] / amount_folder(spec.amount)
        if "student" in inputs
        else references.locate(spec.base.ref, progress, fingerprint=spec.base.fingerprint)
    )
    loaded = load(start, train=True)
    if loaded.encoder_decoder:
        raise ModelError(
            "learning from feedback takes causal language models alone", value=spec.base.name
        )
    dtype = compute_dtype(spec.precision, loaded.device)
    skipped = sum((f.skipped for f in found), Counter[str]())
    rows = _rows([e for f in found for e in f.examples], loaded.tokenizer, spec.block, skipped)
    # Trainers write their own ideas of padding and caching into what they are given.
    model = loaded.model
    config, generation = copy.deepcopy(model.config), copy.deepcopy(model.generation_config)
    started = time.monotonic()
    resumed_at, log = train(spec, loaded, rows, out / SCRATCH / "trainer", dtype, progress)
    model.config, model.generation_config = config, generation
    text = feedback_card(spec, len(rows), start if "student" in inputs else None)
    save_student(model, loaded.tokenizer, out / amount_folder(spec.amount), text, log)
    write_jsonl(out / METRICS, log)
    return {
        "method": spec.method,
        "start": "student" if "student" in inputs else "base",
        **_account(found, rows, skipped),
        "steps": len(log),
        "master_weights": "fp32",
        "compute": str(dtype).removeprefix("torch."),
        "students_saved_in": "bf16",
        "device": str(loaded.device),
        "resumed_at_step": resumed_at,
        "seconds_training": round(time.monotonic() - started, 2),
        **{f"first_{name}": log[0][key] for key, name in _TOLD.items() if key in log[0]},
        **{f"last_{name}": log[-1][key] for key, name in _TOLD.items() if key in log[-1]},
    }


def _read(source: DataSpec, spec: FeedbackSpec, progress: Progress) -> Feedback:
    for name, value in (("format", source.format), ("weight", source.weight)):
        if value:
            raise UserError(
                f"a source of feedback takes no {name}",
                value=value,
                fix="leave it out; the format is found from the content, and all rows count alike",
            )
    path = references.locate_data(source.ref, progress, fingerprint=source.fingerprint)
    return read(path, spec.method, source.cap)


def _rows(
    examples: Sequence[Example], tokenizer: Any, block: int, skipped: Counter[str]
) -> list[Row]:
    """Rows of token ids; what cannot be rendered or is longer than `block` is counted."""
    rows: list[Row] = []
    shortest = 0
    for example in examples:
        try:
            parts = tokens(tokenizer, example)
        except ModelError as error:
            skipped[error.what] += 1
            continue
        prompt, *answers = parts
        length = len(prompt) + max(map(len, answers))
        # An answer that the template leaves nothing of is its end mark alone.
        if min(map(len, answers)) < 2:
            skipped["an empty text"] += 1
        elif len(answers) == 2 and answers[0] == answers[1]:
            skipped["equal answers"] += 1
        elif length > block:
            # Cut, the student would not learn to end there, and the pair would not be the pair
            # that the teacher judged.
            skipped[f"longer than {block} tokens"] += 1
            shortest = min(shortest or length, length)
        elif isinstance(example, Pair):
            rows.append(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), parts, strict=True)))
        else:
            labels = [-100] * len(prompt) + answers[0]
            rows.append({"input_ids": prompt + answers[0], "labels": labels})
    if not rows:
        why = "; ".join(f"{n} x {reason}" for reason, n in skipped.most_common(3))
        fits = f"the shortest needs a block of {shortest} tokens" if shortest else "see the reasons"
        raise CorpusError("no feedback is left to learn from", value=why, fix=fits)
    return rows


def tokens(tokenizer: Any, example: Example) -> list[list[int]]:
    """Token ids of the prompt and of each answer up to its end mark, as the student is asked.

    Raises ModelError for a conversation that the chat template does not take.
    """
    prompt = prompt_ids(tokenizer, example.prompt)
    parts = [prompt]
    for answer in example.answers:
        whole = conversation_tokens(tokenizer, (*example.prompt, Message("assistant", answer)))
        # What a template puts behind the end mark is the next turn's.
        end = max(i for i, supervised in enumerate(whole.supervised) if supervised) + 1
        parts.append(list(whole.ids[len(prompt) : end]))
    return parts


def _account(
    found: Sequence[Feedback], rows: Sequence[Row], skipped: Counter[str]
) -> dict[str, Any]:
    formats = sum((f.formats for f in found), Counter[str]())
    return {
        "rows": sum(f.rows for f in found),
        "formats": dict(sorted(formats.items())),
        "examples": len(rows),
        "skipped": dict(sorted(skipped.items())),
        "tokens": sum(len(ids) for row in rows for name, ids in row.items() if name != "labels"),
    }
