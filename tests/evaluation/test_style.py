"""Style metrics against hand-worked values and scipy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from epigone.errors import CorpusError, UnknownName
from epigone.evaluation import run_style
from epigone.evaluation.distinguish import NAME
from epigone.evaluation.outputs import names_of
from epigone.evaluation.structure import has_list, has_summary
from epigone.evaluation.style import compare, style
from epigone.evaluation.style_metrics import METRICS, unigram_intersection
from epigone.evaluation.words import words
from epigone.schema import Score, silent
from epigone.study.specs import StyleSpec
from epigone.study.style import ALL_STYLE_METRICS, STYLE_METRICS


def test_the_declared_metrics_are_the_known_ones() -> None:
    assert set(ALL_STYLE_METRICS) == {*METRICS, NAME}
    assert set(STYLE_METRICS) < set(ALL_STYLE_METRICS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- one\n- two", True),
        ("Intro:\n\n* one\n\n* two", True),
        ("1. one\n2. two", True),
        ("1) one\n2) two", True),
        ("\u2022 one\n\u2022 two", True),
        ("  + nested\n    + more", True),
        ("- only one", False),
        ("-5\n-6", False),
        ("**bold**\n**too**", False),
        ("In 1999. It was\n2.5 is a number", False),
        ("```\n- code\n- code\n```", False),
        ("~~~\n1. code\n2. code\n~~~\n- out", False),
        ("```sh\n- in\n```\n- out\n- out", True),
        ("", False),
    ],
)
def test_has_list(text: str, expected: bool) -> None:
    assert has_list(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Text.\n\nIn conclusion, it is so.", True),
        ("Text.\n\nOverall, it is so.", True),
        ("Text.\n\n**In summary:** it is so.", True),
        ("Text.\n\nTo sum up, it is so.\n\n", True),
        ("Text.\n\nto summarise it all up: so.", True),
        ("Text.\n\nUltimately, you choose.", True),
        ("Text.\n\nIn short, so.\n\nAnything else?", False),
        ("In conclusion, a lone paragraph.", False),
        ("Text.\n\nOverallocation is bad.", False),
        ("Text.\n\n- Overall, an item", False),
        ("Text.\n\n1. In summary, an item", False),
        ("Text.\n\nFinally, bake it.", False),
        ("Text.\n\nOverall, it is so.\n\nI hope this helps!", True),
        ("Text.\n\nOverall, it is so. I hope this helps!", True),
        ("Overall, a lone paragraph.\n\nI hope this helps!", False),
        ("Text.\n\n## Conclusion\n\nSo it is.", True),
        ("Text.\n\n**V. Conclusion:**\n\nSo it is.", True),
        ("## Summary\n\nOf what was asked to be summed up.", False),
        ("Text.\n\n## Conclusion of the war\n\nIt ended.", False),
        ("Text.\n\n**Summary**\n- a\n- b", False),
        ("Text.\n\nSummary:\n\n- a\n- b", False),
        ("Text.\n\n```\nOverall code\n```", False),
        ("", False),
    ],
)
def test_has_summary(text: str, expected: bool) -> None:
    assert has_summary(text) is expected


def test_unigram_by_hand() -> None:
    # the:2 cat:1 sat:1 against the:1 cat:1 ran:1 -> shared the, cat: 2 of 4 + 3
    assert unigram_intersection("The cat, the SAT", "the cat ran") == pytest.approx(400 / 7)
    assert unigram_intersection("a b", "c d") == 0
    assert unigram_intersection("", "a") == 0
    assert unigram_intersection("", "") == 100
    assert words("Don't stop \u2013 it\u2019s snake_case, 3.5!") == [
        "don't", "stop", "it\u2019s", "snake", "case", "3", "5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e\u0964",
         ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u092d\u093e\u0937\u093e"]),
        ("\u6211\u5403\u996d\u3002AI\u5f88\u597d", [*"\u6211\u5403\u996d", "ai", *"\u5f88\u597d"]),
        ("\u30b3\u30fc\u30d2\u30fc 3\u676f", [*"\u30b3\u30fc\u30d2\u30fc", "3", "\u676f"]),
        # Vowels below and above belong to the character before them.
        ("\u0e17\u0e35\u0e48\u0e19\u0e35\u0e48", ["\u0e17\u0e35\u0e48", "\u0e19\u0e35\u0e48"]),
        ("\u0645\u06cc\u200c\u062e\u0648", ["\u0645\u06cc\u200c\u062e\u0648"]),
        ("cafe\u0301 CAF\u00c9", ["caf\u00e9"] * 2),
        ("\ud55c\uad6d\uc5b4 \ubb38\uc7a5", ["\ud55c\uad6d\uc5b4", "\ubb38\uc7a5"]),
        ("ok \u2764\ufe0f 1\ufe0f\u20e3 a\u200d", ["ok", "1", "a"]),
    ],
)  # fmt: skip
def test_words_of_other_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text("abZ09_'\u2019-.,/\u00e9\u00df \n\u2014\U0001f600", max_size=30))
@example("Don't! It\u2019s John's na\u00efve 3.5-inch snake_case rock'n'roll, e.g. 'so'.")
def test_words_of_english_are_runs_of_letters_and_digits(text: str) -> None:
    assert words(text) == re.findall(r"[^\W_]+(?:['\u2019][^\W_]+)*", text.lower())


@settings(max_examples=60)
@given(st.text("ab c\n", max_size=30), st.text("ab c\n", max_size=30))
def test_unigram_is_symmetric_bounded_and_full_only_for_equal_bags(a: str, b: str) -> None:
    value = unigram_intersection(a, b)
    assert value == unigram_intersection(b, a)
    assert 0 <= value <= 100
    assert (value == 100) == (sorted(words(a)) == sorted(words(b)))


TEACHER = {
    "a": "- x\n- y",
    "b": "plain words here",
    "c": "1. x\n2. y\n\nOverall, z z z z.",
    "d": "one",
}
MODEL = {"a": "* x\n* y", "b": "- no\n- matter", "c": "nothing at all", "e": "not asked"}


def by_metric(scores: list[Score]) -> dict[str, Score]:
    return {s.metric: s for s in scores}


def test_scores_hold_only_items_that_apply() -> None:
    got = by_metric(compare("m", MODEL, TEACHER, STYLE_METRICS))
    assert got["list"].values == {"a": 1.0, "c": 0.0}
    assert (got["list"].value, got["list"].n, got["list"].ceiling) == (0.5, 2, 1.0)
    assert got["summary"].values == {"c": 0.0}
    assert set(got["unigram"].values) == {"a", "b", "c"}
    assert got["unigram"].values["a"] == 100.0 and got["unigram"].ceiling == 100.0
    assert got["length"].values == {"a": 2.0, "b": 2.0, "c": 3.0}
    assert got["length"].against == {"a": 2.0, "b": 3.0, "c": 9.0}
    assert got["length"].aggregate == "pearson"
    assert got["length"].value == pytest.approx(pearsonr([2, 2, 3], [2, 3, 9]).statistic)
    assert {s.family for s in got.values()} == {"style"}


def test_identical_outputs_reach_every_ceiling() -> None:
    for score in compare("m", TEACHER, TEACHER, STYLE_METRICS):
        assert score.value == pytest.approx(score.ceiling), score.metric


def test_differences_from_the_teacher_by_hand() -> None:
    teacher = {"a": "- x\n- y", "b": "one two three", "c": "It may be so.", "d": "Sure! # x"}
    model = {"a": "- x\n- y", "b": "- one\n- two\n- x\n- y\n- z\n- v\n- w",
             "c": "So it is here.", "d": "Sure! Then: I hope this helps."}  # fmt: skip
    got = by_metric(compare("m", model, teacher, ALL_STYLE_METRICS))
    assert got["more_lists"].values == {"a": 0.0, "b": 1.0, "c": 0.0, "d": 0.0}
    assert got["list"].values == {"a": 1.0}
    # log2 of (2 + 1) / (2 + 1), (7 + 1) / (3 + 1), (4 + 1) / (4 + 1), (6 + 1) / (2 + 1)
    assert got["length_ratio"].values == pytest.approx({"a": 0, "b": 1, "c": 0, "d": 1.2223924})
    assert got["hedging"].values["c"] == -25.0
    assert got["opening"].value == 0.0
    assert got["closing"].values["d"] == 1.0
    assert {got[m].better for m in ("more_lists", "length_ratio", "hedging")} == {"zero"}
    assert got["distinguishable"].value is None


def test_undefined_values_are_none() -> None:
    got = by_metric(compare("m", {"b": "x", "d": "x"}, TEACHER, STYLE_METRICS))
    assert (got["list"].value, got["list"].n) == (None, 0)
    assert got["length"].value is None  # two items
    flat = compare("m", dict.fromkeys(TEACHER, "same"), TEACHER, ["length"])[0]
    assert flat.value is None and flat.n == 4  # constant lengths


def test_mistakes() -> None:
    with pytest.raises(UnknownName, match="did you mean 'unigram'"):
        compare("m", MODEL, TEACHER, ["unigrams"])
    with pytest.raises(CorpusError, match="no item"):
        compare("m", {"z": "x"}, TEACHER, ["list"])


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    return path


def test_files(tmp_path: Path) -> None:
    teacher = write(tmp_path / "t.jsonl", [{"id": k, "output": v} for k, v in TEACHER.items()])
    one = write(tmp_path / "one.jsonl", [{"item": k, "output": v} for k, v in MODEL.items()])
    scores = style(teacher, [one], metrics=["list"])
    assert [(s.model, s.value) for s in scores] == [("one", 0.5)]
    same = [write(tmp_path / x / "samples.jsonl", [{"id": "a", "output": "q"}]) for x in "xy"]
    assert [s.model for s in style(teacher, same, metrics=["list"])] == ["x", "y"]
    with pytest.raises(CorpusError, match="given twice"):
        style(teacher, [same[0], tmp_path / "y" / ".." / "x" / "samples.jsonl"])
    twice = write(tmp_path / "twice.jsonl", [{"id": "a", "output": ""}] * 2)
    with pytest.raises(CorpusError, match=r"twice\.jsonl:2"):
        style(teacher, [twice])
    with pytest.raises(CorpusError, match=r"bad\.jsonl:1"):
        style(teacher, [write(tmp_path / "bad.jsonl", [{"prompt": "a"}])])
    with pytest.raises(CorpusError, match=r"cannot be read.*no such file.*did you mean 'twice"):
        style(teacher, [tmp_path / "twise.jsonl"])
    with pytest.raises(CorpusError, match=r"cannot be read.*no such file or directory\)$"):
        style(teacher, [tmp_path / "none" / "one.jsonl"])


def test_only_names_that_collide_are_lengthened() -> None:
    def names(*paths: str) -> list[str]:
        return names_of([Path(p) for p in paths])

    assert names("t.jsonl", "a/s.jsonl", "b/s.jsonl", "m2.jsonl") == ["t", "a", "b", "m2"]
    assert names("s.jsonl", "b/s.jsonl") == ["s", "b"]
    assert names("a/s.jsonl", "c/a.jsonl", "b/s.jsonl") == ["a/s.jsonl", "c", "b"]
    assert names("x/a/s.jsonl", "y/a/s.jsonl") == ["x/a/s.jsonl", "y/a/s.jsonl"]


def test_stage_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    for name, rows in (("teacher", TEACHER), ("model", MODEL)):
        write(
            tmp_path / name / "samples.jsonl", [{"item": k, "output": v} for k, v in rows.items()]
        )
    inputs = {"teacher": tmp_path / "teacher", "model": tmp_path / "model"}
    spec = StyleSpec(model="m", metrics=STYLE_METRICS)
    facts = run_style(spec, inputs, tmp_path, silent)
    first = (tmp_path / "scores.jsonl").read_bytes()
    run_style(spec, inputs, tmp_path, silent)
    assert (tmp_path / "scores.jsonl").read_bytes() == first
    scores = [Score.from_json(json.loads(line)) for line in first.decode().splitlines()]
    assert {s.metric: s.value for s in scores} == {k: facts[k] for k in STYLE_METRICS}
