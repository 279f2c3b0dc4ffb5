from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from epigone.errors import UserError
from epigone.models.chat import conversation_tokens, prompt_ids, stop_ids
from epigone.schema import Message
from epigone.study.templates import CHATML, template_text

TALK = (
    Message("system", "Be kind."),
    Message("user", "Why?"),
    Message("assistant", "Because."),
    Message("user", "And?"),
    Message("assistant", "So."),
)
SHOWN = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def rendered(tiny_base: Path, **special: Any) -> str:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.add_special_tokens(special)
    rows = [{"role": m.role, "content": m.content} for m in TALK]
    text = tokenizer.apply_chat_template(rows, chat_template=CHATML, tokenize=False)
    assert isinstance(text, str)
    return text


# ChatML as its authors wrote it down, for a model whose tokens these are.
REFERENCE = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in TALK)


def test_chatml_is_chatml_where_the_base_has_its_tokens(tiny_base: Path) -> None:
    assert rendered(tiny_base, eos_token="<|im_end|>") == REFERENCE
    both = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    assert rendered(tiny_base, **both) == REFERENCE


def test_other_bases_end_turns_with_their_own_token_and_begin_once(tiny_base: Path) -> None:
    own = REFERENCE.replace("<|im_end|>", "<eos>")
    assert rendered(tiny_base) == own
    assert rendered(tiny_base, bos_token="<s>") == "<s>" + own


def test_a_student_of_chatml_learns_to_stop(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = CHATML
    whole = conversation_tokens(tokenizer, TALK)
    kept = [i for i, s in zip(whole.ids, whole.supervised, strict=True) if s]
    assert tokenizer.decode(kept).replace(" ", "") == "Because.<eos>So.<eos>"
    assert stop_ids(tokenizer) == {tokenizer.eos_token_id}
    asked = prompt_ids(tokenizer, TALK[:2])
    assert whole.ids[: len(asked)] == asked


@pytest.mark.parametrize(
    "text",
    [
        SHOWN,
        "{% for m in messages %}{% generation %}{{ m.content }}{%- endgeneration -%}{% endfor %}",
        "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m }}{% endfor %}",
    ],
)
def test_a_file_is_taken_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "own.jinja").write_text(text)
    assert template_text("own.jinja", tmp_path) == text
    assert template_text(str(tmp_path / "own.jinja"), Path("/")) == text


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("chatmll", None, "unknown chat template: chatmll (did you mean 'chatml'?)"),
        ("x.txt", b"", "unknown chat template"),
        ("gone.jinja", None, "cannot be read (No such file or directory): gone.jinja"),
        ("a\0b.jinja", None, "cannot be read"),
        ("~nobody-here/x.jinja", None, "cannot be read"),
        ("bad.jinja", b"{% for m in messages %}", "not a Jinja template"),
        ("bad.jinja", b"hello", "shows no messages"),
        ("bad.jinja", b"\xff", "not UTF-8"),
        ("bad.jinja", b"{{ messages }}" * 100_000, "too large"),
        ("bad.jinja", b"{{" + b"(" * 100_000 + b"messages", "not a Jinja template"),
    ],
)
def test_what_is_no_template_is_one_line(
    tmp_path: Path, name: str, content: bytes | None, what: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        template_text(name, tmp_path)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_template(tmp_path: Path) -> None:
    (tmp_path / "x.jinja").mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        template_text("x.jinja", tmp_path)


@given(st.text(max_size=60))
def test_any_text_is_a_template_or_one_line(text: str) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "t.jinja").write_bytes(text.encode("utf-8", "surrogatepass"))
        told = ""
        try:
            template_text("t.jinja", Path(folder))
        except UserError as error:
            told = str(error)
        assert told.isprintable()
