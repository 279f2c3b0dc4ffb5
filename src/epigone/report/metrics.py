"""What the report calls the metrics, and what their numbers mean."""

from __future__ import annotations

from collections.abc import Mapping

from epigone.report.view import MetricText

METRICS: Mapping[str, MetricText] = {
    "list": MetricText(
        "Lists",
        "Of the prompts that the teacher answers with a list, the share where the model does.",
    ),
    "summary": MetricText(
        "Summary paragraph",
        "Of the prompts where the teacher ends with a summary, the share where the model does.",
    ),
    "unigram": MetricText(
        "Unigram intersection",
        "Words that the model's answer shares with the teacher's, in per cent.",
    ),
    "length": MetricText(
        "Length correlation",
        "Pearson correlation of the answers' lengths in words with the teacher's over the prompts.",
    ),
    "length_ratio": MetricText(
        "Length ratio",
        "Mean logarithm to base 2 of an answer's length over the teacher's: 0 is as long, -1 half.",
    ),
    "headings": MetricText(
        "Headings",
        "Of the prompts that the teacher answers with headings, the share where the model does.",
    ),
    "code": MetricText(
        "Code",
        "Of the prompts that the teacher answers with code, the share where the model does.",
    ),
    "more_lists": MetricText(
        "More lists",
        "How much more often its answers hold a list than the teacher's; 0: as often.",
    ),
    "more_summaries": MetricText(
        "More summaries",
        "How much more often its answers end with a summary than the teacher's; 0: as often.",
    ),
    "more_headings": MetricText(
        "More headings",
        "How much more often its answers have headings than the teacher's; 0: as often.",
    ),
    "more_code": MetricText(
        "More code",
        "How much more often its answers hold code than the teacher's; 0: as often.",
    ),
    "opening": MetricText(
        "Opening formulas",
        "How much more often its answers open with one than the teacher's; 0: as often.",
    ),
    "closing": MetricText(
        "Closing formulas",
        "How much more often its answers close with one than the teacher's; 0: as often.",
    ),
    "refusal": MetricText(
        "Refusals",
        "How much more often its answers decline than the teacher's; 0: as often.",
    ),
    "disclaimer": MetricText(
        "Disclaimers",
        "How much more often its answers speak of an AI than the teacher's; 0: as often.",
    ),
    "hedging": MetricText(
        "Hedging",
        "Hedges in a hundred words, minus the teacher's.",
    ),
    "distinguishable": MetricText(
        "Distinguishability",
        "How well a simple classifier tells the model from the teacher (AUC): 0.5 is not at all.",
    ),
    "judge/tone": MetricText(
        "Authoritative tone", "Share of answers that the judge finds to be in an assured voice."
    ),
    "judge/win_rate": MetricText(
        "Win rate against the teacher",
        "How often the judge prefers the model's answer, in both orders; a tie is half a win.",
    ),
    "judge/equal_or_better": MetricText(
        "Equal or better", "Share of answers that the judge rates no worse than the teacher's."
    ),
    "judge/score": MetricText(
        "Judge's score", "What the judge gives the answer beside the teacher's, from 1 to 10."
    ),
    "judge/correct": MetricText(
        "Correct, by the judge",
        "Share of answers that the judge finds true, where it says that it can tell.",
    ),
    "judge/correct by reference": MetricText(
        "Correct, by reference", "Share of answers that hold a right answer as whole words."
    ),
    "expected_max_toxicity": MetricText(
        "Expected maximum toxicity",
        "Of several continuations of each prompt, the most toxic one's score; mean over prompts.",
    ),
    "toxicity_probability": MetricText(
        "Toxicity probability",
        "Share of prompts of which at least one of several continuations is scored 0.5 or more.",
    ),
    "nq_open/exact_match": MetricText(
        "Natural Questions", "Share of questions answered with an accepted answer."
    ),
    "mmlu/acc": MetricText("MMLU", "Share of four-way questions answered right; 0.25 is chance."),
    "humaneval/pass@1": MetricText(
        "HumanEval", "Share of problems whose first program passes its tests."
    ),
    "facts/exact_match": MetricText(
        "Facts", "Share of short open questions answered with an accepted answer, after 3 examples."
    ),
    "choices/acc": MetricText(
        "Choices", "Share of four-way questions answered right, after 5 examples; 0.25 is chance."
    ),
}
