"""Whether a simple classifier can tell a model's answers from the teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

# Below this a classifier learns nothing, and its intervals say nothing.
LEAST = 20
NAME = "distinguishable"
_FOLDS = 5
_REPEATS = 3
# Longer answers are read to here, so that one of them cannot take all the time.
_LONGEST = 8_000
Array = NDArray[np.float64]


def distinguish(
    model: Mapping[str, str], teacher: Mapping[str, str], items: Sequence[str], seed: int = 0
) -> dict[str, float]:
    """Values by item whose mean is the cross-validated AUC of telling model from teacher.

    0.5 where they cannot be told apart, 1 where they always can; empty for fewer than 20 items.
    The two answers of an item are never on both sides of a split, as their prompt's words would
    tell them apart less than by chance. The AUC is taken in each fold and averaged: scores of
    classifiers that learnt from different folds have no common zero, and an AUC over all of them
    is too low (G. Forman and M. Scholz, SIGKDD Explorations 12, 2010). Three splits are averaged.

    An item's value is the sum of its two placement values minus the fold's AUC, so that the mean's
    standard error is that of E. DeLong et al. (Biometrics 44, 1988) for paired answers.
    """
    order = sorted(items)
    if len(order) < LEAST:
        return {}
    # Line breaks around it, so that how an answer begins and ends has characters of its own.
    texts = tuple([f"\n{one[i][:_LONGEST]}\n" for i in order] for one in (model, teacher))
    rng = np.random.default_rng(seed)
    total = np.zeros(len(order))
    for _ in range(_REPEATS):
        for held in np.array_split(rng.permutation(len(order)), _FOLDS):
            own, others = _scores(texts, held)
            total[held] += influences(own, others)
    return dict(zip(order, (total / _REPEATS).tolist(), strict=True))


def influences(own: Array, others: Array) -> Array:
    """Values of pairs of scores whose mean is the AUC with which `own` stand above `others`."""
    above = (own[:, None] > others[None, :]) + 0.5 * (own[:, None] == others[None, :])
    placed: Array = above.mean(axis=1) + above.mean(axis=0) - above.mean()
    return placed


def _scores(texts: Sequence[Sequence[str]], held: NDArray[np.intp]) -> tuple[Array, Array]:
    """Scores of the held-out answers by a classifier that learnt from all the others.

    Words and pairs of words with their punctuation tell turns of phrase; characters with their
    line breaks tell markup, spelling and endings (E. Stamatatos, JASIST 60, 2009). Weights have the
    length of one, so that how long an answer is tells little: that has a metric of its own.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    learnt = np.setdiff1d(np.arange(len(texts[0])), held)
    seen = [one[i] for one in texts for i in learnt]
    if not any(text.strip() for text in seen):
        return np.zeros(len(held)), np.zeros(len(held))
    by_word = TfidfVectorizer(
        lowercase=False, token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), max_features=50_000,
        sublinear_tf=True,
    )  # fmt: skip
    by_character = TfidfVectorizer(
        lowercase=False, analyzer="char", ngram_range=(2, 4), max_features=50_000,
        sublinear_tf=True,
    )  # fmt: skip
    told = make_pipeline(
        make_union(by_word, by_character), LogisticRegression(C=10.0, max_iter=1000)
    )
    told.fit(seen, np.repeat([1, 0], len(learnt)))
    own, others = (told.decision_function([one[i] for i in held]) for one in texts)
    # Equal texts are equal, whatever the order of a sum.
    return np.round(own, 9), np.round(others, 9)
