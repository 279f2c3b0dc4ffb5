from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from epigone.study.specs import CorpusSpec, DataSpec, SourceSpec


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer for which every word is one token."""
    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    words.save(str(path))
    return path


@pytest.fixture
def spec() -> Callable[..., CorpusSpec]:
    def make(n: int = 1, **changes: Any) -> CorpusSpec:
        sources = tuple(DataSpec(ref=f"source-{i}", fingerprint="0") for i in range(n))
        fixed = {
            "kind": "broad",
            "sources": sources,
            "tokenizer": SourceSpec(ref="words", fingerprint="0"),
            "teacher": "teacher-x",
            "held_out": 0,
        }
        return CorpusSpec(**{**fixed, **changes})

    return make


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clean in the test's own process, whose language detectors are loaded but once."""
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
