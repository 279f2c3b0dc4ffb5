"""From a file of prompts to a folder of answers, through the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from epigone.errors import EndpointError
from epigone.files import write_json
from epigone.models.endpoint import KEY
from epigone.schema import Progress, silent
from epigone.teachers.answers import (
    Check,
    Dialogue,
    Settings,
    answer_all,
    schema_check,
    write_answers,
)
from epigone.teachers.ask import Asker
from epigone.teachers.means import Means, ask_all, endpoint_of, purpose_of
from epigone.teachers.prompts import Prompts, read_prompts


def ask_teacher(
    prompts: str | Path,
    out: str | Path,
    endpoint: str,
    settings: Settings | None = None,
    *,
    means: Means | None = None,
    system: str = "",
    n: int | None = None,
    about: Mapping[str, str] | None = None,
    key_env: str = KEY,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Ask for answers to a file's prompts; what the ledger holds already is not asked again.

    Writes answers.jsonl, rejected.jsonl and asked.json into `out` once all are answered. `about` is
    what each row says of its teacher (teacher, licence, terms); the key is in the variable
    `key_env`. Raises UserError, among them EndpointError where the endpoint is down or refuses
    everything, and BudgetReached.
    """
    if settings is not None and settings.schema is not None:
        schema_check(settings.schema)
    read = read_prompts(Path(prompts), system)
    kept = Prompts(read.prompts[:n], read.skipped)
    settings = settings or Settings()
    return ask_prompts(
        kept, out, endpoint, settings, means=means, about=about, key_env=key_env,
        progress=progress, told={"system": system},
    )  # fmt: skip


def ask_prompts(
    asked: Prompts,
    out: str | Path,
    endpoint: str,
    settings: Settings,
    *,
    check: Check | None = None,
    means: Means | None = None,
    about: Mapping[str, str] | None = None,
    key_env: str = KEY,
    progress: Progress = silent,
    told: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """As `ask_teacher`, for prompts that are read already; `told` goes into asked.json as well.

    What is wrong with an answer, beside what any answer must be, says `check`.
    """
    asks, means, out = endpoint_of(endpoint, key_env), means or Means(), Path(out)
    means = replace(means, purpose=means.purpose or purpose_of(out))
    prompts, workers = asked.prompts, means.concurrency

    async def work(asker: Asker) -> list[Dialogue]:
        return await answer_all(asker, prompts, settings, workers, progress, check)

    dialogues, spent = ask_all(asks, means, work, progress)
    if not any(d.messages[-1:] and d.messages[-1].role == "assistant" for d in dialogues):
        raise EndpointError(
            f"none of {len(dialogues):,} answers is of use", value=dialogues[0].rejected
        )
    facts = {
        "prompts": len(prompts),
        "skipped": dict(sorted(asked.skipped.items())),
        **write_answers(out, dialogues, settings, {"teacher": asks.model, **(about or {})}),
        **spent,
    }
    write_json(out / "asked.json", {"settings": asdict(settings), **(told or {}), **facts})
    return facts
