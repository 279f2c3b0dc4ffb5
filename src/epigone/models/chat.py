"""One rendering of conversations for training and for asking: chat messages to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from epigone.errors import ModelError
from epigone.schema import Message

# For bases that come without a chat template: plain words, so that no token is new to the base.
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}User: {{ m['content'] }}\n\n"
    "{% elif m['role'] == 'assistant' %}Assistant: {{ m['content'] }}{{ eos_token }}\n\n"
    "{% else %}{{ m['content'] }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A rendered conversation: token ids, and for each whether the loss is taken on it."""

    ids: list[int]
    supervised: list[bool]


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of the conversation so far, up to where the assistant's next turn starts."""
    tokens = _prefix(tokenizer, messages)
    text = _render(tokenizer, messages, generation_prompt=True)
    rest = _after(tokens.rendered, text)
    return tokens.ids + _encode(tokenizer, rest)


def conversation_tokens(tokenizer: Any, messages: Sequence[Message]) -> Tokens:
    """Token ids of a whole conversation; supervised are the assistant's turns and their end.

    The prompt part of every assistant turn has the same ids that `prompt_ids` gives, because
    both tokenise the same pieces apart.

    Raises ModelError where the chat template rewrites earlier turns.
    """
    tokens = _prefix(tokenizer, messages)
    return Tokens(tokens.ids, tokens.supervised)


def stop_ids(tokenizer: Any) -> frozenset[int]:
    """Ids that end an assistant's turn: the tokenizer's end of sequence and the template's own."""
    probe = conversation_tokens(tokenizer, (Message("user", "a"), Message("assistant", "b")))
    last = max(i for i, s in enumerate(probe.supervised) if s)
    found = {probe.ids[last]}
    if tokenizer.eos_token_id is not None:
        found.add(int(tokenizer.eos_token_id))
    return frozenset(found)


def stop_texts(tokenizer: Any) -> tuple[str, ...]:
    """Texts that begin a turn of the user where the template has no token for it.

    A base that was never taught to stop goes on with turns of its own invention, which are no
    part of its answer.
    """
    return ("\nUser:",) if (tokenizer.chat_template or PLAIN_TEMPLATE) == PLAIN_TEMPLATE else ()


@dataclass(slots=True)
class _Rendered:
    ids: list[int]
    supervised: list[bool]
    rendered: str


def _prefix(tokenizer: Any, messages: Sequence[Message]) -> _Rendered:
    # An assistant turn is tokenised apart from what stands before it. Tokenising the whole text
    # and searching for the border would merge tokens across it, and the student would be asked
    # with a prompt that it was never trained on.
    out = _Rendered([], [], "")
    for i, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = _render(tokenizer, messages[:i], generation_prompt=True)
        whole = _render(tokenizer, messages[: i + 1], generation_prompt=False)
        context = _encode(tokenizer, _after(out.rendered, prompt))
        answer = _encode(tokenizer, _after(prompt, whole))
        end = _end_of_turn(tokenizer, answer)
        out.ids += context + answer[:end]
        out.supervised += [False] * len(context) + [True] * end
        out.ids += answer[end:]
        out.supervised += [False] * (len(answer) - end)
        out.rendered = whole
    return out


def _end_of_turn(tokenizer: Any, answer: list[int]) -> int:
    special = set(tokenizer.all_special_ids)
    for i in range(len(answer) - 1, -1, -1):
        if answer[i] in special:
            return i + 1
    # A template without an end mark would give a student that never stops.
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "the chat template ends no assistant turn and the tokenizer has no end token",
            fix="give the tokenizer an eos_token",
        )
    answer.append(int(tokenizer.eos_token_id))
    return len(answer)


def _after(start: str, text: str) -> str:
    if not text.startswith(start):
        raise ModelError(
            "the chat template rewrites earlier turns, so answers cannot be told from prompts",
            value=text[:80],
            fix="use a template whose rendering of a prefix is a prefix",
        )
    return text[len(start) :]


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _render(tokenizer: Any, messages: Sequence[Message], *, generation_prompt: bool) -> str:
    rows = [{"role": m.role, "content": _plain(tokenizer, m.content)} for m in messages]
    try:
        text: str = tokenizer.apply_chat_template(
            rows,
            chat_template=tokenizer.chat_template or PLAIN_TEMPLATE,
            tokenize=False,
            add_generation_prompt=generation_prompt,
        )
    except TemplateError as error:
        raise ModelError("the chat template refuses the conversation", value=str(error)) from error
    return text


def _plain(tokenizer: Any, content: str) -> str:
    # Teacher text is data: "<|im_end|>" inside an answer must not become the token that ends it.
    for token in tokenizer.all_special_tokens:
        if token in content:
            content = content.replace(token, token[0] + "\u200b" + token[1:])
    return content
