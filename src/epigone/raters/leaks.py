"""A scan for outputs that name the model, or the maker, that wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import combining, normalize

from epigone.raters.comparisons import Pair
from epigone.raters.render import answer, words

# Names that mean a model or its maker and nothing else.
_MODELS = (
    r"chat[-\s]?gpt(?:-?\d[\w.-]*)?|(?:instruct|web)gpt|gpt[-\s]?\d[\w.-]*|gpt-j|(?:text|code)-davinci(?:-\d+)?|"
    r"text-(?:curie|babbage|ada)-\d+|open\s?ai|anthropic|deepmind|google bard|bing chat|meta ai|"
    r"claude[-\s]?(?:\d[\w.-]*|instant|opus|sonnet|haiku)|gemma(?:[-\s]?\d[\w.-]*)?|"
    r"gemini[-\s](?:pro|ultra|nano|flash|\d[\w.-]*)|llama[-\s]?\d[\w.-]*|code\s?llama|"
    r"tiny\s?llama|"
    r"vicuna(?:-\d+b)?|mixtral|mistral ?ai|qwen[\w.-]*|deep\s?seek[\w.-]*|moonshot ai|"
    r"xai|x\.ai|grok-\d|"
    r"github copilot|microsoft copilot|phi-?\d[\w.-]*|smol\s?lm[\w.-]*|hugging\s?face|"
    r"open\s?assistant|stable\s?lm|olmo|nous hermes|open\s?hermes|baichuan|chatglm[\w.-]*|"
    r"yi-\d+b|bloomz?-\d+b|flan-?t5|eleuther\s?ai|zephyr-\d+b|command[-\s]r\+?|lamda|palm[-\s]2|"
    r"redpajama|gpt4all|guanaco-\d+b|wizardlm|tulu-\d[\w.-]*"
)
# Words of other uses, and makers of other things: told only where an output speaks of itself.
_OTHERS = (
    r"google(?:'s)?(?: ai| research| brain)?|facebook|microsoft|amazon|ibm|nvidia|"
    r"alibaba(?: cloud)?|"
    r"baidu|tencent|bytedance|mistral|cohere|databricks|mosaicml|stability ai|ai21(?: labs)?|"
    r"zhipu(?: ai)?|01\.ai|stanford|berkeley|lmsys|allen ?ai|ai2|bigscience|tii|claude|bard|gemini|"
    r"llama|alpaca|koala|falcon|grok|kimi|copilot|bing|dolly|orca|zephyr|pythia|davinci|guanaco|"
    r"nemotron|jurassic|ernie|hunyuan|doubao|gpt|"
    r"(?-i:Meta|Apple|Adept|Inflection|Moonshot|Sydney|PaLM|Phi|Yi|BLOOM|OPT|Dolphin|Hermes|Nova|Titan|Granite|Pi)"
)
# First names and words, but models where they stand alone.
_ALONE = r"(?-i:Claude|Bard|Grok|LLaMA|Llama|Mistral|Copilot|Cohere)(?!\s(?-i:[A-Z]))"
_KIND = r"(?:ai|a\.i\.|model|llm|assistant|chat\s?bot|bot|program|system|language)"
_MADE = (
    r"(?:trained|developed|created|made|built|designed|produced|released|programmed|powered|"
    r"fine-?tuned|provided|owned|operated|invented|engineered)"
)
_AM = r"(?:i\s+am|i\s*'\s*m|im|i\s+was|i\s*'ve\s+been|i\s+have\s+been)"
_TEAM = (
    r"(?:(?:the|a|an|team|people|folks|researchers|engineers|scientists|at|of|from|company)\s+)*"
)
# What training or a template left: the words around an answer, which one model has and another not.
_LEFT = re.compile(
    r"<\|\w{1,30}\|>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|</s>\s*\Z|"
    r"^\s{0,3}#{2,4}\s?(?:human|assistant|user|instruction|response|input)\s?:",
    re.IGNORECASE | re.MULTILINE,
)
_SHORTEST = 4
_GENERIC = frozenset({
    "base", "teacher", "model", "student", "instruct", "chat", "large", "small", "mini", "tiny",
    "test", "local", "main", "data", "mixed", "final", "random", "seed", "text", "latest",
    "preview", "turbo", "greedy", "answers", "samples", "human",
})  # fmt: skip
_DASHES = dict.fromkeys([*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63], "-")
_QUOTES = dict.fromkeys([0x2018, 0x2019, 0x02BC], "'")


@dataclass(frozen=True, slots=True)
class Leak:
    """An output that may give its model away: `says` is the name, or mark, that stands in it.

    `itself` where the output speaks of itself; else it mentions a name that its prompt does not.
    Without a `model` it is an earlier answer, in the prompt, that speaks of itself.
    """

    item: str
    model: str
    says: str
    itself: bool


def leaks(pairs: Iterable[Pair]) -> list[Leak]:
    """The outputs that name a model or maker, or hold a template's marks, each once, in order.

    A name that stands in the prompt as well gives nothing away, unless the output says "I am" it.
    """
    chosen = [pair for pair in pairs if pair.purpose == "item"]
    itself = _speaking(name for pair in chosen for name in (pair.a, pair.b))
    read: set[tuple[str, str]] = set()
    found: list[Leak] = []
    for pair in chosen:
        if (pair.item, "") not in read:
            read.add((pair.item, ""))
            found += _before(pair, itself)
        for model, text in ((pair.a, pair.a_text), (pair.b, pair.b_text)):
            if (pair.item, model) in read:
                continue
            read.add((pair.item, model))
            leak = _leak(pair, model, text, itself)
            if leak is not None:
                found.append(leak)
    return found


def without(pairs: Iterable[Pair], found: Iterable[Leak]) -> list[Pair]:
    """The pairs of items of which no output leaks: all models are compared on the same items."""
    told = {leak.item for leak in found}
    return [p for p in pairs if p.purpose != "item" or p.item not in told]


def _before(pair: Pair, itself: re.Pattern[str]) -> list[Leak]:
    """The first earlier answer that speaks of itself; it stands above both outputs."""
    earlier = [m.content for m in pair.prompt if m.role == "assistant"]
    names = [name for text in earlier if (name := _itself(_seen(words(answer(text))), itself))]
    return [Leak(pair.item, "", names[0], itself=True)] if names else []


def _itself(text: str, itself: re.Pattern[str]) -> str:
    said = itself.search(text)
    return next(group for group in said.groups() if group) if said else ""


def _leak(pair: Pair, model: str, raw: str, itself: re.Pattern[str]) -> Leak | None:
    text = _seen(words(answer(raw)))
    if name := _itself(text, itself):
        return Leak(pair.item, model, name, itself=True)
    prompt = _seen("\n".join(message.content for message in pair.prompt)).lower()
    named = [found[0] for found in _mentions(model).finditer(text)]
    # A heading's signs are not seen any more where it is laid out.
    named += [found[0].strip() for found in _LEFT.finditer(raw)]
    new = [name for name in named if name.lower() not in prompt]
    return Leak(pair.item, model, new[0], itself=False) if new else None


def _seen(text: str) -> str:
    """A text as it looks: wide, styled and marked letters are plain ones, all hyphens are one."""
    plain = "".join(c for c in normalize("NFKD", text) if not combining(c))
    # Short gaps keep the patterns below from taking long.
    spaced = re.sub(r"[^\S\n]+", " ", plain.translate(_DASHES | _QUOTES))
    return re.sub(r"(?: ?\n)+ ?", "\n", spaced)


def _speaking(models: Iterable[str]) -> re.Pattern[str]:
    """How an output speaks of itself: "I am ChatGPT", "trained by OpenAI", "As Bard, I".

    The compared models' own names count in all their parts.
    """
    own = {part for name in set(models) for part in _parts(name)}
    sure = _MODELS
    anyone = "|".join([*map(re.escape, sorted(own, key=len, reverse=True)), _MODELS, _OTHERS])
    who, near, far = rf"({anyone})(?![\w-])", r"[^.!?\n]{0,40}?", r"[^.!?\n]{0,60}?"
    kind = rf"(?:[\w-]+[\s,]+){{0,4}}?{_KIND}\b"
    start = r"(?:^|[.!?:\"\n]\s?)"
    ways = (
        # Where only a model can be meant, some distance does no harm.
        rf"\b(?:{_AM}|my\s+name\s+is|call\s+me|as\s+an?|this\s+is|me,)\b{far}\b({sure})(?![\w-])",
        rf"\b{_MADE}\s+by\s+{_TEAM}({sure})(?![\w-])",
        rf"\b(?:{_AM}|my\s+name\s+is|my\s+name's|call\s+me)\s+(?:(?:the|actually|just|called|named)\s+)*{who}",
        rf"\b(?:{_AM}|as)\s+(?:an?|the)\s+{who}(?:'s)?\s+{kind}",
        rf"{start}as\s+{who}\s*,",
        rf"{start}(?:hi|hello|hey)?[ ,!]{{0,2}}{who}\s+here\b",
        rf"\btrained\s+by\s+{_TEAM}{who}",
        rf"\b(?:{_AM}|me)\b{far}\b{_MADE}\s+by\s+{_TEAM}{who}",
        rf"\b(?:{_AM}|as)\s+an?\s+{kind}{far}\b(?:by|from|at|called|named|known\s+as|based\s+on)\s+{_TEAM}{who}",
        rf"\bmy\s+(?:creators?|developers?|makers?|trainers?|engineers?|programmers?|parent\s+company)\b{near}\b{who}",
    )
    return re.compile("|".join(ways), re.IGNORECASE)


def _parts(name: str) -> set[str]:
    """The words of a model's name that are no ordinary ones, and the whole of it."""
    parts = {name, *re.split(r"[:/_\s.-]", name)}
    return {_seen(p) for p in parts if len(p) >= _SHORTEST and p[0].isalpha()
            and p.lower() not in _GENERIC}  # fmt: skip


@lru_cache(maxsize=64)
def _mentions(model: str) -> re.Pattern[str]:
    """Names that tell in passing: the models, and the name of this one and its first word."""
    first = re.split(r"[:/_\s.-]", model)[0]
    own = {re.escape(_seen(w)) for w in (model, first)
           if len(w) >= _SHORTEST and w.lower() not in _GENERIC}  # fmt: skip
    anyone = "|".join([*sorted(own, key=len, reverse=True), _MODELS, _ALONE])
    return re.compile(rf"\b(?:{anyone})(?![\w-])", re.IGNORECASE)
