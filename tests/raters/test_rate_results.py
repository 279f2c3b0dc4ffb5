from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from epigone.cli import rate_results
from epigone.errors import MissingExtra, UserError
from epigone.raters.agreement import krippendorff
from epigone.raters.export import write_ratings
from epigone.schema import Rating


@pytest.fixture
def app() -> typer.Typer:
    group = typer.Typer()
    rate_results.register(group)
    return group


def made() -> tuple[list[Rating], list[Rating]]:
    """Three people and a judge, who mostly agree, on thirty items."""
    rng = np.random.default_rng(0)
    people, judged = [], []
    for i in range(30):
        truth = int(rng.integers(-2, 3))
        for rater, force in (("r-1", "private"), ("r-2", "private"), ("r-3", "prolific")):
            value = int(np.clip(truth + rng.integers(-1, 2), -2, 2))
            people.append(Rating(f"i{i}", rater, "base", "teacher", value, "a", force))  # type: ignore[arg-type]
        judged += [Rating(f"i{i}", "gpt", "base", "teacher", truth, side, "judge")  # type: ignore[arg-type]
                   for side in "ab"]  # fmt: skip
    people += [Rating(f"i{i}", "r-4", "base", "teacher", 0, "a", excluded="one choice")
               for i in range(12)]  # fmt: skip
    return people, judged


def run(app: typer.Typer, *words: object) -> str:
    done = CliRunner().invoke(app, [str(w) for w in words])
    if done.exception is not None:
        raise done.exception
    return done.output


def test_agreement_of_people_and_judges_mixed(app: typer.Typer, tmp_path: Path) -> None:
    people, judged = made()
    write_ratings(tmp_path / "people.csv", people)
    write_ratings(tmp_path / "judge.jsonl", judged)
    files = [tmp_path / "people.csv", tmp_path / "judge.jsonl"]
    found: dict[str, Any] = json.loads(run(app, "agreement", *files, "--json"))
    assert found["ratings"] == 30 * 3 + 12 + 60 and found["repeated"] == 0
    assert [a["of"] for a in found["agreement"]] == ["people", "private", "prolific", "judges"]
    assert found["agreement"][0]["alpha"] == krippendorff(people).alpha
    assert found["agreement"][0]["n_raters"] == 3
    (judge,) = found["judges"]
    assert judge["judge"] == "gpt" and judge["n_units"] == 30
    assert judge["direction"]["low"] < judge["direction"]["value"] < judge["direction"]["high"]
    assert [r["rater"] for r in found["raters"]] == ["gpt", "r-1", "r-2", "r-3", "r-4"]
    assert found["excluded"] == [{"rater": "r-4", "reason": "one choice", "n": 12}]
    assert found["proposed"] == []

    told = run(app, "agreement", *files, tmp_path / "people.csv")
    assert told.startswith("162 ratings, 102 more stood twice\n")
    alpha = f"people\t{found['agreement'][0]['alpha']:.3f}\t"
    assert alpha in told and "\nr-4\tprivate\t12\t12\t0/0" in told


def test_which_model_others_are_compared_with(app: typer.Typer, tmp_path: Path) -> None:
    people, _ = made()
    file = tmp_path / "r.jsonl"

    def against(extra: list[Rating], *words: str) -> dict[str, str]:
        write_ratings(file, [*people, *extra])
        told = json.loads(run(app, "agreement", file, "--json", *words))
        return {p["preference"]["model"]: p["preference"]["against"]
                for p in told["preferences"]["pairs"]}  # fmt: skip

    # Neither checks nor excluded ratings say whom others are compared with.
    other = Rating("i1", "r-1", "base", "other", 1, "a")
    gold = [replace(other, a=f"g{n}", b="second", purpose="gold", expected=2) for n in range(3)]
    out = [replace(other, a="base", b=f"o{n}", excluded="x") for n in range(3)]
    teacher = replace(other, a="other", b="teacher")
    assert against([teacher, *gold, *out]) == {"base": "teacher", "other": "teacher"}
    told = run(app, "agreement", file)
    assert "by\tmodel\tstrength" in told and "\npeople\tother\t" in told
    assert against([teacher, other]) == {}
    told = run(app, "agreement", file)  # the rest needs no model that all were compared with
    assert "no preferences without --against: base, other, teacher were" in told
    assert "alpha (ordinal)" in told and "\nr-4\tprivate" in told and "one choice" in told
    assert against([teacher, other], "--against", "base")["teacher"] == "base"
    assert against([]) == {"base": "teacher"}
    assert "against teacher: the last by name of one pair" in run(app, "agreement", file)
    assert against([], "--against", "base") == {"teacher": "base"}
    write_ratings(file, [])
    assert run(app, "agreement", file) == "0 ratings\n\n"
    write_ratings(file, gold)
    assert "no rating counts as an answer" in run(app, "agreement", file)


def test_without_the_extra(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epigone.cli.rate_store.find_spec", lambda name: None)
    for words in (("export", "r.db", "-o", "x.csv"), ("exclude", "r.db", "r-1", "--why", "x")):
        with pytest.raises(MissingExtra, match=r"epigone\[raters\]"):
            run(app, *words)


def test_a_file_that_is_none_is_told_in_a_line(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("item,rater\n")
    with pytest.raises(UserError, match=r"r.csv, line 1: a column is missing: a"):
        run(app, "agreement", tmp_path / "r.csv")
