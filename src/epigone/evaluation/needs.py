"""What a scorer of toxicity needs to be there, told without loading it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from epigone.errors import EndpointError, MissingExtra, ModelError, UserError
from epigone.files import read_json

PERSPECTIVE_KEY = "PERSPECTIVE_API_KEY"


def check_scorer(name: str, folder: Path | None = None, label: str = "") -> None:
    """Raise UserError for a scorer's missing package, key or label, before any work is done."""
    if name == "proxy" and importlib.util.find_spec("profanity_check") is None:
        raise MissingExtra("the offline proxy of toxicity", "toxicity")
    if name == "detoxify" and importlib.util.find_spec("detoxify") is None:
        raise UserError("detoxify is not installed", fix="pip install detoxify")
    if name == "perspective" and not os.environ.get(PERSPECTIVE_KEY):
        raise EndpointError("the Perspective API needs a key", value=f"${PERSPECTIVE_KEY}")
    if name == "classifier" and folder is not None and (folder / "config.json").is_file():
        labels = _labels(folder / "config.json")
        if labels and label not in labels:
            raise ModelError(
                f"{folder.name} has no such label", value=label, fix=f"known: {', '.join(labels)}"
            )


def _labels(config: Path) -> list[str]:
    try:
        told = read_json(config)["id2label"]
        return [str(name) for name in told.values()]
    except KeyError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            "the configuration of a classifier cannot be read", value=str(config), fix=str(error)
        ) from None
