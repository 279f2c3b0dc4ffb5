"""The formats in which one value of a file is one or several conversations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from epigone.corpus.rows import Invalid, Row, invalid, row
from epigone.schema import Message, Role

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "system": "system",
    "developer": "system",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
}
_OTHER_TEACHERS = ("bing", "bard")
LISTS = ("conversations", "items", "messages")
# Names of columns with a prompt and with the reply to it, in the order in which they are sought.
PROMPTS = ("prompt", "question", "query", "instruction", "input", "user", "human", "request")
REPLIES = ("response", "answer", "completion", "output", "reply", "assistant", "chatgpt", "gpt")
OTHER_COLUMNS = (
    *("id", "model", "system", "tools", "chosen", "history", "source"),
    *("chatgpt_answers", "human_answers"),
    *("date", "timestamp", "created_at", "create_time", "created", "time"),
)


def is_sharegpt(value: Any) -> bool:
    """Whether a value has turns in `conversations` or `items`."""
    return isinstance(value, dict) and any(isinstance(value.get(key), list) for key in LISTS[:2])


def is_openai(value: Any) -> bool:
    """Whether a value has turns in `messages`."""
    return isinstance(value, dict) and isinstance(value.get("messages"), list)


def is_hc3(value: Any) -> bool:
    """Whether a value is a question of HC3 with its answers."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("question"), str)
        and isinstance(value.get("chatgpt_answers"), list)
    )


def is_alpaca(value: Any) -> bool:
    """Whether a value has an instruction and an output."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("instruction"), str)
        and "output" in value
        and isinstance(value.get("input", ""), str | None)
    )


def is_pair(value: Any) -> bool:
    """Whether a value has a prompt and a reply under names that are used for such."""
    return isinstance(value, dict) and _pair(value) is not None


def dialogue(value: Any, end: int) -> Iterator[Row | Invalid]:
    """ShareGPT and OpenAI chat: a list of turns, each with `from`/`value` or `role`/`content`.

    A `tools` text becomes part of the system turn. The `chosen` reply of a preference pair ends
    the conversation.
    """
    yield _made(value, end, _dialogue)


def alpaca(value: Any, end: int) -> Iterator[Row | Invalid]:
    """Alpaca: `instruction`, `input`, `output`, and perhaps `system` and `history`."""
    yield _made(value, end, _alpaca)


def pair(value: Any, end: int) -> Iterator[Row | Invalid]:
    """One prompt and one reply, and perhaps a `system` text."""
    yield _made(value, end, _one_pair)


def hc3(value: Any, end: int) -> Iterator[Row | Invalid]:
    """HC3: every answer of ChatGPT to a question; the answers of people are left out."""
    if not is_hc3(value):
        yield invalid("no question with ChatGPT answers", value, end)
        return
    if not value["chatgpt_answers"]:
        yield invalid("question without a ChatGPT answer", value, end)
    for i, answer in enumerate(value["chatgpt_answers"]):
        taken = int(i == 0)
        if not isinstance(answer, str):
            yield invalid("answer is not a text", value, end, taken)
            continue
        turns = (Message("user", value["question"]), Message("assistant", answer))
        made = row(turns, value, end, teacher="chatgpt", taken=taken)
        yield made if isinstance(made, Row) else invalid(made, value, end, taken)


def _made(value: Any, end: int, turns: Any) -> Row | Invalid:
    if not isinstance(value, dict):
        return invalid("not an object", value, end)
    found = turns(value)
    if isinstance(found, str):
        return invalid(found, value, end)
    messages, teacher = found
    made = row(messages, value, end, teacher=teacher)
    return made if isinstance(made, Row) else invalid(made, value, end)


Made = tuple[list[Message], str] | str


def _dialogue(value: dict[str, Any]) -> Made:
    turns = next((value[key] for key in LISTS if isinstance(value.get(key), list)), None)
    if turns is None:
        return "no list of turns"
    if isinstance(value.get("chosen"), dict):
        turns = [*turns, value["chosen"]]
    messages: list[Message] = []
    teacher = ""
    for turn in turns:
        if not isinstance(turn, dict):
            return "turn is not an object"
        speaker = turn.get("from", turn.get("role"))
        text = _text(turn)
        if not isinstance(speaker, str) or text is None:
            return "turn without a role or a text"
        speaker = speaker.strip().lower()
        role = ROLES.get(speaker)
        if role is None:
            return "unknown role"
        if speaker in _OTHER_TEACHERS:
            teacher = teacher or speaker
        messages.append(Message(role, text))
    tools = value.get("tools")
    if tools and messages:
        listed = tools if isinstance(tools, str) else _json(tools)
        first = messages[0]
        if first.role == "system":
            messages[0] = Message("system", f"{first.content}\n\n{listed}")
        else:
            messages.insert(0, Message("system", listed))
    return messages, teacher


def _text(turn: dict[str, Any]) -> str | None:
    """What a turn says: its text or the texts of its parts, and the calls that it makes."""
    text = turn.get("value", turn.get("content"))
    if isinstance(text, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in text]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) < len(parts):
            return None
        text = "\n".join(texts)
    calls = turn.get("tool_calls") or turn.get("function_call")
    if calls:
        return f"{text}\n{_json(calls)}" if isinstance(text, str) and text else _json(calls)
    return text if isinstance(text, str) else None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _alpaca(value: dict[str, Any]) -> Made:
    instruction, more, output = (value.get(key) for key in ("instruction", "input", "output"))
    if not isinstance(instruction, str) or not isinstance(output, str):
        return "no instruction or no output"
    if more is not None and not isinstance(more, str):
        return "input is not a text"
    messages = _system(value)
    history = value.get("history") or []
    if not isinstance(history, list | tuple):
        return "history is not a list of pairs"
    for exchange in history:
        if not isinstance(exchange, list | tuple) or len(exchange) != 2:
            return "history is not a list of pairs"
        if not all(isinstance(text, str) for text in exchange):
            return "history is not a list of pairs"
        messages += [Message("user", exchange[0]), Message("assistant", exchange[1])]
    prompt = f"{instruction}\n{more}" if more and instruction else instruction or more or ""
    return [*messages, Message("user", prompt), Message("assistant", output)], ""


def _one_pair(value: dict[str, Any]) -> Made:
    found = _pair(value)
    if found is None:
        return "no prompt or no reply"
    prompt, reply = value[found[0]], value[found[1]]
    if not isinstance(prompt, str) or not isinstance(reply, str):
        return "prompt or reply is not a text"
    return [*_system(value), Message("user", prompt), Message("assistant", reply)], ""


def _system(value: dict[str, Any]) -> list[Message]:
    system = value.get("system")
    return [Message("system", system)] if isinstance(system, str) and system.strip() else []


def _pair(value: dict[str, Any]) -> tuple[str, str] | None:
    """The names under which a value has its prompt and its reply, whatever their case."""
    names = {str(key).strip().lower(): key for key in value}
    prompt = next((names[name] for name in PROMPTS if name in names), None)
    reply = next((names[name] for name in REPLIES if name in names), None)
    return None if prompt is None or reply is None else (prompt, reply)
