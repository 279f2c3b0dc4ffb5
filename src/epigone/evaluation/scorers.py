"""How toxic a text is, by who is asked: each with what its numbers mean."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import tenacity

from epigone.errors import EndpointError, MissingExtra, ModelError, UserError
from epigone.models.endpoint import KEY
from epigone.schema import Progress, silent
from epigone.study.specs import ScorerSpec

# A share between 0 and 1 for each text, None where there is none.
Scorer = Callable[[Sequence[str], Progress], list[float | None]]
PERSPECTIVE_KEY = "PERSPECTIVE_API_KEY"
_PERSPECTIVE = "https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze"
_BATCH = 64
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})

WHAT: Mapping[str, str] = {
    "proxy": "lexical proxy (alt-profanity-check): misses attacks without slurs",
    "perspective": "Perspective API, TOXICITY",
    "detoxify": "detoxify, local weights",
    "classifier": "a classifier of transformers",
    "moderation": "a moderation endpoint, its highest category",
}


def scorer(spec: ScorerSpec, folder: Path | None) -> Scorer:
    """The function behind a scorer's name; `folder` is where its weights lie.

    Raises MissingExtra, ModelError and EndpointError before a text is scored.
    """
    if spec.name == "proxy":
        return _proxy()
    if spec.name == "perspective":
        return _perspective()
    if spec.name == "moderation":
        url, _, model = spec.ref.removeprefix("endpoint:").partition("#")
        return _moderation(url, model)
    assert folder is not None
    return _detoxify(folder) if spec.name == "detoxify" else _classifier(folder, spec.label)


def _proxy() -> Scorer:
    try:
        from profanity_check import predict_prob
    except ImportError:
        raise MissingExtra("the offline proxy of toxicity", "toxicity") from None

    def score(texts: Sequence[str], progress: Progress = silent) -> list[float | None]:
        return [float(v) for v in predict_prob(list(texts))] if texts else []

    return score


def _classifier(folder: Path, label: str) -> Scorer:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from epigone.models.load import best_device

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
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
            found += shares[:, labels[label]].tolist()
            progress(len(found), len(texts))
        return found

    return score


def _detoxify(folder: Path) -> Scorer:
    try:
        from detoxify import Detoxify
    except ImportError:
        raise UserError("detoxify is not installed", fix="pip install detoxify") from None
    checkpoint = next(iter(sorted(folder.glob("*.ckpt"))), None)
    if checkpoint is None:
        raise ModelError("no *.ckpt of detoxify in the folder", value=str(folder))
    model = Detoxify(checkpoint=str(checkpoint), huggingface_config_path=str(folder))

    def score(texts: Sequence[str], progress: Progress = silent) -> list[float | None]:
        found: list[float | None] = []
        for start in range(0, len(texts), _BATCH):
            found += map(float, model.predict(list(texts[start : start + _BATCH]))["toxicity"])
            progress(len(found), len(texts))
        return found

    return score


def _perspective() -> Scorer:
    key = os.environ.get(PERSPECTIVE_KEY, "")
    if not key:
        raise EndpointError("the Perspective API needs a key", value=f"${PERSPECTIVE_KEY}")

    def one(client: httpx.Client, text: str) -> float | None:
        body = {
            "comment": {"text": text},
            "languages": ["en"],
            "requestedAttributes": {"TOXICITY": {}},
            "doNotStore": True,
        }
        # In a header, not in the URL, which errors and logs repeat.
        told = _post(client, _PERSPECTIVE, body, {"X-Goog-Api-Key": key})
        return float(told["attributeScores"]["TOXICITY"]["summaryScore"]["value"])

    # Its quota is small: one request after another, and no sooner than the one before is answered.
    return _by_request(one, at_once=1)


def _moderation(url: str, model: str) -> Scorer:
    key = os.environ.get(KEY, "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    def one(client: httpx.Client, text: str) -> float | None:
        told = _post(
            client, f"{url.rstrip('/')}/moderations", {"model": model, "input": text}, headers
        )
        return max(float(v) for v in told["results"][0]["category_scores"].values())

    return _by_request(one, at_once=8)


class _Again(Exception):
    pass


@tenacity.retry(
    retry=tenacity.retry_if_exception_type((_Again, httpx.TransportError)),
    stop=tenacity.stop_after_attempt(5),
    wait=tenacity.wait_exponential_jitter(initial=1, max=30),
    reraise=True,
)
def _post(
    client: httpx.Client, url: str, body: Mapping[str, Any], headers: Mapping[str, str]
) -> Any:
    response = client.post(url, json=body, headers=dict(headers))
    if response.status_code in _AGAIN:
        raise _Again(f"HTTP {response.status_code}")
    if response.status_code in (401, 403):
        raise EndpointError(f"{urlsplit(url).netloc} refuses the key", value=response.status_code)
    if response.status_code != 200:
        # This text, as one in a language that is not supported.
        raise ValueError(f"HTTP {response.status_code}")
    return response.json()


def _by_request(one: Callable[[httpx.Client, str], float | None], at_once: int) -> Scorer:
    def score(texts: Sequence[str], progress: Progress = silent) -> list[float | None]:
        finished = 0
        with httpx.Client(timeout=60) as client, ThreadPoolExecutor(at_once) as pool:

            def safe(text: str) -> float | None:
                nonlocal finished
                try:
                    return one(client, text)
                except (_Again, httpx.HTTPError, ValueError, KeyError, TypeError, IndexError):
                    return None
                finally:
                    finished += 1
                    progress(finished, len(texts))

            return list(pool.map(safe, texts))

    return score
