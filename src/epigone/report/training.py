"""What training left behind, in words and as curves: facts of its record, rows of its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from epigone.report.text import number, seconds
from epigone.report.view import Curve, Point, Trunk

# The row of every optimiser step, in a train step's folder and in each student's.
LOG = "metrics.jsonl"
# Points of one curve: more than a screen can show, few enough for a page with many of them.
MOST_POINTS = 500
# Where a page has many curves, all of them together.
_PAGE_POINTS = 20_000
_FEWEST_POINTS = 60
_CUT = (
    ("parts_of_long_conversations", "pieces of conversations longer than a block"),
    ("chunks_of_long_exchanges", "pieces of exchanges longer than a block"),
    ("supervised_lost", "supervised tokens lost"),
    ("source_tokens_lost", "tokens lost of what an encoder reads"),
    ("unsupervised_dropped", "tokens dropped after the last supervised one"),
    ("conversations_without_targets", "conversations without an answer to learn from"),
)


def statistics(facts: Mapping[str, Any], spent: float, peak_bytes: int) -> dict[str, str]:
    """The facts of a train step's record in words; `spent` in seconds."""
    share = f"{100 * facts['supervised_share']:.1f}%"
    layout = _layout(str(facts["layout"])) if "layout" in facts else "one process"
    found = {
        "Tokens": f"{facts['tokens']:,} in {facts['blocks']:,} blocks of "
        f"{facts['conversations']:,} conversations",
        "Supervised": f"{facts['supervised']:,} tokens, {share} of all",
        "Packing": f"{facts['padding']:,} tokens of padding, efficiency "
        f"{100 * facts['efficiency']:.1f}%"
        if "padding" in facts
        else "none, each piece has a row of its own",
        "Cut": cut(facts),
        "Steps": f"{facts['steps']:,}, {facts['warmup_steps']:,} of them warm-up",
        "Loss": f"{number(facts['first_loss'])} at the first step, "
        f"{number(facts['last_loss'])} at the last",
        "Computed": f"{layout} on {facts['device']}, products in {facts['compute']}, "
        f"weights in {facts['master_weights']}",
        "Time": f"{seconds(spent)}, of which {seconds(facts['seconds_training'])} in the last run's"
        " steps",
        "Memory": f"{peak_bytes / 1e9:.1f} GB at the most in the first process",
    }
    if facts.get("resumed_at_step"):
        found["Continued"] = f"at step {facts['resumed_at_step']:,}"
    if "text_blocks" in facts:
        found["Plain text"] = f"{facts['text_blocks']:,} blocks in {facts['text_passes']} passes"
    return found


def cut(facts: Mapping[str, Any]) -> str:
    """What cutting to blocks did to the conversations."""
    told = [f"{facts[name]:,} {words}" for name, words in _CUT if facts.get(name)]
    return ", ".join(told) or "nothing"


def _layout(text: str) -> str:
    words = {"replicate": "replicas", "shard": "shards", "tensor": "tensor slices"}
    sizes = dict(part.split("=") for part in text.split(","))
    told = [f"{n} {words[axis]}" for axis, n in sizes.items() if n != "1"]
    return " x ".join(told) or "one process"


def curves_of(rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """The trunk's curve, then that of each decay that branches off it, one point a step.

    `rows` are those of a train step's metrics.jsonl. A point stands at the supervised tokens that
    had been seen by the end of its step, on its own way from the base.
    """
    before = [0]
    trunk = [row for row in rows if row.get("branch") is None]
    for row in trunk:
        before.append(before[-1] + row["supervised"])
    found = [Curve(None, _points(trunk, 0))] if trunk else []
    for branch in dict.fromkeys(r["branch"] for r in rows if r.get("branch") is not None):
        own = [row for row in rows if row.get("branch") == branch]
        # A decay begins where as many steps of the trunk as its first one's number were done.
        found.append(Curve(branch, _points(own, before[own[0]["step"]])))
    return found


def _points(rows: Sequence[Mapping[str, Any]], seen: int) -> tuple[Point, ...]:
    points = []
    for row in rows:
        seen += row["supervised"]
        points.append(
            Point(
                first=row["step"],
                last=row["step"],
                seen=seen,
                loss=row["loss"],
                lr=row["lr"],
                gradient_norm=row["gradient_norm"],
                kl=row.get("kl"),
            )
        )
    return tuple(points)


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points, each the mean over about as many consecutive steps.

    The learning rate and the tokens seen are those of the last of them.
    """
    n = len(points)
    if n <= most:
        return list(points)
    groups = [points[n * k // most : n * (k + 1) // most] for k in range(most)]
    return [
        Point(
            first=g[0].first,
            last=g[-1].last,
            seen=g[-1].seen,
            loss=fmean(p.loss for p in g),
            lr=g[-1].lr,
            gradient_norm=fmean(p.gradient_norm for p in g),
            kl=None if g[0].kl is None else fmean(p.kl or 0.0 for p in g),
        )
        for g in groups
    ]


def most_points(trunks: Sequence[Trunk]) -> int:
    """Points that each curve of a page may have."""
    curves = sum(len(t.curves) for t in trunks)
    return min(MOST_POINTS, max(_FEWEST_POINTS, _PAGE_POINTS // max(1, curves)))
