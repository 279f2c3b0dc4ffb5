"""Models' answers to prompts: greedy, in the chat format that the students were trained in."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epigone.errors import CorpusError
from epigone.evaluation.held_out import cutter, held_out
from epigone.files import write_jsonl
from epigone.models.chat import prompt_ids, source_ids, stop_ids, stop_texts
from epigone.models.generate import generate
from epigone.models.load import load
from epigone.models.references import locate
from epigone.schema import Conversation, Message, Progress, Role, Sample, Stop, silent
from epigone.study.identity import digest
from epigone.study.specs import GenerateSpec, amount_folder

Prompt = tuple[str, tuple[Message, ...]]
_ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
}


def run(
    spec: GenerateSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """See `epigone.evaluation.run_generate`; writes samples.jsonl."""
    asked = held_out(inputs["corpus"], spec.n)
    started = time.monotonic()
    if spec.model.kind == "teacher":
        samples = _recorded(spec, asked, progress)
    else:
        if spec.model.kind == "student":
            folder = inputs["student"] / amount_folder(spec.model.amount)
        else:
            folder = locate(spec.model.ref, progress, fingerprint=spec.model.fingerprint)
        prompts = [(c.id, c.messages[:-1]) for c in asked]
        samples = answer_prompts(
            folder,
            prompts,
            model=spec.model.name,
            max_new_tokens=spec.max_new_tokens,
            progress=progress,
        )
    write_jsonl(out / "samples.jsonl", (s.to_json() for s in samples))
    tokens = sum(s.tokens for s in samples)
    seconds = time.monotonic() - started
    return {
        "samples": len(samples),
        "tokens": tokens,
        "cut_at_the_longest": sum(s.stop == "length" for s in samples),
        "seconds_generating": round(seconds, 2),
        "tokens_per_second": round(tokens / seconds, 1) if tokens else None,
    }


def _recorded(
    spec: GenerateSpec, asked: Sequence[Conversation], progress: Progress
) -> list[Sample]:
    cut = cutter(spec, progress)
    samples = []
    for c in asked:
        text, shorter = cut(c.messages[-1].content)
        stop: Stop = "length" if shorter else "recorded"
        samples.append(Sample(c.id, spec.model.name, c.messages[:-1], text, stop))
    return samples


def answer_prompts(
    folder: Path,
    prompts: Sequence[Prompt],
    *,
    model: str,
    max_new_tokens: int = 256,
    progress: Progress = silent,
) -> list[Sample]:
    """One greedy answer for each prompt; a prompt ends with the user's turn."""
    loaded = load(folder)
    ids_of = source_ids if loaded.encoder_decoder else prompt_ids
    ids = [ids_of(loaded.tokenizer, messages) for _, messages in prompts]
    answers = generate(
        loaded.model,
        ids,
        max_new_tokens=max_new_tokens,
        stop_ids=stop_ids(loaded.tokenizer),
        stop_texts=stop_texts(loaded.tokenizer),
        tokenizer=loaded.tokenizer,
        folder=loaded.folder,
        progress=progress,
    )
    return [
        Sample(
            item=item,
            model=model,
            prompt=tuple(messages),
            output=(answer.text or "").strip(),
            stop=answer.stop,
            tokens=len(answer.ids),
            prompt_sha256=hashlib.sha256(loaded.tokenizer.decode(asked).encode()).hexdigest(),
        )
        for (item, messages), asked, answer in zip(prompts, ids, answers, strict=True)
    ]


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a file: JSONL with `prompt`, `messages` or a corpus's rows; or a prompt a line.

    Trailing assistant turns are left out: they are what is asked for. Raises CorpusError with the
    number of the first line that holds no prompt.
    """
    try:
        # Not splitlines(): it also splits at U+2028, which JSON strings may hold as it is.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError("prompts cannot be read", value=str(path), fix=str(error)) from None
    prompts: list[Prompt] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        messages = _messages(path, line, number)
        item = digest({"messages": [[m.role, m.content] for m in messages]})[:16]
        if line.lstrip().startswith("{"):
            row = json.loads(line)
            item = str(row.get("id") or row.get("item") or item)
        prompts.append((item, messages))
    if not prompts:
        raise CorpusError("no prompts in the file", value=str(path))
    names = [item for item, _ in prompts]
    if len(set(names)) < len(names):
        twice = next(n for i, n in enumerate(names) if n in names[:i])
        raise CorpusError("two prompts of one id", value=twice, fix="give each its own id")
    return prompts


def _messages(path: Path, line: str, number: int) -> tuple[Message, ...]:
    if not line.lstrip().startswith("{"):
        return (Message("user", line.strip()),)
    try:
        row = json.loads(line)
        if isinstance(row.get("prompt"), str):
            return (Message("user", row["prompt"]),)
        turns = row.get("messages") or row.get("prompt") or row.get("conversations")
        messages = [
            Message(
                _ROLES[t.get("role") or t["from"]], t["content"] if "content" in t else t["value"]
            )
            for t in turns
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CorpusError(
            f"{path}:{number}: no prompt in this line",
            value=line[:120],
            fix="each line is {'prompt': …} or {'messages': […]}",
        ) from None
    while messages and messages[-1].role == "assistant":
        messages.pop()
    if not messages or not all(isinstance(m.content, str) for m in messages):
        raise CorpusError(
            f"{path}:{number}: no user turn, or a turn that is no text", value=line[:120]
        )
    return tuple(messages)
