"""Studies for the example browser: a small one worked out by hand, one of fifty cells."""

from __future__ import annotations

import random
from dataclasses import replace

from report_example import HOSTILE, NASTY, hostile_view

from epigone.findings import Findings, Subject, analyse
from epigone.report import Item, Output, ReportView, Teacher
from epigone.schema import Message, Score

JUDGE = "a judge"


def score(model, metric, values, task="", family="style", **changes):
    mean = sum(values.values()) / len(values)
    return Score(metric, model, family, mean, len(values), values, task=task, **changes)


def small():
    """One base, two students; what each filter finds is told beside it."""
    subjects = (Subject("b", "b"), Subject("b@1k", "b", "talk", 1000),
                Subject("b@2k", "b", "talk", 2000))  # fmt: skip
    scores = (
        # h1: the first student is nearer in lists and words, the second in words only, by less
        # than it is farther in headings.
        *(score("b", m, v) for m, v in (("list", {"h1": 0.0}), ("more_headings", {"h1": 0.0}))),
        score("b", "unigram", {"h1": 20.0, "h2": 40.0}, scale=100.0),
        score("b@1k", "list", {"h1": 1.0}),
        score("b@1k", "unigram", {"h1": 50.0, "h2": 40.0}, scale=100.0),
        score("b@2k", "more_headings", {"h1": -1.0}, better="zero"),
        score("b@2k", "unigram", {"h1": 30.0}, scale=100.0),
        *(
            score(model, "correct", values, "judge", "capability", primary=False, method=JUDGE)
            for model, values in (
                ("t", {"h1": 1.0}),
                ("b", {"h1": 1.0, "h2": 0.0}),
                ("b@1k", {"h1": 0.0, "h2": 0.0}),
                ("b@2k", {"h1": 0.0, "h2": 1.0}),
            )
        ),
        # What a reference tells goes before the judge.
        score("b@2k", "correct by reference", {"h1": 1.0}, "judge", "capability", primary=False),
        score("b", "acc", {"q1": 1.0, "q2": 0.0, "h1": 0.0}, "quiz", "capability"),
        score("b", "f1", {"q1": 0.0}, "quiz", "capability", primary=False),
        score("b@1k", "acc", {"q1": 0.0, "q2": 1.0}, "quiz", "capability"),
        score("b@2k", "acc", {"q1": 1.0, "q2": 0.5}, "quiz", "capability"),
        score("b@1k", "length", {"h1": 7.0}, aggregate="pearson", against={"h1": 9.0}, scale=None),
    )
    won = {"b": {JUDGE: 0.5}, "b@1k": {JUDGE: 1.0, "people": 0.25}, "b@2k": {JUDGE: 1.0}}
    models = ("b", "b@1k", "b@2k")
    items = (
        Item("h1", (Message("user", "Name the sea."),), "The Baltic.",
             tuple(Output(m, f"{m} of h1", preferred=won[m]) for m in models)),
        Item("h2", (Message("user", "Sing."),), None, tuple(Output(m, "la") for m in models)),
        Item("q1", (Message("user", "2 + 2?"),), None,
             tuple(Output(m, "choice A") for m in models), "quiz", "choice A"),
        Item("q2", (), None, tuple(Output(m, "la", "length", "passed") for m in models), "quiz"),
    )  # fmt: skip
    return ReportView("small", Teacher("t"), subjects, scores, Findings((), (), (), (), ()),
                      items=items)  # fmt: skip


def large(words=260, asked=200):
    """Fifty cells, 32 prompts with long answers, `asked` items of each of three benchmarks."""
    draw = random.Random(0)
    vocabulary = [
        "".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(999)
    ]
    bases = [f"base-{k}" for k in range(5)]
    subjects = [Subject(b, b) for b in bases]
    subjects += [Subject(f"{b}:{c}:{a}k", b, c, a * 1000)
                 for b in bases for c in ("broad", "local") for a in (1, 2, 4, 8, 16)]  # fmt: skip
    held = [f"h{k}" for k in range(32)]
    quizzes = {task: [f"{task}-{k}" for k in range(asked)] for task in ("quiz", "facts", "sums")}
    scores, outputs = [], {}
    for s in subjects:
        for metric in ("list", "summary", "headings", "code"):
            scores.append(score(s.model, metric, {i: float(draw.random() < 0.5) for i in held}))
        scores.append(
            score(s.model, "unigram", {i: 100 * draw.random() for i in held}, scale=100.0)
        )
        right = {i: float(draw.random() < 0.5) for i in held}
        scores.append(score(s.model, "correct", right, "judge", "capability", primary=False))
        for task, items in quizzes.items():
            values = {i: float(draw.random() < 0.4) for i in items}
            scores.append(score(s.model, "acc", values, task, "capability"))
        for i in held:
            said = " ".join(draw.choices(vocabulary, k=words)) + f"\n{s.model} on {i}"
            won = {JUDGE: draw.choice((0.0, 0.5, 1.0))}
            outputs.setdefault(i, []).append(Output(s.model, said, "length", preferred=won))
        for i in (i for items in quizzes.values() for i in items):
            outputs.setdefault(i, []).append(Output(s.model, f"choice {draw.choice('ABCD')}"))
    items = [Item(i, (Message("user", f"Prompt {i}"),), "teacher " * 200, tuple(outputs[i]))
             for i in held]  # fmt: skip
    for task, own in quizzes.items():
        for i in own:
            question = f"Question {i}: " + " ".join(draw.choices(vocabulary, k=40))
            prompt = (Message("user", question),)
            items.append(Item(i, prompt, None, tuple(outputs[i]), task, "choice A"))
    # Numbers of so few items are as long, and ten times as quick.
    few = [replace(s, n=9, values=dict([*s.values.items()][:9])) for s in scores]
    found = analyse(subjects, few, "t", {})
    return ReportView(
        "large", Teacher("t"), tuple(subjects), tuple(scores), found, items=tuple(items)
    )


def hostile():
    """Attacks wherever the browser shows a text: names, notes, raters, metrics, links."""
    view = hostile_view()
    first = view.items[0]
    ids = (NASTY, *HOSTILE, "<img src=x onerror=alert(1)>", "%", "../x?y#z", "__proto__")
    said = tuple(
        replace(o, note=NASTY, preferred={NASTY: 1.0}, stop=NASTY) for o in first.outputs[:13]
    )
    items = tuple(
        replace(first, id=name, outputs=said, source=NASTY if k % 2 else "", reference=NASTY)
        for k, name in enumerate(ids)
    )
    marks = tuple(
        score(s.model, f"correct{NASTY}" if k else "correct", dict.fromkeys(ids, float(k)),
              NASTY if k else "judge", "capability", method=NASTY)
        for s in view.subjects for k in (0, 1)
    )  # fmt: skip
    style = tuple(
        score(s.model, NASTY, dict.fromkeys(ids, 0.1 * k)) for k, s in enumerate(view.subjects)
    )
    return replace(view, items=items, scores=(*view.scores, *marks, *style)), ids
