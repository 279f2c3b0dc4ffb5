"""What the example browser shows: a choice of examples, their scores, and what filters find."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from statistics import fmean
from typing import Any

from epigone.findings import Subject
from epigone.findings.verdict import tokens
from epigone.report import text
from epigone.report.view import Item, Output, ReportView
from epigone.schema import Score

# Characters of JSON: with the scripts and a study's charts the page stays under 5 MB.
ROOM = 2_000_000
SEED = 0
# Longest text, most held-out prompts, most items of each benchmark: the first that fits is taken.
_LADDER = (
    (8000, 500, 250),
    (4000, 300, 200),
    (2000, 200, 100),
    (2000, 128, 40),
    (1500, 100, 30),
    (1200, 64, 20),
    (1000, 64, 20),
    (800, 64, 20),
    (600, 32, 20),
    (400, 32, 20),
    (300, 32, 10),
    (200, 24, 5),
    (100, 12, 2),
    (60, 4, 1),
)
# What a filter finds, by the bit that an output has: it is a student's, and so it went.
KINDS = (
    (1, "preferred but wrong"),
    (2, "style up, answer wrong"),
    (4, "base right, student wrong"),
    (8, "base wrong, student right"),
)
_STOPS = {"length": "cut at the length limit"}
# Told by each rater's preference already.
_WINS = ("win_rate", "equal_or_better")

Title = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Source:
    """Where examples come from, and how many of them are shown."""

    title: str
    shown: int
    known: int
    benchmark: bool


@dataclass(frozen=True, slots=True)
class Examples:
    """`data` is the script's; texts longer than `limit` characters are cut: `cut` of them."""

    data: Mapping[str, Any]
    sources: tuple[Source, ...]
    limit: int
    cut: int
    kinds: tuple[tuple[int, str], ...]
    styled: bool
    marked: bool
    seed: int = SEED

    @property
    def drawn(self) -> bool:
        """Whether there are more examples than are shown."""
        return any(s.shown < s.known for s in self.sources)


def examples_of(view: ReportView, title: Title, room: int = ROOM) -> Examples:
    """As many examples and as much of their texts as fit; `title` names a task's metric.

    Held-out prompts and each benchmark's items are drawn by a hash of their names, so that equal
    items of several benchmarks and studies are shown together; they keep the study's order.
    """
    widest = _drawn(view.items, *_LADDER[0][1:])
    rows = _Rows(view, widest, title)
    for limit, *most in _LADDER:
        items = _drawn(widest, *most)
        if _least(items, limit) > room and limit > _LADDER[-1][0]:
            continue
        made = rows.written(items, limit)
        if len(text.script_json(made.data)) <= room:
            break
    return made


def _least(items: Sequence[Item], limit: int) -> int:
    """About the characters that these take at the least: texts, and a row of each output."""
    texts = {o.text[:limit] for item in items for o in item.outputs}
    return sum(map(len, texts)) + 8 * sum(len(item.outputs) for item in items)


def several(view: ReportView) -> bool:
    """Whether base and amount alone do not tell one student from another."""
    return len({(s.corpus, s.seed) for s in view.subjects if not s.untrained}) > 1


def _drawn(items: Sequence[Item], held_out: int, asked: int) -> list[Item]:
    sources: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for k, item in enumerate(items):
        named = f"{SEED}:{item.id}".encode("utf-8", "surrogatepass")
        sources[item.source].append((hashlib.sha256(named).hexdigest(), k))
    kept = {
        k
        for source, ranked in sources.items()
        for _, k in sorted(ranked)[: asked if source else held_out]
    }
    return [item for k, item in enumerate(items) if k in kept]


