from __future__ import annotations

from pathlib import Path

import pytest

from epigone.models import sizes
from epigone.study import cost
from epigone.study.declare import Recipe

TEXT = (Path(__file__).parents[2] / "docs" / "cost.md").read_text()
SHAPE = sizes.known()["llama-13b"]
RECIPE = Recipe().resolved()


def test_the_worked_example_is_what_the_formulas_give() -> None:
    tokens = 150e6 / 0.80 / cost.PACKING
    parts = (
        6 * SHAPE.body * tokens,
        6 * SHAPE.head * 150e6,
        12 * SHAPE.layers * SHAPE.attention * 2048 * tokens,
    )
    flops = cost.training(SHAPE, RECIPE, [150_000_000], 0.80).flops
    assert sum(parts) == pytest.approx(flops)
    for value in (*parts, flops):
        assert f"{value:.3e}".replace("e+", "e") in TEXT
    hours = cost.flop_seconds(flops, cost.A100) / 3600
    assert f"/ 3600 = {hours:.1f} |" in TEXT
    assert f"{hours / 8:.1f} hours on the clock, ${hours * 2.79:.0f}" in TEXT
    assert f"N = {SHAPE.body:,}" in TEXT
    assert f"V d = {SHAPE.head:,}" in TEXT


def test_the_page_has_the_constants_that_are_counted_with() -> None:
    for machine in cost.MACHINES:
        row = f"**{machine.source}** | **{machine.usd:.2f}** | **{machine.read}**"
        assert row in TEXT
        gpu = machine.gpu
        assert f"{gpu.peak / 1e12:.0f}e12 a second | {gpu.memory / 1e9:.0f} GB" in TEXT
        assert f"{gpu.bandwidth / 1e12:g} TB/s" in TEXT
    assert f"assumed to be {cost.MFU:.2f}" in TEXT
    assert f"at {cost.BANDWIDTH_SHARE:.2f} of the bandwidth" in " ".join(TEXT.split())
    assert f"packing fills: {cost.PACKING}" in TEXT
    assert f"{cost.SUPERVISED['broad']:.2f} for broad data" in TEXT
    assert f"{cost.SUPERVISED['local']:.2f} for local data" in TEXT
    assert f"{cost.LAUNCH_SECONDS * 1e3:g} ms a layer" in TEXT
    one, eight = (cost.train_memory(SHAPE, RECIPE, n) / 1e9 for n in (1, 8))
    flat = " ".join(TEXT.split())
    assert f"{one:.0f} GB on one GPU" in flat
    assert f"{eight:.0f} GB on each of eight" in flat


def test_the_page_says_how_far_the_formula_is_from_what_was_reported() -> None:
    reported = {"7b": (1.0, 82_432), "13b": (1.0, 135_168), "30b": (1.4, 530_432)}
    for size, (tokens, hours) in reported.items():
        flops = cost.train_flops(sizes.known()[f"llama-{size}"], tokens * 1e12, tokens * 1e12, 2048)
        times = cost.flop_seconds(flops, cost.A100) / 3600 / hours
        assert f"{times:.2f} times" in TEXT
