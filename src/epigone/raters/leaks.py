"""A scan for outputs that name the model, or the maker, that wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from epigone.raters.comparisons import Pair

_NAMES = (
    r"chat\s?gpt|gpt-?[2345](?:\.\d)?(?:-?turbo)?|open\s?ai|anthropic|claude|google bard|bard|"
    r"gemini|gemma|deepmind|llama(?:-?\d)?|alpaca|vicuna|koala|mistral|mixtral|qwen|alibaba|deepseek|"
    r"moonshot|kimi|grok|copilot|bing chat|phi-?\d|falcon|smollm\d?|hugging\s?face|cohere|dolly|"
    r"open\s?assistant|stable\s?lm|olmo|nous hermes|baichuan|chatglm|yi-\d+b"
)
# "I am ChatGPT", "as a language model trained by OpenAI", "my developers at Anthropic".
_SELF = re.compile(
    rf"\b(?:i\s+am|i['\u2019]m|my\s+name\s+is|call\s+me|as\s+an?|this\s+is|me,)\b[^.!?\n]{{0,60}}?"
    rf"\b({_NAMES})\b|"
    rf"\b(?:trained|developed|created|made|built|designed)\s+by\s+(?:the\s+)?({_NAMES})\b",
    re.IGNORECASE,
)
_MENTION = re.compile(rf"\b({_NAMES})\b", re.IGNORECASE)
_SHORTEST = 4


@dataclass(frozen=True, slots=True)
class Leak:
    """An output that may give its model away: `says` is the name that stands in it.

    `itself` where the output speaks of itself; else it mentions a name that its prompt does not.
    """

    item: str
    model: str
    says: str
    itself: bool


def leaks(pairs: Iterable[Pair]) -> list[Leak]:
    """The outputs that name a model or maker, each once, in the order of the pairs.

    A name that stands in the prompt as well gives nothing away, unless the output says "I am" it.
    """
    found: dict[tuple[str, str], Leak] = {}
    for pair in pairs:
        if pair.purpose != "item":
            continue
        prompt = "\n".join(message.content for message in pair.prompt).lower()
        for model, text in ((pair.a, pair.a_text), (pair.b, pair.b_text)):
            leak = _leak(pair, model, text, prompt)
            if leak is not None:
                found.setdefault((pair.item, model), leak)
    return list(found.values())


def without(pairs: Iterable[Pair], found: Iterable[Leak]) -> list[Pair]:
    """The pairs of which neither output leaks."""
    told = {(leak.item, leak.model) for leak in found}
    return [p for p in pairs if not {(p.item, p.a), (p.item, p.b)} & told]


def _leak(pair: Pair, model: str, text: str, prompt: str) -> Leak | None:
    if said := _SELF.search(text):
        name = said[1] or said[2]
        return Leak(pair.item, model, name, itself=True)
    own = _own_names(model)
    named = [m[0] for m in own.finditer(text)] if own is not None else []
    named += [m[0] for m in _MENTION.finditer(text)]
    new = [name for name in named if name.lower() not in prompt]
    return Leak(pair.item, model, new[0], itself=False) if new else None


def _own_names(model: str) -> re.Pattern[str] | None:
    """The model's name and its first word, where they are no ordinary short words."""
    words = {model, re.split(r"[:/_\s.-]", model)[0]}
    words = {
        w for w in words if len(w) >= _SHORTEST and w.lower() not in ("base", "teacher", "model")
    }
    if not words:
        return None
    return re.compile(
        "|".join(rf"\b{re.escape(w)}\b" for w in sorted(words, key=len, reverse=True)),
        re.IGNORECASE,
    )
