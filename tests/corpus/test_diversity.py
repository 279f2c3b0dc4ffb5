from __future__ import annotations

import random

import pytest
from sacrebleu.metrics import BLEU

from epigone.corpus.diversity import diversity, sample

WORDS = [
    "the",
    "wind",
    "in",
    "west",
    "mountains",
    "will",
    "be",
    "sunny",
    "and",
    "warm",
    "with",
    "rain",
    "from",
    "a",
    "far",
    "cold",
    "sea",
    ",",
    ".",
    "?",
]


def queries(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    made = [" ".join(rng.choices(WORDS, k=rng.randint(1, 14))) for _ in range(n)]
    made += [made[0], "", "?", "Wind", "no-one else's words: 3.5%", made[1] + " and warm"]
    return made


def test_every_pair_scores_as_sacrebleu_scores_it() -> None:
    texts = queries(40)
    bleu = BLEU(effective_order=True)
    found = diversity(texts, exact=True)
    for i, text in enumerate(texts):
        scores = [
            bleu.sentence_score(text, [other]).score if j != i else -1.0
            for j, other in enumerate(texts)
        ]
        assert found.highest[i] == pytest.approx(max(scores), abs=1e-6), text
        assert scores[found.nearest[i]] == pytest.approx(max(scores), abs=1e-6)
    assert found.mean == pytest.approx(sum(found.highest) / len(texts))


def test_the_index_comes_close_to_all_pairs() -> None:
    texts = queries(600, seed=1)
    exact, indexed = diversity(texts, exact=True), diversity(texts)
    assert all(a >= b - 1e-6 for a, b in zip(exact.highest, indexed.highest, strict=True)), (
        "the index can only miss a neighbour"
    )
    assert exact.mean - indexed.mean < 0.5


def test_copies_and_strangers() -> None:
    found = diversity(["a b c d e", "a b c d e", "v w x y z"], exact=True)
    assert found.highest == pytest.approx([100.0, 100.0, 0.0])
    with pytest.raises(ValueError, match="two queries"):
        diversity(["alone"])


def test_a_sample_is_the_seed_s() -> None:
    texts = [str(i) for i in range(50)]
    assert sample(texts, 10, 1) == sample(texts, 10, 1) != sample(texts, 10, 2)
    assert sorted(sample(texts, 100)) == sorted(texts)
