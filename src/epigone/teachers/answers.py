"""A teacher's answers to a list of prompts, as conversations that a corpus is built from."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from epigone.errors import EndpointError, UserError
from epigone.files import write_jsonl
from epigone.models.endpoint import Endpoint
from epigone.models.received import Answer, no_number
from epigone.schema import Message, Progress
from epigone.teachers.ask import Asker, NotHad, Refused
from epigone.teachers.money import BudgetReached
from epigone.teachers.prompts import Prompt
from epigone.teachers.wire import Request, chat, completion, own_seed

Item = TypeVar("Item")
Made = TypeVar("Made")
# How endpoints call the end of an answer, and its longest.
_WHOLE = frozenset({"stop", "end_turn", "eos", "eos_token", "stop_sequence", "end", ""})
_LENGTH = frozenset({"length", "max_tokens"})
# What is wrong with an answer to a prompt, empty where nothing is.
Check = Callable[[Prompt, str], str]


@dataclass(frozen=True, slots=True)
class Settings:
    """How prompts are asked, all of it part of each request.

    `samples` answers to each; `cut` says whether an answer that ends at `max_tokens` is one;
    `schema` is a JSON schema that answers follow, asked for `tries` times more where they do not;
    `completions` asks a base model, which goes on from a text, instead of a chat model.
    """

    max_tokens: int = 1024
    samples: int = 1
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    cut: bool = False
    schema: Mapping[str, Any] | None = None
    tries: int = 2
    completions: bool = False


@dataclass(slots=True)
class Dialogue:
    """What became of a prompt: turns that were answered well, and what is wrong with the next."""

    prompt: Prompt
    sample: int
    messages: list[Message] = field(default_factory=list)
    model: str = ""
    created: int = 0
    rejected: str = ""
    told: str = ""


def request_of(
    endpoint: Endpoint,
    messages: Sequence[Message],
    settings: Settings,
    sample: int,
    again: int = 0,
) -> Request:
    """The request that asks for the next turn; what is asked again has another seed."""
    seed = None if settings.seed is None else own_seed(settings.seed, sample, again)
    sent: dict[str, Any] = {
        "max_tokens": settings.max_tokens, "sample": sample, "seed": seed,
        "temperature": settings.temperature, "top_p": settings.top_p,
    }  # fmt: skip
    if settings.completions:
        return completion(endpoint, "\n\n".join(m.content for m in messages), **sent)
    if settings.schema is not None:
        form = {"name": "answer", "strict": True, "schema": settings.schema}
        sent["response_format"] = {"type": "json_schema", "json_schema": form}
    return chat(endpoint, messages, **sent)


def wrong(answer: Answer, *, cut: bool) -> str:
    """Why an answer is none, empty where it is one."""
    if answer.refusal:
        return "refused by the model"
    if answer.stop in ("content_filter", "tool_calls", "function_call"):
        return answer.stop.replace("_", " ")
    if answer.stop in _LENGTH:
        if not cut:
            return "cut at its longest"
    elif answer.stop not in _WHOLE:
        return f"ended otherwise: {answer.stop}"
    return "" if answer.text.strip() else "empty"


async def ask_well(
    asker: Asker,
    request: Callable[[int], Request],
    *,
    cut: bool,
    check: Callable[[str], str] | None = None,
    tries: int = 0,
) -> tuple[Answer | Refused, str]:
    """An answer, and what is wrong with it; one that does not pass `check` is asked for again.

    Each of up to `tries` further requests is paid for and kept like the first; `request` gives
    them by their number.
    """
    for again in range(tries + 1):
        found = await asker.ask(request(again), again)
        if isinstance(found, Refused):
            return found, f"{found.reason}: {found.why}"
        fault = wrong(found, cut=cut)
        if fault or check is None:
            break
        fault = check(found.text)
        if not fault:
            break
    return found, fault


async def dialogue(
    asker: Asker, prompt: Prompt, settings: Settings, sample: int, check: Check | None = None
) -> Dialogue:
    """Ask a prompt's turns one after the other; what was answered well before a fault stays."""
    made = Dialogue(prompt, sample, list(prompt.given))
    for turn in prompt.turns:
        asked = [*made.messages, Message("user", turn)]
        request = partial(request_of, asker.endpoint, asked, settings, sample)
        # The likeliest answer would be the same again.
        tries = 0 if settings.temperature == 0 else settings.tries
        found, fault = await ask_well(
            asker,
            request,
            cut=settings.cut,
            check=None if check is None else partial(check, prompt),
            tries=tries,
        )
        if fault or isinstance(found, Refused):
            made.rejected = fault
            made.told = found.why if isinstance(found, Refused) else found.refusal or found.text
            break
        made.messages = [*asked, Message("assistant", found.text)]
        made.model, made.created = found.model, found.created
    return made


async def answer_all(
    asker: Asker,
    prompts: Sequence[Prompt],
    settings: Settings,
    workers: int,
    progress: Progress,
    check: Check | None = None,
) -> list[Dialogue]:
    """Every prompt's dialogues, in the order of the prompts and their samples; see `ask_each`.

    An answer that does not pass `check`, or is not of the schema, is asked for again.
    """
    wanted = [(p, s) for p in prompts for s in range(settings.samples)]
    if settings.schema is not None:
        of_schema = schema_check(settings.schema)
        check = check or (lambda _, text: of_schema(text))

    async def one(item: tuple[Prompt, int]) -> Dialogue:
        return await dialogue(asker, item[0], settings, item[1], check)

    return await ask_each(asker, wanted, one, workers, progress, "prompts and samples")


