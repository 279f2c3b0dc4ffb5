"""One rendering of conversations for training and for asking: chat messages to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from epigone.errors import ModelError
from epigone.models import newlines
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

    ids: Sequence[int]
    supervised: Sequence[int]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One assistant turn for an encoder-decoder: the encoder's ids, and the decoder's targets.

    `target` ends with the id that ends the turn. The decoder's input is the model's
    decoder_start_token_id and `target` without its last id.
    """

    source: list[int]
    target: list[int]


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


def source_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The encoder's ids of the conversation so far, as `prompt_ids` for decoders.

    The tokenizer's own special tokens stand around it once, as T5's end token does in all its
    training. Line breaks that the tokenizer would lose are kept (see `newlines.mark`); other white
    space is what the tokenizer makes of it, in T5's one space.
    """
    mark = newlines.mark(tokenizer)
    text = _render(tokenizer, messages, generation_prompt=True)
    return _within_ends(tokenizer, _encode(tokenizer, text.replace("\n", mark or "\n")))


def exchanges(tokenizer: Any, messages: Sequence[Message]) -> list[Exchange]:
    """Every assistant turn of a conversation, for training an encoder-decoder.

    Each source is what `source_ids` gives for the messages before the turn. Characters that the
    vocabulary lacks, in T5's for instance braces, become its unknown token in both. Raises
    ModelError where the chat template does not write the turn behind its prompt.
    """
    mark, newline = newlines.mark(tokenizer), newlines.mark_id(tokenizer)
    found = []
    for i, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = _render(tokenizer, messages[:i], generation_prompt=True)
        whole = _render(tokenizer, messages[: i + 1], generation_prompt=False)
        answer = _encode(tokenizer, _after(prompt, whole).replace("\n", mark or "\n"))
        end = _end_of_turn(tokenizer, answer, newline)
        source = _encode(tokenizer, prompt.replace("\n", mark or "\n"))
        found.append(Exchange(_within_ends(tokenizer, source), answer[:end]))
    return found


def _within_ends(tokenizer: Any, ids: list[int]) -> list[int]:
    bare, whole = _encode(tokenizer, "a"), list(tokenizer("a")["input_ids"])
    at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
    first, last = whole[:at], whole[at + len(bare) :]
    # A chat template may have written them already.
    first = first if ids[: len(first)] != first else []
    last = last if ids[len(ids) - len(last) :] != last else []
    return first + ids + last


def end_id(tokenizer: Any) -> int:
    """Id of the token that ends a text. Raises ModelError where there is none."""
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "the tokenizer has no end token", value=tokenizer.name_or_path,
            fix="give the tokenizer an eos_token",
        )  # fmt: skip
    return int(tokenizer.eos_token_id)


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


def _end_of_turn(tokenizer: Any, answer: list[int], newline: int | None = None) -> int:
    # An unknown character and a line break end nothing; GPT-2's unknown token is its end token.
    no_end = {tokenizer.unk_token_id, newline} - {tokenizer.eos_token_id}
    special = set(tokenizer.all_special_ids) - no_end
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
    rows = [{"role": m.role, "content": plain(tokenizer, m.content)} for m in messages]
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


def plain(tokenizer: Any, content: str) -> str:
    """Text in which nothing is one of the tokenizer's special tokens any more."""
    # Teacher text is data: "<|im_end|>" inside an answer must not become the token that ends it.
    special = tokenizer.all_special_tokens
    content = _broken(special, content, "\u200b")
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    if normalizer is None:
        return content
    # T5's tokenizer makes "</s>" of its full-width form, and then a Unigram model finds the end
    # token among its pieces.
    normal = "\n".join(normalizer.normalize_str(line) for line in content.split("\n"))
    hidden = any(token in normal for token in special)
    return _broken(special, normal, " ") if hidden else content


def _broken(special: Sequence[str], content: str, separator: str) -> str:
    for token in special:
        if token in content:
            content = content.replace(token, token[0] + separator + token[1:])
    return content
