"""How the fake endpoint judges answers: the longer one is better, by shares it is biased or odd."""

from __future__ import annotations

import hashlib
import json
import re

MARKS = {"rank": ("conversation", "answer", "answer"), "critique": ("principles", "conversation",
         "answer"), "revise": ("conversation", "answer", "critique")}  # fmt: skip
NO_FAULT, AGAIN, UNREADABLE = "**No fault.**", "It claims too much, ", "Both have their merits."


def draw(*told: object) -> float:
    """A number from 0 to 1 that depends on what is told alone."""
    return int(hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8], 16) / 16**8


def ranked(first: str, second: str, shares: dict[str, float], came: int) -> str:
    """What is said of two answers in this order, asked for the `came`th time."""
    if draw("unreadable", first, second, came) < shares.get("unreadable", 0):
        return UNREADABLE
    of_both = draw(*sorted((first, second)))
    if of_both < shares.get("biased", 0):
        return "The first reads better.\n\nBetter: 1"
    if of_both < shares.get("biased", 0) + shares.get("tied", 0):
        return "Both say the same.\nBetter: 0."
    if len(first) == len(second):
        return "They are alike.\nbetter: 0"
    return f"Length decides.\n**Better: {1 if len(first) > len(second) else 2}**"


def criticised(answer: str, shares: dict[str, float]) -> str:
    """What is wrong with an answer."""
    return NO_FAULT if draw("fault", answer) < shares.get("faultless", 0) else AGAIN + answer[:9]


def revised(answer: str, shares: dict[str, float]) -> str:
    """An answer anew."""
    return answer if draw("same", answer) < shares.get("same", 0) else f"Revised. {answer}"


def judged(text: str, shares: dict[str, float], came: int) -> str | None:
    """What is said to a request for a judgement; None where its marks are not as they should be."""
    kind = "rank" if text.startswith("Two answers") else "critique"
    kind = "revise" if "and a critique of it" in text else kind
    parts: dict[str, list[str]] = {}
    for name in ("principles", "conversation", "answer", "critique"):
        opened = re.findall(rf"<{name}\b", text)
        parts[name] = re.findall(rf"^<{name}\b[^>]*>\n(.*?)\n</{name}>$", text, re.M | re.S)
        found = {len(opened), len(parts[name]), len(re.findall(rf"<[^\w<>]*{name}\b", text)) // 2}
        if found != {MARKS[kind].count(name)}:
            return None
    answers = parts["answer"]
    if kind == "rank":
        return ranked(answers[0], answers[1], shares, came)
    if kind == "critique":
        return criticised(answers[0], shares)
    assert parts["critique"][0].startswith(AGAIN)
    return revised(answers[0], shares)
