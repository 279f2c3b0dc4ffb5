"""The account of a corpus: what was read, what each rule changed or dropped, what was lost."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from epigone.corpus.readers import Invalid
from epigone.corpus.rules import Rule, Turns
from epigone.corpus.values import Lost

_EXAMPLES = 5
_SHOWN = 200


@dataclass(slots=True)
class Effect:
    """What one rule did.

    The turns of a dropped conversation count as dropped by the rule that dropped it.
    """

    conversations_dropped: int = 0
    conversations_changed: int = 0
    turns_dropped: int = 0
    turns_changed: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    def note(self, row_id: str, text: str) -> None:
        """Remember an example, as long as there are few."""
        if len(self.examples) < _EXAMPLES:
            self.examples.append({"id": row_id, "text": text[:_SHOWN]})

    def drop(self, row_id: str, turns: int, text: str) -> None:
        """Count a dropped conversation of so many turns."""
        self.conversations_dropped += 1
        self.turns_dropped += turns
        self.note(row_id, text)


@dataclass(slots=True)
class Source:
    """What was read from one file; `rows` and `turns` count whole conversations."""

    name: str
    bytes: int
    rows: int = 0
    turns: int = 0
    last_whole_end: int = 0
    invalid: dict[str, Effect] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)

    def refuse(self, row: Invalid, number: int) -> None:
        """Count a value that is no conversation."""
        effect = self.invalid.setdefault(row.reason, Effect())
        effect.conversations_dropped += 1
        effect.note(f"value {number}", row.text)

    def to_json(self) -> dict[str, Any]:
        """The account of the file, with the sums of what did not come in."""
        return {
            "source": self.name,
            "bytes": self.bytes,
            "read": self.rows,
            "turns": self.turns,
            "last_whole_end": self.last_whole_end,
            "invalid": {
                reason: {"rows": e.conversations_dropped, "examples": e.examples}
                for reason, e in sorted(self.invalid.items())
            },
            "lost_bytes": sum(item.bytes for item in self.lost),
            "lost": [asdict(item) for item in self.lost],
        }


@dataclass(slots=True)
class Audit:
    """The sources, the rules in the order of their work, and the languages that were dropped."""

    sources: list[Source] = field(default_factory=list)
    rules: dict[str, Effect] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)

    def rule(self, name: str) -> Effect:
        """The account of a rule; asking for it the first time gives it its place."""
        return self.rules.setdefault(name, Effect())

    def apply(self, rule: Rule, row_id: str, turns: Turns) -> Turns:
        """Apply a rule to a conversation and count what it did; nothing left means dropped."""
        effect = self.rule(rule.__name__)
        left = rule(turns)
        if not left:
            effect.drop(row_id, len(turns), turns[0].content if turns else "")
            return left
        if len(left) != len(turns) or not all(map(operator.is_, left, turns)):
            before, after = {id(turn) for turn in turns}, {id(turn) for turn in left}
            effect.conversations_changed += 1
            effect.turns_changed += len(after - before)
            effect.turns_dropped += len(turns) - len(left)
            effect.note(row_id, next(t.content for t in turns if id(t) not in after)[-_SHOWN:])
        return left

    def worst(self) -> str:
        """Name of the rule that dropped most conversations, with the number."""
        name, effect = max(self.rules.items(), key=lambda item: item[1].conversations_dropped)
        return f"{name} dropped most ({effect.conversations_dropped})"

    def to_json(self) -> dict[str, Any]:
        """The whole account."""
        return {
            "sources": [source.to_json() for source in self.sources],
            "rules": {name: asdict(effect) for name, effect in self.rules.items()},
            "languages_dropped": dict(sorted(self.languages.items())),
        }
