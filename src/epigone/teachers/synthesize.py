"""Local imitation data: a folder of conversations that a teacher made for one task."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from epigone.corpus.contamination import Index, Item
from epigone.errors import EndpointError
from epigone.files import write_json, write_jsonl
from epigone.models.endpoint import KEY
from epigone.schema import Progress, silent
from epigone.teachers.answers import Settings, day_of
from epigone.teachers.ask import Asker
from epigone.teachers.means import Means, ask_all, endpoint_of, purpose_of
from epigone.teachers.synthesis import BARREN, Growth, Made, Synthesis, synthesize
from epigone.teachers.task import Task
from epigone.teachers.wordings import wording

# Examples are to differ from one another.
SETTINGS = Settings(max_tokens=1024, temperature=1.0)


def synthesize_task(
    task: Task,
    out: str | Path,
    endpoint: str,
    growth: Growth,
    settings: Settings = SETTINGS,
    *,
    avoid: Iterable[Item] = (),
    means: Means | None = None,
    about: Mapping[str, str] | None = None,
    key_env: str = KEY,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Grow a pool of examples of a task; what the ledger holds already is not asked again.

    Writes answers.jsonl (a conversation of one question and its answer each), rejected.jsonl and
    asked.json into `out`. `avoid` are items of an evaluation. Raises EndpointError where the
    endpoint is down or refuses everything; also where it gives nothing new any more, once what came
    is written.
    """
    asks, means, out = endpoint_of(endpoint, key_env), means or Means(), Path(out)
    means = replace(means, purpose=means.purpose or purpose_of(out))
    index = Index(avoid)
    # Before anything is paid for.
    task.probe()

    async def work(asker: Asker) -> Synthesis:
        return await synthesize(asker, task, growth, settings, index, progress)

    found, told = ask_all(asks, means, work, progress)
    rows = [_row(task, made, {"teacher": asks.model, **(about or {})}) for made in found.made]
    write_jsonl(out / "answers.jsonl", rows)
    write_jsonl(
        out / "rejected.jsonl",
        ({"request": n, "reason": reason, "text": text} for n, reason, text in found.rejected),
    )
    facts = {
        "task": task.name,
        "task_version": task.version,
        "wording_version": wording("task").version,
        "asked": found.requests,
        "written": len(rows),
        "rejected": dict(
            sorted(Counter(reason.partition(":")[0] for _, reason, _ in found.rejected).items())
        ),
        **told,
    }
    write_json(
        out / "asked.json", {"growth": asdict(growth), "settings": asdict(settings), **facts}
    )
    if found.dry:
        raise EndpointError(
            f"the teacher gives no more: the last {BARREN} of {found.requests:,} requests had "
            "nothing new",
            value=f"{len(rows):,} of {growth.size:,} examples",
            fix=f"all that came is in {out}; ask for fewer, or give other seeds",
        )
    return facts


def _row(task: Task, made: Made, about: Mapping[str, str]) -> dict[str, Any]:
    asked = task.asked(made.pair)
    return {
        "id": f"{task.name}-{hashlib.sha256(made.pair.question.encode()).hexdigest()[:12]}",
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": made.pair.answer},
        ],
        **about,
        "model": made.model,
        "date": day_of(made.created),
    }
