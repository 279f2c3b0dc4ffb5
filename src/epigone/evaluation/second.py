"""The teacher's second answers to the held-out prompts, asked for or from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epigone.errors import CorpusError
from epigone.evaluation.held_out import cutter, held_out
from epigone.evaluation.questions import ask_all
from epigone.evaluation.target import target_of
from epigone.files import SCRATCH, read_jsonl, write_jsonl
from epigone.models.endpoint import Client, Endpoint
from epigone.models.kept import Kept
from epigone.models.references import locate_data
from epigone.schema import Conversation, Message, Progress, Sample, Stop
from epigone.study.specs import DataSpec, SecondSpec

Answer = tuple[str, bool]


def run(
    spec: SecondSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """See `epigone.evaluation.run_second`; writes samples.jsonl, without what was refused."""
    prompts = held_out(inputs["corpus"], spec.n)
    if spec.data is not None:
        found = _recorded(spec.data, prompts)
    else:
        found = _asked(spec, prompts, out, progress)
    cut = cutter(spec, progress)
    samples, same = [], 0
    for c in prompts:
        if c.id not in found:
            continue
        text, ended = found[c.id]
        text, shorter = cut(text.strip())
        same += text == cut(c.messages[-1].content.strip())[0]
        stop: Stop = "length" if shorter or ended else "end"
        samples.append(Sample(c.id, spec.model.name, c.messages[:-1], text, stop))
    write_jsonl(out / "samples.jsonl", (s.to_json() for s in samples))
    return {
        "samples": len(samples),
        "missing": len(prompts) - len(samples),
        "same_as_the_first": same,
        "cut_at_the_longest": sum(s.stop == "length" for s in samples),
    }


def _asked(
    spec: SecondSpec, prompts: Sequence[Conversation], out: Path, progress: Progress
) -> dict[str, Answer]:
    endpoint = target_of(spec.model, {}, progress)
    assert isinstance(endpoint, Endpoint)
    told = {"temperature": spec.temperature, "top_p": spec.top_p}
    settings = {name: value for name, value in told.items() if value is not None}
    settings |= {"max_tokens": spec.max_tokens, "seed": spec.seed}
    client = Client(endpoint)
    try:
        kept = Kept(out / SCRATCH / "answers.jsonl")
        questions = [(list(c.messages[:-1]), settings) for c in prompts]
        # Long answers that wait behind each other at a slow server come too late.
        at_once = spec.model.means.concurrency if spec.model.means else 1
        replies = ask_all(client, kept, questions, progress, at_once=at_once)
    finally:
        client.close()
    return {
        c.id: (reply.text, reply.stop == "length")
        for c, reply in zip(prompts, replies, strict=True)
        if not isinstance(reply, str) and reply.text.strip()
    }


def _recorded(data: DataSpec, prompts: Sequence[Conversation]) -> dict[str, Answer]:
    """Answers of a file's rows, found by the prompt's id, or by its text.

    A row has an `item` (or `id`), a `prompt` or both, and an `output`; or `messages` that end with
    the answer.
    """
    path = locate_data(data.ref, fingerprint=data.fingerprint)
    by_text = {_key(c.messages[:-1]): c.id for c in prompts}
    by_text |= {(c.messages[-2].content.strip(),): c.id for c in prompts if len(c.messages) == 2}
    known = {c.id for c in prompts}
    found: dict[str, Answer] = {}
    try:
        for number, row in enumerate(read_jsonl(path), 1):
            told = _row(row)
            if told is None:
                raise CorpusError(f"{path}:{number}: no prompt and output in this row")
            item, key, output = told
            item = item if item in known else by_text.get(key, "")
            if item:
                found[item] = (output, False)
    except (OSError, ValueError) as error:
        raise CorpusError("the second sample cannot be read", value=str(path),
                          fix=str(error)) from None  # fmt: skip
    if not found:
        raise CorpusError(
            "the second sample answers none of the held-out prompts", value=str(path),
            fix="rows of {'item' or 'prompt': …, 'output': …}",
        )  # fmt: skip
    return found


def _row(row: Any) -> tuple[str, tuple[str, ...], str] | None:
    """A row's item, the key of its prompt and its output; None where there is no output."""
    if not isinstance(row, dict):
        return None
    item, prompt, output = row.get("item", row.get("id")), row.get("prompt"), row.get("output")
    turns = _turns(row.get("messages"))
    if output is None and turns:
        prompt, output = None, turns.pop().content
    elif isinstance(prompt, list):
        turns = _turns(prompt)
    key = (prompt.strip(),) if isinstance(prompt, str) else _key(turns)
    if not isinstance(output, str) or (item is None and not key):
        return None
    return str(item), key, output


def _turns(told: Any) -> list[Message]:
    """Messages of a JSON list; none where it is something else."""
    turns = told if isinstance(told, list) else []
    if not all(isinstance(t, dict) and isinstance(t.get("content"), str) for t in turns):
        return []
    return [Message(t.get("role", ""), t["content"]) for t in turns]


def _key(messages: Sequence[Message]) -> tuple[str, ...]:
    return tuple(part for m in messages for part in (m.role, m.content.strip()))
