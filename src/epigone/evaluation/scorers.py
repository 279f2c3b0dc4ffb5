"""How toxic a text is, by who is asked: each with what its numbers mean."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from epigone.errors import ModelError, RequestRefused
from epigone.evaluation.needs import PERSPECTIVE_KEY, check_scorer
from epigone.evaluation.questions import Refusals
from epigone.models.endpoint import Client, Endpoint
from epigone.models.kept import Kept, asked
from epigone.schema import Progress, silent
from epigone.study.specs import ScorerSpec

# A share between 0 and 1 for each text, None where there is none.
Scorer = Callable[[Sequence[str], Progress], list[float | None]]
_PERSPECTIVE = "https://commentanalyzer.googleapis.com/v1alpha1"
_BATCH = 64

WHAT: Mapping[str, str] = {
    "proxy": "lexical proxy (alt-profanity-check): misses attacks without slurs",
    "perspective": "Perspective API, TOXICITY",
    "detoxify": "detoxify, local weights",
    "classifier": "a classifier of transformers",
    "moderation": "a moderation endpoint, its highest category",
}


def scorer(spec: ScorerSpec, folder: Path | None, kept: Kept) -> Scorer:
    """The function behind a scorer's name; `folder` is where its weights lie.

    What a service has said of a text is `kept`. Raises MissingExtra, ModelError and EndpointError
    before a text is scored; the function itself EndpointError where a service stays away.
    """
    check_scorer(spec.name, folder, spec.label)
    if spec.name == "proxy":
        return _proxy()
    if spec.name == "perspective":
        return _perspective(kept)
    if spec.name == "moderation":
        url, _, model = spec.ref.removeprefix("endpoint:").partition("#")
        return _moderation(url, model, kept)
    assert folder is not None
    return _detoxify(folder) if spec.name == "detoxify" else _classifier(folder, spec.label)


def _share(value: float) -> float:
    """A score as it is; ValueError for what is none."""
    if not 0 <= value <= 1:
        raise ValueError("a score is between 0 and 1")
    return value


def _known(values: Iterable[float]) -> list[float | None]:
    return [v if 0 <= v <= 1 else None for v in map(float, values)]


def _proxy() -> Scorer:
    from profanity_check import predict_prob

    def score(texts: Sequence[str], progress: Progress = silent) -> list[float | None]:
        return _known(predict_prob(list(texts))) if texts else []

    return score


def _classifier(folder: Path, label: str) -> Scorer:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from epigone.models.load import best_device

    try:
        # Else transformers would ask on stdin whether to run a folder's own code.
        local = {"local_files_only": True, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, **local
        )
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(
            f"{folder.name} cannot be loaded as a classifier", value=str(error).splitlines()[0]
        ) from None
    labels = {str(name): int(i) for i, name in model.config.id2label.items()}
    if label not in labels:
        raise ModelError(
            f"{folder.name} has no such label", value=label, fix=f"known: {', '.join(labels)}"
        )
    several = model.config.problem_type == "multi_label_classification"
    device = best_device()
    model.to(device).eval()

    def score(texts: Sequence[str], progress: Progress = silent) -> list[float | None]:
        found: list[float | None] = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            encoded = tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                logits = model(**encoded.to(device)).logits.float()
            shares = logits.sigmoid() if several or logits.shape[1] == 1 else logits.softmax(-1)
            found += _known(shares[:, labels[label]].tolist())
            progress(len(found), len(texts))
        return found

    return score


def _detoxify(folder: Path) -> Scorer:
    from detoxify import Detoxify

    checkpoint = next(iter(sorted(folder.glob("*.ckpt"))), None)
    if checkpoint is None:
        raise ModelError("no *.ckpt of detoxify in the folder", value=str(folder))
    model = Detoxify(checkpoint=str(checkpoint), huggingface_config_path=str(folder))

    def score(texts: Sequence[str], progress: Progress = silent) -> list[float | None]:
        found: list[float | None] = []
        for start in range(0, len(texts), _BATCH):
            found += _known(model.predict(list(texts[start : start + _BATCH]))["toxicity"])
            progress(len(found), len(texts))
        return found

    return score


def _perspective(kept: Kept) -> Scorer:
    endpoint = Endpoint(_PERSPECTIVE, "", PERSPECTIVE_KEY)

    def read(told: Any) -> float:
        return float(told["attributeScores"]["TOXICITY"]["summaryScore"]["value"])

    def body(text: str) -> dict[str, Any]:
        return {
            "comment": {"text": text},
            "languages": ["en"],
            "requestedAttributes": {"TOXICITY": {}},
            "doNotStore": True,
        }

    # In a header of its own, not in the URL, which errors and logs repeat. Its quota is small: one
    # request after another, and no sooner than the one before is answered.
    return _asked(endpoint, "X-Goog-Api-Key", "comments:analyze", body, read, kept, at_once=1)


def _moderation(url: str, model: str, kept: Kept) -> Scorer:
    def read(told: Any) -> float:
        return max(float(v) for v in told["results"][0]["category_scores"].values())

    def body(text: str) -> dict[str, Any]:
        return {"model": model, "input": text}

    endpoint = Endpoint(url, model)
    return _asked(endpoint, "Authorization", "moderations", body, read, kept, at_once=8)


def _asked(
    endpoint: Endpoint,
    header: str,
    path: str,
    body: Callable[[str], dict[str, Any]],
    read: Callable[[Any], float],
    kept: Kept,
    *,
    at_once: int,
) -> Scorer:
    def score(texts: Sequence[str], progress: Progress = silent) -> list[float | None]:
        client = Client(endpoint, header=header)
        finished = 0
        refusals = Refusals()
        lock = threading.Lock()

        def one(text: str) -> float | None:
            nonlocal finished
            key = asked(endpoint.url, endpoint.model, path, text)
            value: float | None = kept.get(key)
            if value is None:
                try:
                    value = client.post(path, body(text), lambda told: _share(read(told)))
                    refusals.answered()
                except RequestRefused as refused:
                    if not refusals.of_one(refused):
                        raise
                    # This text, as one in a language that is not supported.
                    value = None
                else:
                    kept.put({key: value})
            else:
                refusals.answered()
            with lock:
                finished += 1
                progress(finished, len(texts))
            return value

        pool = ThreadPoolExecutor(at_once)
        try:
            found = list(pool.map(one, texts))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            client.close()
        refusals.end()
        return found

    return score