async def ask_each(
    asker: Asker,
    wanted: Sequence[Item],
    work: Callable[[Item], Awaitable[Made]],
    workers: int,
    progress: Progress,
    what: str,
) -> list[Made]:
    """What `work` makes of each item, in their order, so many at once; `what` they are called.

    Raises EndpointError with how many answers are there where nothing more can be asked, or where
    some could not be had.
    """
    found: dict[int, Made] = {}
    missing: list[str] = []
    started, ended = time.monotonic(), 0

    async def one(i: int, item: Item) -> None:
        try:
            found[i] = await work(item)
        except NotHad as error:
            missing.append(str(error))

    def told(done: int | None = None) -> None:
        nonlocal ended
        ended = ended if done is None else done
        progress(ended, len(wanted), pace(asker, time.monotonic() - started, ended, len(wanted)))

    def left() -> str:
        return f"{asker.tally.answers:,} answers to {len(wanted):,} {what} are there"

    asker.watch = told
    try:
        await _each(wanted, one, workers, told)
    except EndpointError as error:
        # What is in flight may still be answered.
        await asker.finish()
        raise left_of(error, left()) from None
    if missing:
        raise EndpointError(
            f"{len(missing):,} answers could not be had; {left()}",
            value=missing[0],
            fix="all that came is kept; run the same command again",
        )
    return [found[i] for i in range(len(wanted))]


async def _each(
    items: Sequence[Item],
    work: Callable[[int, Item], Awaitable[None]],
    workers: int,
    told: Callable[[int], None],
) -> None:
    """Work on items, so many at a time, in their order; the first error ends all."""
    numbered = iter(enumerate(items))
    done = 0

    async def one() -> None:
        nonlocal done
        for i, item in numbered:
            await work(i, item)
            done += 1
            told(done)

    tasks = [asyncio.ensure_future(one()) for _ in range(min(workers, len(items)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def left_of(error: EndpointError, left: str) -> EndpointError:
    """The same error with what is there by then."""
    kind = BudgetReached if isinstance(error, BudgetReached) else EndpointError
    return kind(f"{error.what}; {left}", value=error.value, fix=error.fix)


def pace(asker: Asker, elapsed: float, done: int, wanted: int) -> str:
    """How fast answers come, how long the rest will take, and what they cost so far.

    `elapsed` are seconds; `done` of the items `wanted` are there.
    """
    tally = asker.tally
    rate = tally.came / max(elapsed, 1e-3)
    parts = [asker.note, f"{rate:.1f}/s"]
    if done and tally.came:
        # An item may take several answers, and what the ledger knew took no time.
        left = (wanted - done) * tally.answers / done / rate
        parts.append(f"{left / 60:.0f} min left" if left >= 90 else f"{left:.0f} s left")
    parts.append(f"{tally.tokens:,} tokens")
    if asker.budget.spent:
        parts.append(f"${asker.budget.spent:.4f}")
    if tally.refused:
        parts.append(f"{tally.refused} refused")
    return ", ".join(part for part in parts if part)


def schema_check(schema: Mapping[str, Any]) -> Callable[[str], str]:
    """Whether a text is JSON that follows a schema (draft 2020-12). Raises UserError for none."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing import Registry

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise UserError("not a JSON schema", value=error.message[:200]) from None
    # Without a registry of its own it would fetch what a schema refers to.
    validator = Draft202012Validator(schema, registry=Registry())

    def check(text: str) -> str:
        try:
            value = json.loads(text, parse_constant=no_number)
            errors = list(validator.iter_errors(value))
        except (ValueError, RecursionError):
            return "not JSON"
        return f"not of the schema: {errors[0].message[:100]}" if errors else ""

    return check


def write_answers(
    out: Path, dialogues: Sequence[Dialogue], settings: Settings, about: Mapping[str, str]
) -> dict[str, Any]:
    """Write answers.jsonl, answers-2.jsonl, … for each sample, and rejected.jsonl; tell the counts.

    `about` holds what is known of the teacher: its name, licence, terms.
    """
    for old in out.glob("answers*.jsonl"):
        # Of an earlier run with more samples.
        old.unlink()
    rejected = Counter(kind_of(d.rejected) for d in dialogues if d.rejected)
    written = 0
    for sample in range(settings.samples):
        name = "answers.jsonl" if sample == 0 else f"answers-{sample + 1}.jsonl"
        rows = [_row(d, about) for d in dialogues if d.sample == sample and _answered(d)]
        written += write_jsonl(out / name, rows)
    write_jsonl(
        out / "rejected.jsonl",
        (
            {"id": d.prompt.id, "sample": d.sample, "turn": _answered(d), "reason": d.rejected,
             "text": d.told[:500]}
            for d in dialogues
            if d.rejected
        ),
    )  # fmt: skip
    facts = {
        "asked": len(dialogues),
        "written": written,
        "rejected": dict(sorted(rejected.items())),
    }
    return facts


def _answered(d: Dialogue) -> int:
    return sum(m.role == "assistant" for m in d.messages[len(d.prompt.given) :])


def kind_of(reason: str) -> str:
    """What reasons are counted by: what stands before the colon."""
    return reason.partition(":")[0]


def day_of(created: int) -> str:
    """The day of a time in seconds since 1970, empty for none."""
    return str(datetime.datetime.fromtimestamp(created, datetime.UTC).date()) if created else ""


def _row(d: Dialogue, about: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": d.prompt.id,
        "messages": [{"role": m.role, "content": m.content} for m in d.messages],
        **about,
        "model": d.model,
        "date": day_of(d.created),
    }
