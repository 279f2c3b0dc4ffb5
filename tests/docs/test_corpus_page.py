"""The commands of docs/corpus.md run in order, on files of every kind that the page speaks of."""

from __future__ import annotations

import json
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/corpus.md").read_text()
TEXT = "harvest river mountain village window letter engine garden market bridge signal painter"
WORDS = TEXT.split()


def ask(rng: random.Random) -> str:
    return f"Please tell me about the {' and the '.join(rng.choices(WORDS, k=7))}."


def answer(rng: random.Random) -> str:
    return f"It is known that the {' near the '.join(rng.choices(WORDS, k=5))} can be seen."


def fixtures(folder: Path) -> None:
    rng = random.Random(0)
    chats, shared, questions = [], [], []
    for i in range(160):
        roles = ("user", "assistant")
        turns = [{"role": r, "content": f(rng)} for r, f in zip(roles, (ask, answer), strict=True)]
        chats.append({"messages": turns, "created": 1_700_000_000 + i})
        said = [{"from": "human", "value": ask(rng)}, {"from": "gpt", "value": answer(rng)}]
        shared.append({"id": f"abcd{i:03}_0", "conversations": said})
        questions.append({"question": ask(rng), "human_answers": ["Yes."],
                          "chatgpt_answers": [answer(rng)], "source": "open_qa"})  # fmt: skip
    (folder / "logs").mkdir()
    (folder / "exports").mkdir()
    (folder / "logs/day.jsonl").write_text("\n".join(map(json.dumps, chats)))
    (folder / "sg.json").write_text(json.dumps(shared))
    (folder / "hc3.jsonl").write_text("\n".join(map(json.dumps, questions)))
    messages: list[dict[str, Any]] = []
    for i in range(120):
        bot = i % 2 == 1
        messages.append({
            "id": str(i), "type": "Default", "timestamp": "2023-05-01T10:00:00+00:00",
            "content": answer(rng) if bot else ask(rng),
            "author": {"id": str(bot), "name": "Bot" if bot else "Ann", "isBot": bot},
        })  # fmt: skip
    root = {"guild": {"id": "1"}, "channel": {"id": "2"}, "messages": messages, "messageCount": 120}
    (folder / "exports/ask.json").write_text(json.dumps(root))


@pytest.mark.slow
def test_the_page_on_corpora_runs(
    cli: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    adds_up: Callable[[Path], None],
) -> None:
    fixtures(tmp_path)
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line, comments=True) for b in blocks for line in b.splitlines()]
    assert len(commands) >= 4
    for words in commands:
        assert words[0] == "epigone"
        done = cli(*words[1:], cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
    for name in ("corpus", "mix"):
        adds_up(tmp_path / name)
    record = json.loads((tmp_path / "mix/record.json").read_text())
    formats = set(record["facts"]["formats"].values())
    assert formats == {"sharegpt, JSON array", "hc3, JSON lines", "discord, JSON array"}
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(len(rows), sorted(rows.column_names))"],
        cwd=tmp_path, capture_output=True, text=True, env={"HF_HOME": str(tmp_path / "hf")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "messages" in done.stdout


def test_the_page_names_every_rule_and_format() -> None:
    from epigone.study.specs import FORMATS, RULES

    for name in (*RULES, *FORMATS):
        assert f"`{name}`" in PAGE, name
