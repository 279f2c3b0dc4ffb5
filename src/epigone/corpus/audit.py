"""The account of a corpus: what was read, what each rule changed or dropped, what was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from epigone.corpus.clean import Change, Outcome, shown
from epigone.corpus.rows import Invalid, Row
from epigone.corpus.values import Lost

_EXAMPLES = 20
_LOST = 100


@dataclass(slots=True)
class Effect:
    """What one rule did, or where it is not `on` what it would have done.

    The turns of a dropped conversation count as dropped by the rule that dropped it. A rule that
    splits conversations adds some.
    """

    on: bool = True
    conversations_dropped: int = 0
    conversations_changed: int = 0
    conversations_added: int = 0
    turns_dropped: int = 0
    turns_changed: int = 0
    turns_added: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    def note(self, row_id: str, text: str, **more: str) -> None:
        """Remember an example, as long as there are few."""
        if len(self.examples) < _EXAMPLES:
            self.examples.append({"id": row_id, "text": shown(text), **more})

    def drop(self, row_id: str, turns: int, text: str, **more: str) -> None:
        """Count a dropped conversation of so many turns."""
        self.conversations_dropped += 1
        self.turns_dropped += turns
        self.note(row_id, text, **more)

    def count(self, row_id: str, change: Change) -> None:
        """Count what a rule did to a conversation."""
        self.conversations_dropped += change.dropped
        self.conversations_changed += not change.dropped
        self.turns_dropped += change.turns_dropped
        self.turns_changed += change.turns_changed
        self.note(row_id, change.text, **({"item": change.item} if change.item else {}))

    def add(self, later: Effect) -> None:
        """Add what the rule did further behind."""
        self.conversations_dropped += later.conversations_dropped
        self.conversations_changed += later.conversations_changed
        self.conversations_added += later.conversations_added
        self.turns_dropped += later.turns_dropped
        self.turns_changed += later.turns_changed
        self.turns_added += later.turns_added
        self.examples += later.examples[: _EXAMPLES - len(self.examples)]


@dataclass(slots=True)
class Source:
    """What was read from one file; `rows` and `turns` count whole conversations.

    `values` counts the file's own rows: one may hold several conversations, and several may make
    one.
    """

    name: str
    bytes: int
    format: str = ""
    container: str = ""
    values: int = 0
    rows: int = 0
    turns: int = 0
    last_whole_end: int = 0
    invalid: dict[str, Effect] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)

    def take(self, item: Row | Invalid | Lost, number: int) -> bool:
        """Count the file's item of this number; whether it is a conversation."""
        if isinstance(item, Lost):
            self.lost.append(item)
            return False
        self.last_whole_end = max(self.last_whole_end, item.end)
        if isinstance(item, Invalid):
            self.refuse(item, number)
            return False
        self.values += item.taken
        self.rows += 1
        self.turns += len(item.turns)
        return True

    def add(self, later: Source) -> None:
        """Add what was read further behind in the file."""
        self.values += later.values
        self.rows += later.rows
        self.turns += later.turns
        self.last_whole_end = max(self.last_whole_end, later.last_whole_end)
        for reason, effect in later.invalid.items():
            self.invalid.setdefault(reason, Effect()).add(effect)
        self.lost += later.lost

    def refuse(self, row: Invalid, number: int) -> None:
        """Count a value that is no conversation."""
        effect = self.invalid.setdefault(row.reason, Effect())
        # One value may hold several conversations, of which the first takes it.
        effect.conversations_dropped += max(row.taken, 1)
        effect.note(f"value {number}", row.text)
        self.values += row.taken

    def to_json(self) -> dict[str, Any]:
        """The account of the file, with the sums of what did not come in."""
        return {
            "source": self.name,
            "format": self.format,
            "container": self.container,
            "bytes": self.bytes,
            "values": self.values,
            "read": self.rows,
            "turns": self.turns,
            "last_whole_end": self.last_whole_end,
            "invalid": {
                reason: {"rows": e.conversations_dropped, "examples": e.examples}
                for reason, e in sorted(self.invalid.items())
            },
            "lost_bytes": sum(item.bytes for item in self.lost),
            "lost_rows": sum(item.rows for item in self.lost),
            "lost_stretches": len(self.lost),
            "lost": [{**asdict(item), "text": shown(item.text)} for item in self.lost[:_LOST]],
        }


@dataclass(slots=True)
class Audit:
    """The sources, the rules in the order of their work, and the languages that were heard.

    `skipped` are files of folders that hold no conversations.
    """

    sources: list[Source] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    rules: dict[str, Effect] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    contaminated: list[dict[str, str]] = field(default_factory=list)

    def rule(self, name: str) -> Effect:
        """The account of a rule; asking for it the first time gives it its place."""
        return self.rules.setdefault(name, Effect())

    def outcome(self, row_id: str, outcome: Outcome, rules: Collection[str]) -> None:
        """Count what became of a row under the rules that are on."""
        for change in outcome.changes:
            self.rule(change.rule).count(row_id, change)
            if change.item and change.rule in rules:
                self.contaminated.append({"id": row_id, "item": change.item})
        if outcome.language or outcome.entry:
            self.languages[outcome.language or "unknown"] += 1

    def add(self, later: Audit) -> None:
        """Add what became of rows further behind; their sources are not among it."""
        for name, effect in later.rules.items():
            self.rule(name).add(effect)
        self.languages.update(later.languages)
        self.contaminated += later.contaminated

    def worst(self) -> str:
        """Name of the rule that dropped most conversations, with the number."""
        if not self.sources and self.skipped:
            return f"no file is of a known format, as {self.skipped[0]['file']}"
        on = [item for item in self.rules.items() if item[1].on]
        name, effect = max(on, key=lambda item: item[1].conversations_dropped)
        said = f"{name} dropped most ({effect.conversations_dropped:,})"
        refused = [
            (e.conversations_dropped, f"{reason!r} as {source.format}")
            for source in self.sources
            for reason, e in source.invalid.items()
        ]
        most, why = max(refused, default=(0, ""))
        if most <= effect.conversations_dropped:
            return said
        return f"{most:,} values could not be read: {why}"

    def to_json(self) -> dict[str, Any]:
        """The whole account."""
        return {
            "sources": [source.to_json() for source in self.sources],
            "skipped": self.skipped,
            "rules": {name: asdict(effect) for name, effect in self.rules.items()},
            "languages": dict(sorted(self.languages.items())),
            "contaminated": self.contaminated,
        }
