"""How often the detectors of style are right, and what a second sample of ChatGPT scores.

    python bench/style.py               # the development half, with what was found wrong
    python bench/style.py --held-out    # all of it
    python bench/style.py --null        # how often an interval finds a difference where none is

`style_labels.csv` has ids, turns, hashes and labels of 319 answers of ChatGPT, and no text. One
answer of each conversation of the catalogue's part of ShareGPT was drawn, of up to 4,000 characters
and in English: 64 at random, the others of the first 195 from answers in which a loose pattern for
one label was found, so that there are enough of each; no answer weighs more than another. They were
labelled before a detector saw them, but by the author of the detectors, who knew them all when he
wrote these; every second one is held out from what they were then improved on. Therefore 80 more
were drawn at random, read and labelled after the detectors were done (`fresh`): what they show of
precision and recall in answers at large is the soundest.

Refusals and disclaimers are rare in all of these, so that 44 more (`loose`) were drawn at random
from conversations of which none was labelled, of answers with "sorry", "unable", "AI" or "cannot"
in their first 300 characters, and labelled for these two alone before a detector saw them. What
they show of precision is for such answers; a refusal without one of the four words is not seen.

A list is two or more parallel items, each on a line of its own, with or without a mark, or steps
with names; no table, verse, dialogue or code. A summary is a last paragraph (but for an offer of
help) that sums up the answer or draws its conclusion; a caveat is none. A heading is a line of its
own that names the part below it; a sentence that leads to a list is none, a title is one. Code is
code, markup, a command or its data on lines of its own. An opening is assent, thanks, praise, a
greeting or an apology for a mistake before the answer; an answer's own "yes" is none. A closing
offers help, invites, or wishes well. A refusal declines, or says that what was asked for cannot be
done or is not known; a question back is none. A disclaimer speaks of itself as a machine.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from epigone.corpus.readers import File
from epigone.corpus.rows import Row
from epigone.evaluation.formulas import has_closing, has_disclaimer, has_opening, has_refusal
from epigone.evaluation.structure import has_code, has_headings, has_list, has_summary
from epigone.evaluation.style import compare
from epigone.findings.gaps import value_interval, wilson
from epigone.models.references import locate
from epigone.study.style import ALL_STYLE_METRICS

DETECTORS: Mapping[str, Callable[[str], bool]] = {
    "list": has_list,
    "summary": has_summary,
    "headings": has_headings,
    "code": has_code,
    "opening": has_opening,
    "closing": has_closing,
    "refusal": has_refusal,
    "disclaimer": has_disclaimer,
}
Labelled = tuple[dict[str, str], str]


def main() -> None:
    rows = read()
    if "--null" in sys.argv:
        no_difference(rows, items=24, trials=300)
        no_difference(rows, items=100, trials=100)
        return
    labelled = [(label, text) for label, text in labels(rows)]
    if "--held-out" not in sys.argv:
        own = [x for x in labelled if x[0]["half"] == "development"]
        table("development", own)
        for name, detect in DETECTORS.items():
            for label, text in own:
                if detect(text) != (name in label["labels"].split()):
                    print(
                        f"{name} {'missed' if name in label['labels'] else 'wrong'}: {label['id']}"
                    )
        return
    table("development half", [x for x in labelled if x[0]["half"] == "development"])
    held = [x for x in labelled if x[0]["half"] == "held-out"]
    table("held-out half", held)
    table("fresh", [x for x in labelled if x[0]["half"] == "fresh"])
    table("loose", [x for x in labelled if x[0]["half"] == "loose"], ("refusal", "disclaimer"))
    second_samples(rows)


def second_samples(rows: Sequence[Row]) -> None:
    """Table 2 for first prompts that two users sent, beside the paper's second sample of ChatGPT.

    Answers that begin alike are left out: mostly one dialogue that was shared twice. Two users may
    have had two versions of ChatGPT, so that this is rather below what a second sample scores.
    """
    answers: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        prompt = " ".join(row.turns[0].content.split()) if row.turns else ""
        if row.part or len(row.turns) < 2 or row.turns[1].role != "assistant":
            continue
        answer = row.turns[1].content.strip()
        known = answers[prompt]
        again = len(known) > 1 or any(answer[:200] == other[:200] for other in known)
        if len(prompt.split()) > 3 and answer.strip("\u200b") and not again:
            known.append(answer)
    pairs = {prompt: pair for prompt, pair in answers.items() if len(pair) == 2}
    one, two = ({p: pair[i] for p, pair in pairs.items()} for i in (0, 1))
    paper = {"list": "0.83", "summary": "0.55", "unigram": "49.2", "length": "0.67"}
    print(f"\nsecond samples: {len(pairs)} prompts that came twice\n")
    print("| metric | n | value | the paper's |")
    print("| --- | --- | --- | --- |")
    for score in compare("second sample", two, one, ALL_STYLE_METRICS):
        found = value_interval(score)
        told = "-" if found.value is None else f"{found.value:.2f}"
        told += "" if found.low is None else f" [{found.low:.2f}, {found.high:.2f}]"
        print(f"| {score.metric} | {score.n} | {told} | {paper.get(score.metric, '')} |")


def no_difference(rows: Sequence[Row], items: int, trials: int) -> None:
    """How `distinguishable` spreads between drawn first answers, and its intervals without 0.5."""
    texts = sorted(
        {
            row.turns[1].content.strip()[:300]
            for row in rows
            if not row.part and len(row.turns) > 1 and row.turns[1].role == "assistant"
            and len(row.turns[1].content.strip()) > 100
        }
    )  # fmt: skip
    rng = np.random.default_rng(0)
    values, told, missed = [], [], 0
    for _ in range(trials):
        drawn = [texts[i] for i in rng.permutation(len(texts))[: 2 * items]]
        one, two = ({str(i): t for i, t in enumerate(x)} for x in (drawn[:items], drawn[items:]))
        (score,) = compare("model", one, two, ["distinguishable"])
        found = value_interval(score, resamples=1000)
        assert found.value is not None and found.low is not None and found.high is not None
        values.append(found.value)
        told.append(float(np.std(list(score.values.values()), ddof=1)) / items**0.5)
        missed += not found.low <= 0.5 <= found.high
    print(
        f"{items} prompts, {trials} times: mean {np.mean(values):.3f}, standard deviation "
        f"{np.std(values, ddof=1):.3f}, told {np.mean(told):.3f}, 0.5 left out {missed} times"
    )


def read() -> list[Row]:
    with File(locate("sharegpt-v3-part")) as rows:
        return [row for row in rows if isinstance(row, Row)]


def labels(rows: Sequence[Row]) -> list[Labelled]:
    with open(Path(__file__).with_name("style_labels.csv"), newline="") as file:
        wanted = {row["id"]: row for row in csv.DictReader(file)}
    found = []
    for row in rows:
        if label := wanted.get(row.id):
            text = row.turns[int(label["turn"])].content
            if hashlib.sha256(text.encode()).hexdigest().startswith(label["sha256"]):
                found.append((label, text))
    print(f"{len(found)} of {len(wanted)} labelled answers found")
    return found


def table(title: str, rows: Sequence[Labelled], names: Sequence[str] = tuple(DETECTORS)) -> None:
    print(f"\n{title}: {len(rows)} answers\n")
    print("| | labelled | found | right | precision | recall |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, detect in ((name, DETECTORS[name]) for name in names):
        truth = [name in label["labels"].split() for label, _ in rows]
        found = [detect(text) for _, text in rows]
        right = sum(t and f for t, f in zip(truth, found, strict=True))
        cells = [share(right, sum(found)), share(right, sum(truth))]
        print(f"| {name} | {sum(truth)} | {sum(found)} | {right} | {' | '.join(cells)} |")


def share(right: int, of: int) -> str:
    if not of:
        return "-"
    low, high = wilson(right, of)
    return f"{right / of:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
