"""The prompts that all models answer, and where their answers end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from epigone.errors import CorpusError
from epigone.files import read_jsonl
from epigone.models.references import locate
from epigone.schema import Conversation, Progress
from epigone.study.specs import GenerateSpec


def held_out(corpus: Path, n: int) -> list[Conversation]:
    """The first `n` held-out prompts of a corpus, with their answers as the last turn."""
    rows = [Conversation.from_json(r) for r in read_jsonl(corpus / "held_out.jsonl")]
    if len(rows) < n:
        raise CorpusError(
            f"the corpus holds out {len(rows)} prompts only",
            value=n,
            fix="ask for fewer prompts, or hold out more",
        )
    return rows[:n]


def cutter(spec: GenerateSpec, progress: Progress) -> Callable[[str], tuple[str, bool]]:
    """Cuts an answer at the longest; tells whether it was cut.

    Metrics compare answers written under one limit: a whole recorded answer beside a cut one would
    measure the limit.
    """
    if spec.tokenizer is None:
        return lambda text: (text, False)
    folder = locate(spec.tokenizer.ref, progress, fingerprint=spec.tokenizer.fingerprint)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()

    def cut(text: str) -> tuple[str, bool]:
        ends = [end for _, end in tokenizer.encode(text, add_special_tokens=False).offsets]
        if len(ends) > spec.max_new_tokens:
            return text[: ends[spec.max_new_tokens - 1]], True
        return text, False

    return cut
