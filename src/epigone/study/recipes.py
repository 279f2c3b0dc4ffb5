"""Recipe presets: the paper's settings, and what a preset's name stands for."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # Gudibande et al., "The False Promise of Imitating Proprietary LLMs", and the code that they
    # trained with (EasyLM, May 2023). The loss is a token mean; "row-mean" is their variant.
    "false-promise": {
        "optimizer": "parameter-scaled",
        "lr": 2e-3,
        "warmup": 1000.0,
        "warmup_unit": "steps",
        "batch": 32,
        "block": 2048,
        "weight_decay": 1e-4,
        "clip": 1.0,
        "loss": "token-mean",
        "precision": "auto",
    },
    "adamw": {
        "optimizer": "adamw",
        "lr": 2e-5,
        "warmup": 0.03,
        "warmup_unit": "fraction",
        "batch": 32,
        "block": 2048,
        "weight_decay": 0.0,
        "clip": 1.0,
        "loss": "token-mean",
        "precision": "auto",
    },
}
