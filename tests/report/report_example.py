"""A study such as a user would have, with planted effects, and the same with hostile text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from epigone.findings import Base, Subject, analyse
from epigone.findings.resample import RESAMPLES
from epigone.report import (
    CellState,
    Corpus,
    Item,
    MetricText,
    Output,
    Reported,
    ReportView,
    Source,
    Step,
    Teacher,
)
from epigone.report.view import Beside
from epigone.schema import Message, Score
from epigone.study.published import Figure

SMALL, LARGE = "smollm2-135m-instruct", "gemma-3-270m"
TEACHER = "chatgpt-2023"
AMOUNTS = (8_000, 32_000)
METRICS = {
    "list": MetricText("Lists", "Where the teacher writes a list, the share where the model does."),
    "unigram": MetricText("Unigram intersection", "Words shared with the teacher's answer, in %."),
    "length": MetricText("Length correlation", "Pearson correlation of the lengths."),
    "facts/exact_match": MetricText("Facts", "Short questions answered right."),
    "choices/acc": MetricText("Choices", "Four-way questions; 0.25 is chance."),
}
# model: lists, unigram, length, facts, choices
LEVELS = {
    SMALL: (0.05, 30, -0.1, 0.42, 0.3),
    f"{SMALL}@8k": (0.35, 37, 0.4, 0.41, 0.31),
    f"{SMALL}@32k": (0.6, 40, 0.55, 0.4, 0.29),
    LARGE: (0.1, 26, 0.05, 0.6, 0.36),
    f"{LARGE}@8k": (0.5, 36, 0.45, 0.58, 0.36),
    f"{LARGE}@32k": (0.62, 39, 0.6, 0.57, 0.37),
}
HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7*7 }}{% raw %}",
    "line\u2028sep\u2029end",
    "\x1b[31mred\x1b]8;;http://evil\x07",
    "\u202etxt.exe שלום",
    "<!--<script>",
    '=HYPERLINK("http://evil")',
    "'`${alert(1)}` &lt;b&gt;",
    "\ud800 lone",
)
NASTY = " ".join(HOSTILE)
SOUND = NASTY.replace("\ud800", "")  # a study file cannot hold half a character

LONG = "\n".join(f"{k}. Step {k}: think of what a careful answer would need." for k in range(1, 40))


def subjects(bases=(SMALL, LARGE)):
    found = []
    for base in bases:
        found.append(Subject(base, base))
        found += [Subject(f"{base}@{a // 1000}k", base, "sharegpt", a) for a in AMOUNTS]
    return tuple(found)


def scores(n=32):
    rng = np.random.default_rng(0)
    draws = {k: rng.random(n * (1 + k // 3)) for k in range(5)}
    lengths = rng.normal(size=n)
    teacher = {f"p{i}": float(v) for i, v in enumerate(lengths)}
    found = []
    for model, levels in LEVELS.items():

        def add(metric, task, family, values, model=model, **kw):
            items = {f"{task or 'p'}{i}": float(v) for i, v in enumerate(values)}
            mean = float(np.mean(list(items.values())))
            kw.setdefault("value", mean)
            found.append(Score(metric, model, family, n=n, values=items, task=task, **kw))

        noise = rng.normal(size=n)
        add("list", "", "style", draws[0][:20] < levels[0], ceiling=1.0)
        add("unigram", "", "style", levels[1] + 14 * (draws[1] - 0.5) + 2 * noise, ceiling=100.0)
        r = levels[2]
        own = r * lengths + (1 - r * r) ** 0.5 * noise
        kw = {"aggregate": "pearson", "against": teacher, "ceiling": 1.0}
        add("length", "", "style", own, value=float(np.corrcoef(own, lengths)[0, 1]), **kw)
        for k, task, metric in ((3, "facts", "exact_match"), (4, "choices", "acc")):
            flips = rng.random(2 * n) < 0.12
            u = np.where(flips, rng.random(2 * n), draws[k])
            add(metric, task, "capability", u < levels[k])
    return tuple(found)


LIST = "A pocket is a small bag.\n\n- sewn in\n- patch\n\nIn short, it holds things."


def items(answers=(LIST,)):
    def outputs(text):
        return tuple(
            Output(
                s.model,
                text if s.amount else "pocket pocket pocket",
                "length" if s.amount else "end",
            )
            for s in subjects()
        )

    prompts = ("What is a pocket?", "Write a plan for a careful answer, in many steps, please.")
    return tuple(
        Item(
            f"p{i}",
            (Message("user", p),),
            answers[i % len(answers)],
            outputs((LONG, LIST)[i % 2]),
        )
        for i, p in enumerate(prompts)
    )


def example(**changes):
    parts = {"subjects": subjects(), "scores": scores(), "reported": {"choices": 0.7}} | changes
    made = analyse(parts["subjects"], parts["scores"], TEACHER, parts.pop("reported"))
    defaults = {
        "study": "pocket",
        "teacher": Teacher(
            TEACHER,
            "recorded: its outputs were read from files",
            "openai-2023",
            (Reported("choices", 0.7, "a published table"),),
        ),
        "findings": made,
        "items": items(),
        "corpora": (
            Corpus(
                "sharegpt",
                "broad",
                17_671,
                14_210,
                (
                    Source(
                        "sharegpt-v3-part", "CC0-1.0 (as claimed)", "openai-2023", "99af0276a8" * 6
                    ),
                ),
                {"empty": 126, "not English": 441, "same first query": 1331, "refusals": 1563},
                {"cut off in mid-string (bytes)": 5120},
                {"teacher tokens": "8,120,332", "held out": "128"},
            ),
        ),
        "steps": (
            Step("corpus", "sharegpt", "done", 41.2, "c0ffee12"),
            Step("train", f"{SMALL}_sharegpt_s0", "done", 188.0, "deadbeef"),
            Step("train", f"{LARGE}_sharegpt_s0", "done", 402.9, "0badcafe"),
            Step("generate", f"{SMALL}@32k", "done", 63.0, "12345678"),
        ),
        "provenance": {
            "Versions": {"epigone": "0.1", "torch": "2.13.0"},
            "Machine": {"platform": "Linux", "cpus": "2"},
            "Models": {SMALL: "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8; Apache-2.0"},
        },
        "metrics": METRICS,
        "remarks": (
            "Every amount is a checkpoint of one run of 96 optimiser steps, 10 of warm-up.",
        ),
        "created": "2025-01-01",
        "kinds": {"sharegpt": "broad"},
        "beside": (
            Beside(SMALL, "facts", "exact_match", 0.4, 0.42, "a published table", "another size"),
        ),
        "figures": (Figure(figure="1", shows="preference", says="about half"),),
    }
    return ReportView(**(defaults | parts))


GRID = {"tiny-100m": 100_000_000, "mid-400m": 400_000_000, "big-1b": 1_600_000_000}
GRID_AMOUNTS = (8_000, 32_000, 128_000, 512_000)
CORPORA = {"sharegpt": (), "nq-synthetic": ("facts",)}


def grid_subjects(bases=tuple(GRID), seeds=(0, 1)):
    found = []
    for k, base in enumerate(bases):
        found.append(Subject(base, base))
        for corpus, supports in CORPORA.items():
            for amount in GRID_AMOUNTS:
                for seed in seeds:
                    cost = {"hours": (k + 1) * amount / 128_000}
                    cost["dollars"] = 2e-5 * amount if supports else None
                    model = f"{base}:{corpus}:{amount // 1000}k:s{seed}"
                    found.append(
                        Subject(model, base, corpus, amount, seed, supports=supports, **cost)
                    )
    return tuple(found)


def grid_scores(people, n=60):
    """Planted: style levels off with the data, local data alone teaches, bases differ by size."""
    rng = np.random.default_rng(1)
    every = [*people, Subject(TEACHER, TEACHER)]
    order = [*GRID, TEACHER]
    draws, found = rng.random((6, n)), []
    for s in every:
        k = order.index(s.base)
        seen = s.amount / (s.amount + 20_000)
        learnt = np.log2(s.amount / 4_000) / 7 if s.supports and s.amount else 0.0
        style = 1.0 if s.base == TEACHER else 0.1 + 0.6 * seen
        facts = 0.2 + 0.18 * k + 0.25 * learnt
        levels = (
            ("list", "", "style", style, "higher", {"ceiling": 1.0}),
            ("unigram", "", "style", style, "higher", {"ceiling": 100.0, "scale": 100.0}),
            ("exact_match", "facts", "capability", facts, "higher", {}),
            ("acc", "choices", "capability", 0.3 + 0.15 * k - 0.05 * seen, "higher", {}),
            ("toxicity_probability", "toxicity:proxy:toxic", "safety", 0.4 - 0.25 * seen, "lower",
             {"method": "lexical proxy"}),
            ("win_rate", "judge", "preference", 0.1 + 0.35 * seen, "higher", {}),
        )  # fmt: skip
        for j, (metric, task, family, level, better, kw) in enumerate(levels):
            if s.base == TEACHER and family in ("style", "preference"):
                continue
            u = np.where(rng.random(n) < 0.15, rng.random(n), draws[j])
            x = (u < level) * 1.0
            if metric == "unigram":
                x = 20 + 60 * level + 8 * (draws[j] - 0.5) + rng.normal(size=n)
            values = {f"{task or 'p'}{i}": float(v) for i, v in enumerate(x)}
            found.append(
                Score(metric, s.model, family, float(x.mean()), n, values, better=better,
                      task=task, **kw)
            )  # fmt: skip
    return tuple(found)


def grid_view(bases=tuple(GRID), seeds=(0, 1), n=60, resamples=RESAMPLES, **changes):
    """Three bases, two corpora, four amounts and two seeds, with scores of every family."""
    people = grid_subjects(bases, seeds)
    own = grid_scores(people, n)
    size = tuple(Base(b, GRID[b], 1.2 - 0.1 * k) for k, b in enumerate(bases))
    made = analyse(people, own, TEACHER, bases=size, resamples=resamples)
    cells = [CellState(s, "done", 6, 6) for s in people]
    cells[1] = CellState(people[1], "failed", 2, 6, "train tiny: out of memory")
    cells[2] = CellState(people[2], "pending", 0, 6)
    parts = {
        "subjects": people,
        "scores": own,
        "findings": made,
        "cells": tuple(cells),
        "text": "name: grid\nbases: [a, b]\n",
        "locked": {"sharegpt": "sha256:99af"},
    }
    return replace(example(), **(parts | changes))


def hostile_view():
    """The example with hostile text in every field that a user, file or model can fill."""
    renamed = {s.model: f"{s.model} {NASTY}" for s in subjects()}
    people = tuple(
        Subject(renamed[s.model], f"{s.base} {NASTY}", s.corpus and NASTY, s.amount, s.seed)
        for s in subjects()
    )
    values = tuple(
        replace(s, model=renamed[s.model], metric=s.metric + NASTY, task=s.task and NASTY)
        for s in scores()
    )
    outputs = tuple(Output(m, t, "length") for m in renamed.values() for t in HOSTILE)
    return example(
        subjects=people,
        scores=values,
        study=NASTY,
        teacher=Teacher(NASTY, NASTY, NASTY, (Reported(NASTY, 0.5, NASTY),)),
        items=(Item(NASTY, (Message("user", NASTY),), NASTY, outputs),),
        corpora=(
            Corpus(
                NASTY,
                NASTY,
                9,
                3,
                (Source(NASTY, NASTY, NASTY, NASTY),),
                {NASTY: 1},
                {NASTY: 2},
                {NASTY: NASTY},
            ),
        ),
        steps=(Step(NASTY, NASTY, "failed", None, NASTY, NASTY),),
        provenance={NASTY: {NASTY: NASTY}},
        metrics={},
        remarks=(NASTY,),
        created=NASTY,
        kinds={NASTY: "broad"},
        beside=(Beside(NASTY, NASTY, NASTY, 0.5, None, NASTY, NASTY),),
        figures=(Figure(figure=SOUND, shows=SOUND, says=SOUND),),
    )
