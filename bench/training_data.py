"""What the arms of bench/training.py learn from: rows of tokens, conversations, random models."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from epigone import api
from epigone.files import write_jsonl
from epigone.models.chat import PLAIN_TEMPLATE, conversation_tokens
from epigone.schema import Conversation
from epigone.study import train_file
from epigone.study.amounts import segments

ROWS, SHORTEST, LONGEST = 4, 200, 512
SOURCE = "sharegpt-v3-part"

# Shapes of published models: vocabulary, width, inner width, layers, heads, heads of keys.
RANDOM = {
    "random-135m": (49152, 576, 1536, 30, 9, 3),
    "random-360m": (49152, 960, 2560, 32, 15, 5),
    "random-1.7b": (49152, 2048, 8192, 24, 32, 32),
    "random-7b": (32000, 4096, 14336, 32, 32, 8),
}

# The answer and the token that ends it, marked for TRL's assistant_only_loss. The text is the same.
_CHATML = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
_CHATML_MARKED = (
    "{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}"
)
_PLAIN = "Assistant: {{ m['content'] }}{{ eos_token }}\n\n"
# As text, the first line break after a block would be trimmed.
_PLAIN_MARKED = (
    "Assistant:{% generation %} {{ m['content'] }}{{ eos_token }}{% endgeneration %}{{ '\n\n' }}"
)


def corpus(folder: Path) -> Path:
    """A clean corpus, built where there is none yet."""
    if not (folder / train_file.NAME).is_file():
        api.build_corpus([SOURCE], folder, teacher="chatgpt")
    return folder


def marked(tokenizer: Any) -> str:
    """The chat template with generation markers; raises SystemExit for one of another kind."""
    whole = tokenizer.chat_template or PLAIN_TEMPLATE
    found = whole.replace(_CHATML, _CHATML_MARKED).replace(_PLAIN, _PLAIN_MARKED)
    probe = [{"role": role, "content": role} for role in ("user", "assistant") * 2]
    texts = {
        tokenizer.apply_chat_template(probe, chat_template=template, tokenize=False)
        for template in (whole, found)
    }
    if found == whole or len(texts) > 1:
        raise SystemExit("the model's chat template is not one that this bench can mark")
    return str(found)


def steady_rows(folder: Path, tokenizer: Any, steps: int) -> list[list[dict[str, Any]]]:
    """Rows of conversations of 200 to 512 tokens, about half of them supervised, four a step.

    Within a step they fall in length, which is the order that our loop would give them.
    """
    found = []
    for conversation, _ in train_file.read(folder / train_file.NAME):
        if _too_long(conversation, LONGEST):
            continue
        tokens = conversation_tokens(tokenizer, conversation.messages)
        mask = [int(s) for s in tokens.supervised]
        end = len(mask) - mask[::-1].index(1)
        if SHORTEST <= end <= LONGEST and 0.35 <= sum(mask[:end]) / end <= 0.65:
            found.append({"ids": tokens.ids[:end], "mask": [0, *mask[1:end]]})
        if len(found) == ROWS * steps:
            return _steps(found)
    raise SystemExit(f"the corpus has only {len(found)} such rows")


def _too_long(conversation: Conversation, tokens: int) -> bool:
    # Most are, and by far; tokenising them all would take a minute.
    return sum(len(m.content) for m in conversation.messages) > 8 * tokens


def random_rows(vocabulary: int, steps: int) -> list[list[dict[str, Any]]]:
    """Rows of random tokens of the same lengths and shares, for models of random weights."""
    rng, found = random.Random(0), []
    for _ in range(ROWS * steps):
        width = rng.randint(SHORTEST, LONGEST)
        start = rng.randint(int(0.4 * width), int(0.6 * width))
        ids = [rng.randrange(3, vocabulary) for _ in range(width)]
        found.append({"ids": ids, "mask": [int(i >= start) for i in range(width)]})
    return _steps(found)


def _steps(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    groups = [rows[i : i + ROWS] for i in range(0, len(rows), ROWS)]
    return [sorted(group, key=lambda r: -len(r["ids"])) for group in groups]


def fitting(folder: Path, tokenizer: Any, block: int, most: int, out: Path) -> Path:
    """A corpus folder of the first conversations that fit into a block, up to `most` tokens.

    TRL cuts off what is longer than a block, and we do not: with these, both see the same.
    """

    def rows() -> Iterator[tuple[Conversation, list[int], str]]:
        left = most
        for conversation, counts in train_file.read(folder / train_file.NAME):
            if _too_long(conversation, block):
                continue
            # A few to spare: TRL tokenises across the borders of turns.
            if len(conversation_tokens(tokenizer, conversation.messages).ids) > block - 8:
                continue
            yield replace(conversation, tokens=sum(counts)), counts, "en"
            left -= sum(counts)
            if left < 0:
                return

    out.mkdir(parents=True, exist_ok=True)
    train_file.write(out / train_file.NAME, rows())
    return out


def prefix(folder: Path, amount: int, out: Path) -> Path:
    """The conversations of an amount, as the rows of messages that TRL's users have."""
    (part,) = segments(folder / train_file.NAME, [amount])
    write_jsonl(
        out,
        ({"messages": [{"role": m.role, "content": m.content} for m in c.messages]} for c in part),
    )
    return out


def random_model(name: str, layers: int | None, out: Path) -> Path:
    """A folder of a Llama of random weights in a published shape, with a tokenizer of its own."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary, width, inner, full, heads, kv = RANDOM[name]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers or full,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        tie_word_embeddings=name != "random-7b",
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(out)
    words = {"<unk>": 0, "<s>": 1, "</s>": 2}
    inner_tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=inner_tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        pad_token="</s>",
    ).save_pretrained(out)  # fmt: skip
    return out


def scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="epigone-bench-")


def write_rows(rows: list[list[dict[str, Any]]], out: Path) -> Path:
    out.write_text(json.dumps(rows))
    return out