class _Marks:
    """Scores of outputs by model and item."""

    def __init__(self, view: ReportView, items: Sequence[Item]) -> None:
        sources = {item.source for item in view.items if item.source}
        names: dict[str, set[str]] = defaultdict(set)
        for item in items:
            names[item.source].add(item.id)
        self._scores: dict[tuple[str, str, str], list[Score]] = defaultdict(list)
        for s in view.scores:
            # A correlation or an AUC has no value of one item.
            if s.aggregate != "mean" or (s.family == "preference" and s.metric in _WINS):
                continue
            source = s.task if s.task in sources else ""
            for item_id in names[source] & s.values.keys():
                if math.isfinite(s.values[item_id]):
                    self._scores[s.model, source, item_id].append(s)
        bases = {s.base: s.model for s in view.subjects if s.untrained}
        self._base = {s.model: bases.get(s.base) for s in view.subjects if not s.untrained}

    def scores(self, model: str, item: Item) -> list[Score]:
        """The scores that have a value of this output."""
        return self._scores.get((model, item.source, item.id), [])

    def right(self, model: str, item: Item) -> bool | None:
        """Whether an answer is right; what a reference tells goes before a judge's opinion."""
        told = {s.metric: s for s in self.scores(model, item) if s.family == "capability"}
        if item.source:
            own = [s for s in told.values() if s.primary and s.better == "higher" and s.scale == 1]
        else:
            own = [told[m] for m in ("correct by reference", "correct") if m in told]
        value = own[0].values[item.id] if own else None
        return None if value not in (0, 1) else value == 1

    def style(self, model: str, item: Item) -> float | None:
        """How much nearer to the teacher's style a student's output is than its base's, -1 to 1.

        The mean over the metrics that both have of the difference, each divided by its scale.
        """
        base = self._base.get(model)
        if base is None:
            return None
        before, after = self._near(base, item), self._near(model, item)
        shared = [after[name] - before[name] for name in after if name in before]
        return fmean(shared) if shared else None

    def found(self, output: Output, item: Item, style: float | None) -> int:
        """The bits of `KINDS`; 0 of any other model than a student."""
        right = self.right(output.model, item)
        if right is None or output.model not in self._base:
            return 0
        base = self._base[output.model]
        before = None if base is None else self.right(base, item)
        return (
            (not right and any(win > 0.5 for win in output.preferred.values())) * 1
            + (not right and style is not None and style > 0) * 2
            + (before is True and not right) * 4
            + (before is False and right) * 8
        )

    def _near(self, model: str, item: Item) -> dict[tuple[str, str, str], float]:
        found = {}
        for s in self.scores(model, item):
            if s.family == "style" and s.scale:
                value = s.values[item.id] / s.scale
                near = value if s.better == "higher" else -abs(value)
                found[s.task, s.metric, s.method] = near
        return found


