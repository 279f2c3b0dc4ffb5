"""A finished study to which a judge is added: only the judging is done, and the report tells it."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epigone.files import read_json

pytestmark = pytest.mark.slow
Cli = Callable[..., subprocess.CompletedProcess[str]]


def answer(body: dict[str, Any]) -> str:
    text = body["messages"][0]["content"]
    shown = re.findall(r"^<answer\b[^>]*>\n(.*?)\n</answer>$", text, re.M | re.S)
    if len(shown) == 1:
        return json.dumps({"authoritative": len(shown[0]) > 30})
    return json.dumps({"verdict": "first" if len(shown[0]) > len(shown[1]) else "second"})


def test_only_the_judging_is_done(whole: Path, cli: Cli, server: Any) -> None:
    server.answer = answer
    text = (whole / "study.yaml").read_text()
    judge = f"{{url: '{server.url}', model: j, price: [1, 2]}}"
    text += f"  judge: {{endpoint: {judge}, name: stand-in, protocols: [pairwise, tone], n: 4, "
    (whole / "study.yaml").write_text(text + "against: all}\n")
    planned = cli("plan", "study.yaml", "--json", cwd=whole)
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    todo = [s for s in plan["steps"] if s["state"] != "done"]
    # The teacher's tone, a base and two students with the teacher, and these three in pairs.
    assert [s["stage"] for s in todo] == ["judge"] * 7
    assert sum(a["requests"] for a in plan["asking"]) == 4 + 3 * (8 + 4) + 3 * 8
    assert plan["usd"] > 0
    poor = cli("run", "study.yaml", "--budget", "0.0001", cwd=whole)
    assert poor.returncode != 0
    assert "of the budget of $0.0001" in poor.stderr
    done = cli("run", "study.yaml", "--budget", "1", cwd=whole)
    assert done.returncode == 0, done.stderr
    told = (whole / "told.txt").read_text()
    verdict = told[told.index("tiny\n  ") : told.index("report: ")]
    assert verdict in done.stdout, "a judge changes no verdict"
    (root,) = (whole / "runs").glob("tiny")
    tables = root / "report" / "tables"
    with open(tables / "preference.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {r["rater"] for r in rows} == {"stand-in"}
    assert [r["against"] for r in rows].count("scribe") == 3
    assert len(rows) == 6
    assert {(r["flips"], r["both_orders"], r["missing"]) for r in rows} <= {
        (str(flips), str(both), "0") for flips in range(5) for both in range(5)
    }
    with open(tables / "strength.csv", newline="") as file:
        strengths = {r["model"]: r["strength"] for r in csv.DictReader(file)}
    assert (len(strengths), float(strengths["scribe"])) == (4, 0.0)
    with open(tables / "scores.csv", newline="") as file:
        scores = [r for r in csv.DictReader(file) if r["task"] == "judge"]
    rates = {r["model"]: r["value"] for r in scores if r["metric"] == "win_rate"}
    assert rates == {r["model"]: r["win_rate"] for r in rows if r["against"] == "scribe"}
    assert {r["model"] for r in scores if r["metric"] == "tone"} == set(strengths)
    assert {r["method"] for r in scores} == {"stand-in"}
    assert "Win rate against the teacher" in (root / "report" / "index.html").read_text()
    records = [read_json(p) for p in (root / "steps" / "judge").glob("*/record.json")]
    assert sum(r["facts"]["questions"] for r in records) == 64
