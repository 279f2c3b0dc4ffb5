"""Where optax's Adafactor comes with known gradients: optax_adafactor.npz, by optax 0.2.8.

The tests compare with what is written there, so that none of them needs JAX. To write it again:
`pip install optax==0.2.8 && python tests/training/optax_adafactor.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

FOUND = Path(__file__).with_suffix(".npz")
SHAPES = ((7,), (5, 3), (40, 16))
STEPS, WARMUP, LR, DECAY = 200, 20, 2e-3, 1e-4


def given() -> dict[str, Any]:
    """By shape, a start and the gradients that follow."""
    rng = np.random.default_rng(0)
    return {str(s): rng.normal(size=(STEPS + 1, *s)).astype(np.float32) for s in SHAPES}


def main() -> None:
    import jax.numpy as jnp
    import optax

    def rate(step: Any) -> Any:
        return LR * jnp.minimum(1.0, step / WARMUP)

    found = {}
    for momentum in ("float32", "bfloat16"):
        own = optax.adafactor(
            learning_rate=rate, multiply_by_parameter_scale=True, momentum=0.9,
            dtype_momentum=jnp.dtype(momentum), decay_rate=0.95, factored=False,
            clipping_threshold=None, weight_decay_rate=None,
        )  # fmt: skip
        for name, (start, *gradients) in given().items():
            x = jnp.asarray(start)
            state = own.init(x)
            for t, g in enumerate(gradients):
                updates, state = own.update(jnp.asarray(g), state, x)
                # EasyLM's weight decay is a step of the chain behind optax's, scheduled as the
                # rate is.
                x = x + (updates - rate(t) * DECAY * x)
            found[momentum + name] = np.asarray(x)
    np.savez(FOUND, **found)


if __name__ == "__main__":
    main()
