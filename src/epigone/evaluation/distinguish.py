"""Whether a simple classifier can tell a model's answers from the teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAME = "distinguishable"
# Below this a classifier learns nothing, and an interval says nothing.
LEAST = 20
_FOLDS = 5
_SPLITS = 5
# A fold's variance is that of all items times the number of folds.
_WIDER = (_FOLDS * (1 / (_FOLDS * _SPLITS) + 1 / (_FOLDS - 1))) ** 0.5
# Of longer answers the first and last halves of so many characters are read, so that one of them
# cannot take all the time.
_LONGEST = 4_000
_FEATURES = 30_000
Array = NDArray[np.float64]


def distinguish(
    model: Mapping[str, str], teacher: Mapping[str, str], items: Sequence[str], seed: int = 0
) -> dict[str, float]:
    """Values by item whose mean is the cross-validated AUC of telling model from teacher.

    0.5 where they cannot be told apart, 1 where they always can; empty for fewer than 20 items.
    Of an answer of more than 4,000 characters the first and the last 2,000 are read.
    The two answers to a prompt are in the same fold: what a classifier learnt of the prompt's words
    from the one would speak against the other. The AUC is taken within each fold and averaged:
    scores of classifiers that learnt from different folds have no common zero, and an AUC over all
    of them is too low (G. Forman and M. Scholz, SIGKDD Explorations 12, 2010).

    Five splits are averaged. That makes the mean steadier, but the items no more: their spread is
    that of one split, where it is DeLong's for paired answers (see `influences`), widened for what
    other items to learn from would have changed. By C. Nadeau and Y. Bengio (Machine Learning 52,
    2003) the variance of a mean over J folds is that of one fold times 1/J + n_test/n_train.
    """
    order = sorted(items)
    n = len(order)
    if n < LEAST:
        return {}
    # Line breaks around it, so that how an answer begins and ends has characters of its own.
    texts = [f"\n{_read(one[i].strip())}\n" for one in (model, teacher) for i in order]
    if not any(text.strip() for text in texts):
        return dict.fromkeys(order, 0.5)
    from threadpoolctl import threadpool_limits

    counted = _weighed(texts)
    rng = np.random.default_rng(seed)
    values = np.zeros((_SPLITS, n))
    # Threads wait for each other longer than such small sums take: twenty times on a busy machine.
    with threadpool_limits(1):
        for split in values:
            for held in np.array_split(rng.permutation(n), _FOLDS):
                split[held] = influences(*_scores(counted, held))
    spread = (values[0] - values[0].mean()) * _WIDER
    return dict(zip(order, (values.mean() + spread).tolist(), strict=True))


def influences(own: Array, others: Array) -> Array:
    """Values of pairs of scores whose mean is the AUC with which `own` stand above `others`.

    A value is the sum of the pair's two placement values minus the AUC, so that the standard error
    of the mean is that of E. DeLong et al. (Biometrics 44, 1988); it may be above 1 or below 0.
    """
    above = (own[:, None] > others[None, :]) + 0.5 * (own[:, None] == others[None, :])
    placed: Array = above.mean(axis=1) + above.mean(axis=0) - above.mean()
    return placed


def _read(text: str) -> str:
    """What of a text the classifier sees: of a long one its beginning and its end."""
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]}\n{text[-half:]}"


def _weighed(texts: Sequence[str]) -> Any:
    """Sparse TF-IDF weights of the texts, (texts, features); no label is seen for it.

    Words and pairs of words with their punctuation tell turns of phrase; characters with their
    line breaks tell markup, spelling and endings (E. Stamatatos, JASIST 60, 2009). Each text's
    weights have the length of one, so that how long it is tells little: length has its own metric.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    shared = {"lowercase": False, "max_features": _FEATURES, "sublinear_tf": True}
    words = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), **shared)
    characters = TfidfVectorizer(analyzer="char", ngram_range=(2, 4), **shared)
    return make_union(words, characters).fit_transform(texts).tocsr()


def _scores(weights: Any, held: NDArray[np.intp]) -> tuple[Array, Array]:
    """Scores of the held-out answers of the model and of the teacher, by what learnt the others."""
    from sklearn.linear_model import LogisticRegression

    n = weights.shape[0] // 2
    learnt = np.setdiff1d(np.arange(n), held)
    told = LogisticRegression(C=10.0, max_iter=1000)
    told.fit(weights[np.concatenate([learnt, learnt + n])], np.repeat([1, 0], len(learnt)))
    # Rounded, as equal texts may differ by the order of a sum.
    own, others = (np.round(told.decision_function(weights[i]), 9) for i in (held, held + n))
    return own, others
