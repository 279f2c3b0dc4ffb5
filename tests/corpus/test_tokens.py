"""Counts are those of the tokenizers library, whatever the kind of tokenizer and of text."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from epigone.corpus.tokens import TokenCounter, load_tokenizer
from epigone.errors import CorpusError

TEXT = [
    "It's a cold morning in the mountains, and we'll walk 12,345 steps to the river.",
    "def f(x):\n    return [x**2 for x in range(10)]  # comment\n\n\nprint(f(3))",
    "Caf\u00e9 na\u00efve stra\u00dfe \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 \u0417\u0434\u0440",
] * 3
# The patterns that GPT-2, Llama 3 and Qwen 2 cut by, as their tokenizer files state them.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def byte_level(*before: pre_tokenizers.PreTokenizer, regex: bool = False) -> Tokenizer:
    made = Tokenizer(models.BPE())
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    made.pre_tokenizer = pre_tokenizers.Sequence([*before, last])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    return made


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def sentencepiece() -> Tokenizer:
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", *SPECIAL, *bytes_], show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    return made


def wordpiece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["[UNK]"], show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    return made


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    return made


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": lambda: byte_level(regex=True),
    "gpt2 pattern": lambda: byte_level(split(GPT2)),
    "digits": lambda: byte_level(pre_tokenizers.Digits(individual_digits=True), regex=True),
    "llama3": lambda: byte_level(split(LLAMA3)),
    "qwen": lambda: byte_level(split(LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"))),
    "sentencepiece": sentencepiece,
    "wordpiece": wordpiece,
    "unigram": unigram,
}
Both = tuple[TokenCounter, Tokenizer]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Both]:
    found: dict[str, Both] = {}
    for name, make in KINDS.items():
        path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
        tokenizer = make()
        # What a file may ask for and a count must not do.
        tokenizer.enable_truncation(5)
        tokenizer.enable_padding(length=9)
        tokenizer.save(str(path))
        found[name] = (TokenCounter(path), load_tokenizer(path))
    return found


piece = st.one_of(
    st.text(max_size=20),
    st.text("abcI'tsdlve \n\t0123.,", max_size=20),
    st.sampled_from(
        [*SPECIAL, "  \n\n", "\r\n", "'ll", "\u200d", "\x0b\x85", "\u00bd\u2167", "1234"]
    ),
)


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(st.lists(piece, max_size=6).map("".join), max_size=4))
@settings(deadline=None, max_examples=50)
def test_every_count_is_that_of_the_tokenizers_library(
    kind: str, both: dict[str, Both], texts: list[str]
) -> None:
    counter, tokenizer = both[kind]
    expected = [len(tokenizer.encode(t, add_special_tokens=False).ids) for t in texts]
    assert counter(texts) == expected


def test_what_models_use_is_counted_by_the_fast_library(both: dict[str, Both]) -> None:
    slow = {kind for kind, (counter, _) in both.items() if counter._slow is not None}
    assert slow <= {"wordpiece", "unigram"}


def count(path: Path, into: multiprocessing.SimpleQueue[list[int]]) -> None:
    into.put(TokenCounter(path)(["one two three"]))


def test_a_fork_of_a_process_that_has_counted_counts_too(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    byte_level(regex=True).save(str(path))
    here = TokenCounter(path)(["one two three"])
    context = multiprocessing.get_context("fork")
    found: multiprocessing.SimpleQueue[list[int]] = context.SimpleQueue()
    child = context.Process(target=count, args=(path, found))
    child.start()
    child.join(60)
    alive = child.is_alive()
    child.kill()
    assert not alive
    assert found.get() == here


def test_a_file_that_holds_no_tokenizer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(CorpusError, match="no tokenizer can be read"):
        TokenCounter(path)
