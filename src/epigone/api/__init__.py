"""The Python interface: a study, and each stage as a function."""

from epigone.api.comparing import compare
from epigone.api.judging import Judging, judge, judge_cost, read_judging
from epigone.api.stages import (
    benchmark,
    benchmark_items,
    build_corpus,
    corpus_folder,
    corpus_stats,
    generate,
    interval,
    style,
    toxicity,
    train,
)
from epigone.api.study import Study

__all__ = [
    "Judging",
    "Study",
    "benchmark",
    "benchmark_items",
    "build_corpus",
    "compare",
    "corpus_folder",
    "corpus_stats",
    "generate",
    "interval",
    "judge",
    "judge_cost",
    "read_judging",
    "style",
    "toxicity",
    "train",
]
