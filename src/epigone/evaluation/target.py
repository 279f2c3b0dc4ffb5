"""What a model's answers come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from epigone.models.endpoint import KEY, Endpoint
from epigone.models.references import locate, parse
from epigone.schema import Progress
from epigone.study.specs import ModelSpec, amount_folder


def target_of(model: ModelSpec, inputs: Mapping[str, Path], progress: Progress) -> Path | Endpoint:
    """A student's, base's or teacher's folder, or where it is asked."""
    if model.kind == "student":
        return inputs["student"] / amount_folder(model.amount)
    reference = parse(model.ref)
    if reference.kind == "endpoint":
        url, _, name = reference.value.partition("#")
        return Endpoint(url, name, model.means.key_env if model.means else KEY)
    return locate(reference, progress, fingerprint=model.fingerprint)
