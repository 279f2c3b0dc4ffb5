"""What a study's teacher and judge will be asked, and what that costs, before it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from epigone.errors import UserError
from epigone.evaluation.judge.verdicts import TOKENS, form
from epigone.files import cache_root
from epigone.formats import read_cache, write_cache
from epigone.models import references
from epigone.runs.estimate import Answering, answers_of, questions_of
from epigone.study import cost
from epigone.study.declare import REFERENCE_TOKENIZER
from epigone.study.judge import COMPARING
from epigone.study.specs import AskSpec, GenerateSpec, JudgeSpec, ModelSpec, SecondSpec, asked_model
from epigone.study.step import Step
from epigone.teachers.money import Price, parse_price, single_price

if TYPE_CHECKING:
    from epigone.evaluation.judge.estimate import Expected

_KEPT = "asked-tokens.json"


@dataclass(frozen=True, slots=True)
class Asking:
    """What one step asks its endpoint: requests, tokens, dollars where the price is known.

    `most_usd` is what it costs if every answer is as long as it may be and, of a judge, none can be
    read. `whom` is asked: the
    teacher or the judge.
    """

    step: str
    requests: int
    prompt_tokens: int
    tokens: int
    assumed: str
    usd: float | None
    most_usd: float | None
    whom: str = "teacher"


def asking(todo: Sequence[Step]) -> list[Asking]:
    """What the steps to do will ask; downloads nothing."""
    return [found for step in todo if (found := _of(step)) is not None]


def price_of(model: ModelSpec) -> Price | None:
    """What an endpoint's answers cost, asked one by one."""
    given = model.means.price if model.means else None
    found = single_price(model.ref.partition("#")[2], parse_price(given) if given else None)
    return None if found is None else found[0]


def check_budget(steps: Sequence[Step], budget: Decimal | None) -> None:
    """Raise UserError for a budget of a teacher or judge whose price is not known."""
    models = {m.ref: m for step in steps if (m := asked_model(step.spec)) is not None}
    for model in models.values() if budget is not None else ():
        if price_of(model) is None:
            raise UserError(
                "a budget needs the price of the model", value=model.ref,
                fix="price: [IN, OUT] in its endpoint, in dollars for a million tokens",
            )  # fmt: skip


def _of(step: Step) -> Asking | None:
    model, spec = asked_model(step.spec), step.spec
    if model is None:
        return None
    most_prompt_tokens = None
    if isinstance(spec, AskSpec):
        requests, prompt_tokens, tokens, most, assumed = _counted(step, spec)
    elif isinstance(spec, JudgeSpec):
        judged, assumed = _judged(step, spec)
        requests, prompt_tokens, tokens = judged.requests, judged.prompt_tokens, judged.tokens
        most_prompt_tokens, most = judged.most_prompt_tokens, judged.most_tokens
    elif isinstance(spec, Answering):
        requests, prompt, tokens = answers_of(spec)
        prompt_tokens, tokens = requests * prompt, requests * max(tokens, 16)
        most, assumed = tokens, "prompts as long as the benchmark's on average"
        if isinstance(spec, SecondSpec):
            assumed = f"held-out prompts of {prompt} tokens, asked a second time"
    else:
        return None
    found = price_of(model)
    usd = most_usd = None
    if found is not None:
        # What is measured is asked one by one.
        batched = isinstance(spec, AskSpec) and model.means is not None and model.means.batch
        price = found.in_batches if batched else found
        usd = float(price.cost(prompt_tokens, tokens))
        most_usd = float(price.cost(most_prompt_tokens or prompt_tokens, most))
    return Asking(step.name, requests, prompt_tokens, tokens, assumed, usd, most_usd, model.kind)