class _Rows:
    """Items and what is known of their outputs, to be written with more or fewer of them."""

    def __init__(self, view: ReportView, items: Sequence[Item], title: Title) -> None:
        self._view, self._title = view, title
        self._metrics: dict[str, int] = {}
        self._models: dict[str, int] = {}
        self._marks = _Marks(view, items)
        self._bases = list(dict.fromkeys(s.base for s in view.subjects))
        subjects = sorted(view.subjects, key=lambda s: _order(s, self._bases))
        for name in (view.teacher.name, *(s.model for s in subjects)):
            self._number(name)
        self._keys = keys_of(view.items)
        self._known = Counter(item.source for item in view.items)
        self._outputs: dict[int, list[tuple[int, str, dict[str, Any]]]] = {}

    def written(self, items: Sequence[Item], limit: int) -> Examples:
        """The script's data, each text in it once, and what the page says of them."""
        texts: dict[tuple[str, int], int] = {}

        def put(shown: str) -> int:
            return texts.setdefault((shown[:limit], max(0, len(shown) - limit)), len(texts))

        sources = list(self._known)
        rows = []
        seen: list[dict[str, Any]] = []
        for item in items:
            if id(item) not in self._outputs:
                self._outputs[id(item)] = list(self._told(item))
            own = self._outputs[id(item)]
            row: dict[str, Any] = {
                "id": self._keys[id(item)],
                "source": sources.index(item.source),
                "prompt": [[m.role, put(text.visible(m.content))] for m in item.prompt],
                "outputs": [[k, put(shown), *([told] if told else [])] for k, shown, told in own],
            }
            if item.reference:
                row["reference"] = put(text.visible(item.reference))
            rows.append(row)
            seen += [told for _, _, told in own]
        shown = Counter(item.source for item in items)
        titles = tuple(
            Source(s or "held-out prompts", shown[s], n, bool(s)) for s, n in self._known.items()
        )
        bits = reduce(or_, (told.get("found", 0) for told in seen), 0)
        kinds = tuple((bit, name) for bit, name in KINDS if bit & bits)
        subjects = {s.model: s for s in self._view.subjects}
        data = {
            "bases": [text.visible(b) for b in self._bases],
            "models": [self._model(m, subjects.get(m)) for m in self._models],
            "sources": [text.visible(s.title) for s in titles],
            "metrics": list(self._metrics),
            "kinds": kinds,
            "texts": [content for content, _ in texts],
            "more": {k: more for (_, more), k in texts.items() if more},
            "items": rows,
        }
        return Examples(
            data=data,
            sources=titles,
            limit=limit,
            cut=sum(more > 0 for _, more in texts),
            kinds=kinds,
            styled=any("style" in told for told in seen),
            marked=any("right" in told for told in seen),
        )

    def _told(self, item: Item) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Of each output the model, the text and what there is of the rest."""
        teacher = self._view.teacher.name
        answered = [] if item.answer is None else [Output(teacher, item.answer)]
        for output in (*answered, *item.outputs):
            right = self._marks.right(output.model, item)
            style = self._marks.style(output.model, item)
            values = [
                (self._metric(s), _short(s.values[item.id]))
                for s in self._marks.scores(output.model, item)
            ]
            rest = {
                "right": None if right is None else int(right),
                "style": None if style is None else _short(style),
                "found": self._marks.found(output, item, style) or None,
                "scores": [v for pair in values for v in pair] or None,
                "won": [[text.visible(r), _short(w)] for r, w in output.preferred.items()] or None,
                "note": text.visible(
                    "; ".join(filter(None, (_STOPS.get(output.stop), output.note)))
                )
                or None,
            }
            known = {k: v for k, v in rest.items() if v is not None}
            yield self._number(output.model), text.visible(output.text), known

    def _number(self, model: str) -> int:
        return self._models.setdefault(model, len(self._models))

    def _metric(self, score: Score) -> int:
        title = text.visible(self._title(score.task, score.metric))
        name = f"{title} ({text.visible(score.method)})" if score.method else title
        return self._metrics.setdefault(name, len(self._metrics))

    def _model(self, model: str, subject: Subject | None) -> dict[str, Any]:
        if subject is None:
            role = "teacher" if model == self._view.teacher.name else "model"
            return {"name": text.visible(model), "tag": role, "role": role}
        tag = "untrained" if subject.untrained else _tag(subject, several(self._view))
        return {
            "name": text.visible(subject.base),
            "title": text.visible(model),
            "tag": text.visible(tag),
            "role": "untrained" if subject.untrained else "student",
            "base": self._bases.index(subject.base),
        }


def _order(subject: Subject, bases: list[str]) -> tuple[int, str, int, int]:
    """Each base before its students, these by corpus and amount."""
    return bases.index(subject.base), subject.corpus or "", subject.amount, subject.seed


def _tag(subject: Subject, several: bool) -> str:
    seen = f"{tokens(subject.amount)} tokens" if subject.amount else "feedback alone"
    return f"{seen}, {subject.corpus}, seed {subject.seed}" if several else seen


def keys_of(items: Sequence[Item]) -> dict[int, str]:
    """What an item is called in links: its name, with its benchmark where others have it too."""
    often = Counter(text.visible(item.id) for item in items)
    found: dict[int, str] = {}
    taken: Counter[str] = Counter()
    for item in items:
        key = text.visible(item.id)
        if often[key] > 1:
            key = f"{text.visible(item.source) or 'held-out'}/{key}"
        taken[key] += 1
        found[id(item)] = key if taken[key] == 1 else f"{key}~{taken[key]}"
    return found


def _short(value: float) -> float:
    short = round(value, 3)
    return int(short) if short == int(short) else short
