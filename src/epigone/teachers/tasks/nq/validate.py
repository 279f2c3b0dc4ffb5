"""What is no short answer of fact: the words with which models say that they have none."""

from __future__ import annotations

import re

_NONE = re.compile(
    r"(?:the |there is )?(?:no |an? )?(?:answer |information )?(?:is |was )?"
    r"(?:unknown|unclear|none|n/?a|no answer|not (?:\w+ )?(?:provided|known|given|available|"
    r"applicable|specified|mentioned|sure)|i (?:do not|don't) know|yes or no)\W*",
    re.IGNORECASE,
)


def check(question: str, answer: str) -> str:
    """What is wrong with a pair, empty where nothing is."""
    return "no answer" if _NONE.fullmatch(answer.strip()) else ""
