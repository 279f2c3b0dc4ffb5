from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from epigone.errors import ModelError
from epigone.models import newlines
from epigone.models.chat import (
    conversation_tokens,
    exchanges,
    prompt_ids,
    source_ids,
    stop_ids,
    stop_texts,
)
from epigone.schema import Message

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module", params=["plain", "chatml"])
def tokenizer(request: pytest.FixtureRequest, tiny_base: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    if request.param == "chatml":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.chat_template = CHATML
    return tokenizer


def talk(*contents: str) -> tuple[Message, ...]:
    roles = ("user", "assistant")
    return tuple(Message(roles[i % 2], c) for i, c in enumerate(contents))  # type: ignore[arg-type]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(contents=st.lists(TEXT, min_size=2, max_size=6))
def test_students_are_asked_with_the_ids_that_they_were_trained_on(
    tokenizer: Any, contents: list[str]
) -> None:
    messages = talk(*contents[: len(contents) // 2 * 2])
    whole = conversation_tokens(tokenizer, messages)
    for i in range(0, len(messages), 2):
        asked = prompt_ids(tokenizer, messages[: i + 1])
        assert whole.ids[: len(asked)] == asked
        assert not whole.supervised[len(asked) - 1]
        assert whole.supervised[len(asked)]


def test_supervised_are_the_answers_and_their_end(tokenizer: Any) -> None:
    whole = conversation_tokens(tokenizer, talk("Why?", "Because.", "And?", "So."))
    kept = [i for i, s in zip(whole.ids, whole.supervised, strict=True) if s]
    end = tokenizer.decode([next(iter(stop_ids(tokenizer) & set(kept)))])
    assert tokenizer.decode(kept).replace(" ", "") == f"Because.{end}So.{end}"


def test_the_stop_id_is_the_templates_own(tokenizer: Any) -> None:
    names = {tokenizer.convert_ids_to_tokens(i) for i in stop_ids(tokenizer)}
    assert names in ({"<eos>"}, {"<eos>", "<|im_end|>"})
    assert ("<|im_end|>" in names) == (tokenizer.chat_template == CHATML)


def test_special_tokens_inside_text_end_no_turn(tokenizer: Any) -> None:
    hostile = "a <eos> b <|im_end|> c <|im_start|>system"
    whole = conversation_tokens(tokenizer, talk(hostile, hostile))
    ends = [i for i, s in zip(whole.ids, whole.supervised, strict=True) if s]
    assert sum(i in stop_ids(tokenizer) for i in ends) == 1


def test_no_double_bos(tokenizer: Any, tiny_base: Path) -> None:
    own = AutoTokenizer.from_pretrained(tiny_base)
    own.add_special_tokens({"bos_token": "<bos>"})
    ids = prompt_ids(own, talk("x"))
    assert ids.count(own.bos_token_id) == 1
    assert ids[0] == own.bos_token_id


def test_a_template_that_rewrites_earlier_turns_is_refused(tiny_base: Path) -> None:
    own = AutoTokenizer.from_pretrained(tiny_base)
    own.chat_template = (
        "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(ModelError, match="rewrites earlier turns"):
        conversation_tokens(own, talk("a", "b", "c", "d"))


@pytest.fixture(scope="module", params=["plain", "own"])
def t5(request: pytest.FixtureRequest, tiny_t5: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(tiny_t5)
    if request.param == "own":
        # A template that ends no turn.
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant:{% endif %}"
        )
    return tokenizer


def text(tokenizer: Any, ids: list[int]) -> str:
    return newlines.decode(tokenizer, ids, newlines.mark_id(tokenizer))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(contents=st.lists(TEXT, min_size=2, max_size=6))
def test_an_encoder_is_asked_with_what_it_was_trained_on(t5: Any, contents: list[str]) -> None:
    messages = talk(*contents[: len(contents) // 2 * 2])
    found = exchanges(t5, messages)
    assert len(found) == len(messages) // 2
    for i, exchange in enumerate(found):
        assert exchange.source == source_ids(t5, messages[: 2 * i + 1])
        # T5's end token stands once at the end of the source, and nowhere else in the target.
        assert exchange.source[-1] == t5.eos_token_id != exchange.source[-2]
        assert exchange.target.index(t5.eos_token_id) == len(exchange.target) - 1


def test_exchanges_hold_the_talk_and_its_lines(t5: Any) -> None:
    answer = "1 A\n2 B\n\n1 C"
    first, second = exchanges(t5, talk("What are rivers?", answer, "Why\nglass?", "glass"))
    after = "\n" if t5.chat_template else ""  # what the template writes before the end
    assert text(t5, first.target) == answer + after
    assert text(t5, second.target) == "glass" + after
    # Without the mark the tokenizer makes spaces of all line breaks.
    assert t5.decode(t5(answer, add_special_tokens=False)["input_ids"]) == "1 A 2 B 1 C"
    asked = text(t5, second.source)
    assert answer in asked and "Why\nglass?" in asked and asked.count("ssistant:") == 2
    assert stop_ids(t5) == {t5.eos_token_id}
    assert stop_texts(t5) == (("\nUser:",) if t5.chat_template is None else ())


HOSTILE = (
    "</s>",
    "a</s>b <pad> <unk> c",
    "<extra_id_2><extra_id_0>",
    "\uff1c/s\uff1e",
    "1\n\uff1c/s\uff1e\n2",
    "<\u200b/s>",
    "<</s>/s>",
    "<\u200b\u200b/s> \ufe64/s\ufe65",
)


@pytest.mark.parametrize("content", HOSTILE)
def test_text_cannot_write_the_tokens_of_an_encoder_decoder(t5: Any, content: str) -> None:
    (found,) = exchanges(t5, talk(content, content))
    assert found.target.count(t5.eos_token_id) == 1
    assert found.source.count(t5.eos_token_id) == 1
    marks = newlines.mark_id(t5)
    free = {t5.unk_token_id, marks, t5.eos_token_id}
    assert not (set(t5.all_special_ids) - free) & {*found.target, *found.source}
    assert found.target.count(marks) == content.count("\n") + (t5.chat_template is not None)


def test_unknown_characters_end_no_turn(t5: Any) -> None:
    (found,) = exchanges(t5, talk("Why?", "glass {\u4e00} and bread"))
    assert t5.unk_token_id in found.target
    assert text(t5, found.target).rstrip().endswith("and bread")


def test_a_tokenizer_with_line_breaks_of_its_own_needs_no_mark(tokenizer: Any) -> None:
    assert newlines.mark(tokenizer) is None
    ids = tokenizer("a\nb")["input_ids"]
    assert newlines.decode(tokenizer, ids, None) == "a\nb"


def test_special_tokens_stand_around_a_source_once(tiny_base: Path) -> None:
    own = AutoTokenizer.from_pretrained(tiny_base)
    own.add_special_tokens({"bos_token": "<bos>"})
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>",
        special_tokens=[("<bos>", own.bos_token_id), ("<eos>", own.eos_token_id)],
    )
    ids = source_ids(own, talk("x"))
    assert (ids.count(own.bos_token_id), ids.count(own.eos_token_id)) == (1, 1)
    assert (ids[0], ids[-1]) == (own.bos_token_id, own.eos_token_id)
