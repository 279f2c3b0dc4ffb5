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
        "Correct, by reference", "Share of answers that hold the right answer word for word."
    ),
    "facts/exact_match": MetricText(
        "Facts", "Share of short open questions answered with an accepted answer, after 3 examples."
    ),
    "choices/acc": MetricText(
        "Choices", "Share of four-way questions answered right, after 5 examples; 0.25 is chance."
    ),
}
