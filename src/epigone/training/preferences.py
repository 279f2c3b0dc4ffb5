"""Files of what a teacher said of answers: pairs, ranked lists, revisions after a critique."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, permutations
from pathlib import Path
from typing import Any, Literal

from epigone.errors import CorpusError
from epigone.schema import Message, Role
from epigone.training.feedback_files import Unusable, beginning, data_files, values_of

Method = Literal["dpo", "revise"]
ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "system": "system",
    "developer": "system",
    "observation": "tool",
    "tool": "tool",
}
# A list of n answers makes up to n (n - 1) / 2 pairs.
MOST_ANSWERS = 64
KNOWN = "known: prompt/chosen/rejected, answers/ranking or scores, critique/revision; see the docs"

_HARMFUL = re.compile("[\x00\ud800-\udfff]")
_SPEAKER = re.compile(r"(?:\A|\n)\s*(Human|Assistant):")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, of which the teacher liked the first better."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str

    @property
    def answers(self) -> tuple[str, ...]:
        """The better answer, then the other."""
        return self.chosen, self.rejected


@dataclass(frozen=True, slots=True)
class Revision:
    """A prompt and the answer that was written anew after a critique."""

    prompt: tuple[Message, ...]
    text: str

    @property
    def answers(self) -> tuple[str, ...]:
        """The new answer alone."""
        return (self.text,)


Example = Pair | Revision


@dataclass(slots=True)
class Feedback:
    """Examples in the order of their files, and an account of the rows that gave none.

    `skipped` counts rows, and of a ranked list the pairs, by the reason why they are not used.
    """

    examples: list[Example] = field(default_factory=list)
    rows: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


def read(path: Path, method: Method, cap: int = 0) -> Feedback:
    """What the data file, or every data file of the folder, holds for a method.

    `cap` is the most rows that are used (0: all). Raises CorpusError where no row can be used.
    """
    found = Feedback()
    files = data_files(path)
    values = chain.from_iterable(values_of(file) for file in files)
    usable = 0
    for value in values:
        if cap and usable == cap:
            break
        found.rows += 1
        try:
            name, examples = _examples(value, found.skipped)
            wanted = [e for e in examples if isinstance(e, Pair) == (method == "dpo")]
            if examples and not wanted:
                raise Unusable(f"of the format {name}, which {method} does not learn from")
        except Unusable as reason:
            found.skipped[str(reason)] += 1
            continue
        if wanted:
            usable += 1
            found.formats[name] += 1
            found.examples += wanted
    if not found.examples:
        why = "; ".join(f"{n} x {reason}" for reason, n in found.skipped.most_common(3))
        raise CorpusError(
            f"{path.name} holds nothing that {method} can learn from"
            + (f" ({why})" if why else "")
            + ", it begins with",
            value=beginning(files[0]),
            fix=KNOWN,
        )
    return found


def _examples(value: Any, skipped: Counter[str]) -> tuple[str, list[Example]]:
    if isinstance(value, Unusable):
        raise value
    if not isinstance(value, dict):
        raise Unusable("not an object")
    # A table has every column in every row.
    row = {key: v for key, v in value.items() if v is not None}
    for name, keys, read_row in _FORMATS:
        if keys <= row.keys():
            return name, read_row(row, skipped)
    raise Unusable("of no known format")


def _revision(row: dict[str, Any], _: Counter[str]) -> list[Example]:
    prompt = _prompt(row)
    text = _text(row["revision"])
    for key in ("answer", "draft"):
        if key in row:
            _different(_text(row[key]), text)
    if "critique" in row:
        _text(row["critique"])
    return [Revision(_ended(prompt), text)]


def _ranked(row: dict[str, Any], skipped: Counter[str]) -> list[Example]:
    prompt = _ended(_prompt(row))
    answers = row["answers"]
    if not isinstance(answers, list):
        raise Unusable("answers of a wrong type")
    if not 2 <= len(answers) <= MOST_ANSWERS:
        raise Unusable(f"not 2 to {MOST_ANSWERS} answers")
    texts = [_text(answer) for answer in answers]
    worth = _worth(row, len(texts))
    examples: list[Example] = []
    # Best answer first, so that a cap or a reader meets the clearest pairs of a list first.
    order = sorted(range(len(texts)), key=lambda i: -worth[i])
    for better, worse in permutations(order, 2):
        if worth[better] <= worth[worse]:
            continue
        try:
            _different(texts[better], texts[worse])
        except Unusable as reason:
            skipped[str(reason)] += 1
            continue
        examples.append(Pair(prompt, texts[better], texts[worse]))
    if len(set(worth)) == 1:
        raise Unusable("all answers of one rank")
    return examples


def _worth(row: dict[str, Any], n: int) -> list[float]:
    """A number for each answer, higher for a better one."""
    if "ranking" in row:
        ranking = row["ranking"]
        if not isinstance(ranking, list) or any(type(i) is not int for i in ranking):
            raise Unusable("a ranking that is no list of numbers of answers")
        first = min(ranking, default=0)
        if sorted(ranking) != list(range(first, first + n)) or first not in (0, 1):
            raise Unusable("a ranking that does not name each answer once")
        places = {i - first: place for place, i in enumerate(ranking)}
        return [float(-places[i]) for i in range(n)]
    scores = row["scores"]
    numbers = isinstance(scores, list) and all(type(s) in (int, float) for s in scores)
    if not numbers or len(scores) != n or not all(map(_finite, scores)):
        raise Unusable("scores that are not one number for each answer")
    return [float(s) for s in scores]


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _openai(row: dict[str, Any], _: Counter[str]) -> list[Example]:
    asked = row["input"]
    if not isinstance(asked, dict):
        raise Unusable("a prompt of a wrong type")
    return _pair(
        _turns(asked.get("messages")), row["preferred_output"], row["non_preferred_output"]
    )


def _plain_pair(row: dict[str, Any], _: Counter[str]) -> list[Example]:
    chosen, rejected = row["chosen"], row["rejected"]
    key = _prompt_key(row)
    if key is None and isinstance(chosen, str) and isinstance(rejected, str):
        return _common_text(chosen, rejected)
    repeated = key is None or isinstance(row[key], str)
    return _pair(_prompt(row) if key else (), chosen, rejected, repeated=repeated)


def _pair(
    prompt: tuple[Message, ...], chosen: Any, rejected: Any, *, repeated: bool = False
) -> list[Example]:
    sides = [_conversation(prompt, _answer(side), repeated) for side in (chosen, rejected)]
    if sides[0][:-1] != sides[1][:-1]:
        raise Unusable("answers to different conversations")
    better, worse = (side[-1].content for side in sides)
    _different(better, worse)
    return [Pair(_ended(sides[0][:-1]), better, worse)]


def _answer(value: Any) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message("assistant", _text(value)),)
    turns = _turns(value if isinstance(value, list) else [value])
    if not turns or turns[-1].role != "assistant":
        raise Unusable("no answer of an assistant")
    return turns


def _conversation(
    prompt: tuple[Message, ...], answer: tuple[Message, ...], repeated: bool
) -> tuple[Message, ...]:
    # An answer often holds its whole conversation, whose prompt a column of text only repeats.
    if answer[: len(prompt)] == prompt:
        return answer
    if not repeated or len(answer) == 1:
        return prompt + answer
    system = prompt[:1] if prompt[0].role == "system" and answer[0].role != "system" else ()
    return system + answer


def _common_text(chosen: str, rejected: str) -> list[Example]:
    told = [_transcript(text) for text in (chosen, rejected)]
    if all(told):
        return _pair((), *[list(map(_as_dict, turns)) for turns in told])
    # As TRL finds the prompt that both texts begin with: a word is not parted from its space.
    shared = (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b)
    n = next(shared, min(len(chosen), len(rejected)))
    if n and chosen[n - 1 : n] == " ":
        n -= 1
    prompt = chosen[:n].strip()
    if not prompt:
        raise Unusable("no prompt")
    return _pair((Message("user", _text(prompt)),), chosen[n:].strip(), rejected[n:].strip())


def _transcript(text: str) -> list[Message]:
    """The turns of "Human: … Assistant: …"; none for other texts."""
    marks = list(_SPEAKER.finditer(text))
    if not marks or marks[0][1] != "Human" or text[: marks[0].start()].strip():
        return []
    ends = [m.start() for m in marks[1:]] + [len(text)]
    return [
        Message("user" if m[1] == "Human" else "assistant", text[m.end() : end].strip())
        for m, end in zip(marks, ends, strict=True)
    ]


def _as_dict(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _prompt_key(row: dict[str, Any]) -> str | None:
    return next((key for key in _PROMPTS if key in row), None)


def _prompt(row: dict[str, Any]) -> tuple[Message, ...]:
    key = _prompt_key(row)
    if key is None:
        raise Unusable("no prompt")
    value = row[key]
    if isinstance(value, str):
        more = row.get("input", "")
        if key == "instruction" and isinstance(more, str) and more.strip():
            value = f"{value}\n{more}"
        turns: tuple[Message, ...] = (Message("user", _text(value, "no prompt")),)
    else:
        turns = _turns(value)
    system = row.get("system")
    if isinstance(system, str) and system.strip() and turns and turns[0].role != "system":
        turns = (Message("system", _text(system)), *turns)
    return turns


def _ended(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    if not prompt or prompt[-1].role not in ("user", "tool"):
        raise Unusable("no prompt")
    return prompt


def _turns(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise Unusable("a prompt or answer of a wrong type")
    return tuple(map(_turn, value))


def _turn(value: Any) -> Message:
    if not isinstance(value, dict):
        raise Unusable("a turn of a wrong type")
    turn = {key: v for key, v in value.items() if v is not None}
    speaker, text = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if turn.get("tool_calls"):
        raise Unusable("a turn with tool calls")
    if isinstance(text, list):
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in text):
            raise Unusable("a turn with other parts than text")
        text = "".join(part["text"] for part in text)
    role = ROLES.get(speaker.strip().lower()) if isinstance(speaker, str) else None
    if role is None:
        raise Unusable("a turn of an unknown role")
    return Message(role, _text(text))


def _text(value: Any, empty: str = "an empty text") -> str:
    if not isinstance(value, str):
        raise Unusable("a text of a wrong type")
    if not value.strip():
        raise Unusable(empty)
    if _HARMFUL.search(value):
        raise Unusable("a NUL character or half a surrogate pair")
    return value


def _different(one: str, other: str) -> None:
    if one.strip() == other.strip():
        raise Unusable("equal answers")


_PROMPTS = ("prompt", "conversations", "messages", "instruction", "question")
_Reader = Callable[[dict[str, Any], "Counter[str]"], list[Example]]
# In the order in which they are tried.
_FORMATS: tuple[tuple[str, frozenset[str], _Reader], ...] = (
    ("critique and revision", frozenset({"revision"}), _revision),
    ("ranked list", frozenset({"answers", "ranking"}), _ranked),
    ("scored list", frozenset({"answers", "scores"}), _ranked),
    (
        "OpenAI preference",
        frozenset({"input", "preferred_output", "non_preferred_output"}),
        _openai,
    ),
    ("pair", frozenset({"chosen", "rejected"}), _plain_pair),
)
