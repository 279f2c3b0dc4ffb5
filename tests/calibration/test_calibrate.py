"""A reduced calibration through the whole grid, and what the verb says of one."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import epigone
from epigone.calibration import run as calibration
from epigone.calibration.controls import Control
from epigone.calibration.run import Calibration
from epigone.calibration.scale import FULL, Build, Scale
from epigone.cli.common import Teller
from epigone.schema import Interval

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
SMALL = Scale(
    people=12,
    ruled=16,
    local=300,
    broad=60,
    bases=(
        Build("small", width=16, layers=1, steps=2, rows=(8, 2)),
        Build("large", width=32, layers=1, steps=200, rows=(48, 4), lr=1e-2),
    ),
    amounts=(400, 1_600),
    prompts=6,
)


@pytest.mark.slow
def test_a_reduced_world_goes_through_the_whole_grid(tmp_path: Path) -> None:
    with Teller() as teller:
        found = calibration.calibrate(tmp_path / "c", 0, teller, SMALL)
    study = epigone.Study.load(tmp_path / "c", runs=tmp_path / "c/runs")
    assert {p.state for p in study.plan()} == {"done"}
    cells = [(c.base, c.corpus, c.amount) for c in study.expansion().cells()]
    assert len(set(cells)) == 2 * 2 * 2
    assert Counter(s.stage for s in study.expansion().steps)["second"] == 1
    style, broad, local, ahead = found.controls
    for control in found.controls:
        assert control.number.value is not None or control is style, control.line()
    assert broad.number.n == ahead.number.n == 4 * SMALL.people
    assert local.number.n == SMALL.ruled
    # A base that has seen two steps knows nothing beside one that has seen a hundred.
    assert ahead.passed
    assert ahead.where == "large against small"
    # So few tokens teach no style; that it is told, and not passed over, is the point.
    assert not style.passed
    assert not found.passed
    assert found.report.is_file()

    # Nothing is made twice.
    def times() -> dict[Path, int]:
        made = [*(tmp_path / "c").rglob("record.json"), *(tmp_path / "c/bases").rglob("*")]
        return {p: p.stat().st_mtime_ns for p in made}

    before = times()
    with Teller() as teller:
        again = calibration.calibrate(tmp_path / "c", 0, teller, SMALL)
    assert again == found
    assert times() == before


@pytest.mark.parametrize("passed", [True, False])
def test_the_verb_says_each_control_and_fails_where_one_is_not_shown(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, passed: bool
) -> None:
    asked = []

    def calibrate(folder: Path, seed: int, watcher: object, scale: Scale = FULL) -> Calibration:
        asked.append((folder, seed, scale))
        number = Interval(0.5, 0.25, 0.75, 240)
        controls = [Control("a holds", "above 0", number, "small", True)]
        controls += [Control("b holds", "above 0", number, "large", passed)]
        return Calibration(controls, Path("index.html"))

    monkeypatch.setattr(calibration, "calibrate", calibrate)
    done = cli("calibrate", "-o", "there", "--seed", "7", cwd=tmp_path)
    assert done.returncode == (0 if passed else 1)
    first, second = done.stdout.splitlines()[:2]
    assert first == "passed  a holds: +0.500 [+0.250, +0.750], small (above 0)"
    assert second.startswith("passed  b" if passed else "FAILED  b")
    told = json.loads(cli("calibrate", "--json", cwd=tmp_path).stdout)
    assert (told["seed"], told["passed"]) == (0, passed)
    assert [c["passed"] for c in told["controls"]] == [True, passed]
    assert told["controls"][1]["low"] == 0.25
    assert asked == [(Path("there"), 7, FULL), (Path("calibration"), 0, FULL)]


def test_the_full_grid_is_three_sizes_by_four_amounts_with_enough_items() -> None:
    assert len(FULL.bases) == 3
    assert len(FULL.amounts) == 4
    assert [b.width for b in FULL.bases] == sorted({b.width for b in FULL.bases})
    assert min(4 * FULL.people, FULL.ruled) >= 200


def test_help_tells_what_it_does_with_an_example(cli: Cli, tmp_path: Path) -> None:
    text = " ".join(cli("calibrate", "--help", cwd=tmp_path).stdout.split())
    assert "Example: epigone calibrate" in text
    assert "--json" in text