def _judged(step: Step, spec: JudgeSpec) -> tuple[Expected, str]:
    """What a judge is asked, whose answers are not there yet, and what is assumed."""
    from epigone.evaluation.judge.estimate import THOUGHTS, bounds
    from epigone.models.endpoint import thinks

    said = step.inputs["model"].spec
    assert isinstance(said, GenerateSpec)
    answer = min(round(cost.ANSWER["broad"]), said.max_new_tokens)
    prompt, asked = 0, questions_of(step, spec)
    for protocol, n in asked.items():
        shown = answer * (2 if protocol in COMPARING else 1)
        rubric = cost.tokens_of(spec.rubrics[protocol] + form(protocol))
        prompt += n * (rubric + cost.PROMPT_TOKENS + shown)
    model = spec.judge.ref.partition("#")[2]
    found = bounds(sum(asked.values()), prompt, spec.max_tokens, spec.tries, model, cost.tokens_of)
    thoughts = f" behind {THOUGHTS} of thought" if thinks(model) else ""
    return found, (
        f"{cost.PROMPT_TOKENS} tokens a prompt, {answer} an answer that is judged, {TOKENS} a "
        f"verdict{thoughts}, and that each can be read; the most is asked {spec.tries} times"
    )


def _counted(step: Step, spec: AskSpec) -> tuple[int, int, int, int, str]:
    """Requests, tokens in, out and at the most, counted once for a step and remembered."""
    data = None if spec.data is None else references.here(spec.data.ref)
    seeds = None if spec.seeds is None else references.here(spec.seeds.ref)
    count, how = _counter()
    if (spec.data and data is None) or (spec.seeds and seeds is None):
        # What has to be fetched first is read by nobody now.
        prompt, answer = cost.PROMPT_TOKENS, cost.ANSWER["broad"]
        assumed = f"{prompt} tokens a prompt and {answer:.0f} an answer: its data is not here yet"
        longest = spec.size * (spec.max_tokens or 1024)
        return spec.size, spec.size * prompt, round(spec.size * answer), longest, assumed
    kept = cache_root() / _KEPT
    known = read_cache(kept)
    key = f"{step.hash}:{how}"
    if key not in known:
        from epigone.teachers.estimate import expected

        known[key] = asdict(expected(spec, data, seeds, count))
        with suppress(OSError):
            write_cache(kept, dict([*known.items()][-200:]))
    told = known[key]
    numbers = (told[n] for n in ("requests", "prompt_tokens", "tokens", "most_tokens"))
    requests, prompt_tokens, tokens, most = numbers
    return requests, prompt_tokens, tokens, most, f"{told['assumed']}; {how}"


def _counter() -> tuple[Callable[[str], int], str]:
    """How tokens are counted here: by the reference tokenizer, or by bytes while it is not here."""
    folder = references.here(REFERENCE_TOKENIZER)
    if folder is None:
        return (
            cost.tokens_of,
            f"{cost.BYTES_A_TOKEN} bytes a token, as the tokenizer is not here yet",
        )
    path = folder / "tokenizer.json"
    loaded: list[Any] = []

    def count(text: str) -> int:
        if not loaded:
            from epigone.corpus.tokens import load_tokenizer

            loaded.append(load_tokenizer(path))
        return len(loaded[0].encode(text, add_special_tokens=False).ids)

    return count, "counted by the reference tokenizer"


def told(found: Sequence[Asking]) -> Iterator[str]:
    """Lines that tell it: requests, tokens, dollars, and each assumption once."""
    for whom in dict.fromkeys(a.whom for a in found):
        yield from _told(whom, [a for a in found if a.whom == whom])


def _told(whom: str, found: Sequence[Asking]) -> Iterator[str]:
    requests = sum(a.requests for a in found)
    tokens = f"{sum(a.prompt_tokens for a in found):,} tokens in, {sum(a.tokens for a in found):,}"
    if any(a.usd is None for a in found):
        money = f"its price is not known: name it as price: [IN, OUT] in the {whom}'s endpoint"
    else:
        usd = sum(a.usd or 0 for a in found)
        most = sum(a.most_usd or 0 for a in found)
        money = (
            f"${usd:,.2f}, or ${most:,.2f} if every answer is as long as it may be"
            f"{' and none can be read' if whom == 'judge' else ''}; "
            "what the ledger holds already costs nothing and is not left out"
        )
    yield f"the {whom} is asked {requests:,} times, about {tokens} out: {money}"
    for assumed in dict.fromkeys(a.assumed for a in found):
        yield f"  assumed: {assumed}"
