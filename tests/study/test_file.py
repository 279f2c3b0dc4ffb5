from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigone.errors import StudyFileError
from epigone.study.file import parse, read

GOOD = """\
name: tiny
teacher: {name: t}
bases: [a, b]
corpora:
  talk:
    kind: broad
    from: [x.json]
amounts:
  talk: [8k, 32k]
evaluate:
  style: {n: 32}
"""


def test_a_study_is_read() -> None:
    study = parse(GOOD)
    assert study.amounts == {"talk": [8_000, 32_000]}
    assert [source.ref for source in study.corpora["talk"].sources] == ["x.json"]
    assert study.seeds == [0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bases:", "basis:", "s.yaml:3:1: unknown key: basis (did you mean 'bases'?)"),
        (
            "    kind",
            "    kimd",
            "s.yaml:6:5: unknown key: corpora.talk.kimd (did you mean 'kind'?)",
        ),
        ("{n: 32}", "{m: 32}", "s.yaml:11:11: unknown key: evaluate.style.m"),
        ("broad", "bread", "s.yaml:6:11: corpora.talk.kind: input should be 'broad' or 'local'"),
        ("8k", "8q", "s.yaml:9:10: amounts.talk.0: an amount is a number of tokens"),
        ("8k", "32k", "s.yaml:9:15: named twice in amounts.talk: 32000"),
        ("  talk: [", "  tall: [", "s.yaml:9:3: unknown corpus: tall (did you mean 'talk'?)"),
        ("[a, b]", "[a, a]", "s.yaml:3:12: named twice in bases: a"),
        ("n: 32", "n: 999", "s.yaml:11:14: more style prompts than held-out prompts: 999"),
        ("n: 32", "n: 'x'", "s.yaml:11:14: evaluate.style.n: input should be a valid integer: x"),
        ("name: tiny", "name: [tiny", "not YAML"),
        ("name: tiny", "name: tiny\nname: two", "s.yaml:2:1: key given twice: name"),
        ("name: tiny", "name: ../../etc", "s.yaml:1:7: name: a name has 1 to 64"),
        ("teacher: {name: t}\n", "", "s.yaml:1:1: missing key: teacher"),
        ("{n: 32}", "{metrics: [lst]}", "unknown style metric: lst (did you mean 'list'?)"),
    ],
)
def test_mistakes_have_a_place_a_value_and_a_fix(old: str, new: str, message: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        parse(GOOD.replace(old, new, 1), "s.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


MORE = (
    GOOD
    + """\
recipe:
  preset: adamw
  lr: 2e-5
  warmup: 200k tokens
  schedule: wsd
  replay_from: [w.txt]
  lora: {rank: 8}
sweep:
  replay: [0, 0.25]
  kl: [0, 1e-1]
feedback:
  ranked: {method: dpo, from: [p.jsonl], after: talk}
"""
)


def test_recipe_sweep_and_feedback_are_read() -> None:
    study = parse(MORE)
    assert study.recipe.lr == 2e-5
    assert [v.name for v in study.variants()] == [
        "replay=0,kl=0", "replay=0,kl=0.1", "replay=0.25,kl=0", "replay=0.25,kl=0.1"
    ]  # fmt: skip
    assert study.feedback["ranked"].settings()["lr"] == 5e-7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("200k tokens", "200 apples", "s.yaml:15:11: recipe.warmup: a warm-up is a share of"),
        ("  lr:", "  lrr:", "s.yaml:14:3: unknown key: recipe.lrr (did you mean 'lr'?)"),
        ("wsd", "wds", "s.yaml:16:13: recipe.schedule: input should be 'constant', 'cosine' or"),
        ("wsd", "cosine\n  decay: 0.1", "s.yaml:17:10: a cosine schedule has no"),
        ("{rank: 8}", "{rnk: 8}", "s.yaml:18:10: unknown key: recipe.lora.rnk (did you mean 'ra"),
        ("  preset: adamw\n", "", "s.yaml:17:9: replay=0,kl=0: parameter-scaled steps are too"),
        ("replay:", "relpay:", "s.yaml:20:3: unknown recipe setting: relpay (did you mean 'repl"),
        ("  kl: [0, 1e-1]", "  kl: []", "s.yaml:21:7: sweep.kl: list should have at least 1 item"),
        ("  kl: [0, 1e-1]", "  kl: 0.1", "s.yaml:21:7: sweep.kl: input should be a valid list"),
        ("1e-1]", "-1]", "s.yaml:21:11: kl: input should be greater than or equal to 0"),
        ("1e-1]", "0]", "s.yaml:21:11: named twice in sweep.kl: 0"),
        (
            "  kl: [0",
            "  lr: [1",
            "s.yaml:21:3: a setting stands in the recipe and in the sweep: lr",
        ),
        ("[w.txt]", "[{rf: w.txt}]", "s.yaml:17:18: unknown key: recipe.replay_from.0.rf (did yo"),
        ("  replay_from: [w.txt]\n", "", "s.yaml:19:15: replay=0.25,kl=0: replay without plain t"),
        ("  replay: [0, 0.25]", "  clip: [1]", "s.yaml:17:16: plain text that no replay uses"),
        ("dpo", "ppo", "s.yaml:23:20: feedback.ranked.method: input should be 'dpo' or 'revise'"),
        ("after: talk", "after: tlak", "s.yaml:23:49: unknown corpus: tlak (did you mean 'talk'?"),
        ("talk}", "talk, amount: 9k}", "s.yaml:23:63: no student of corpus 'talk' has this amount"),
        (", after: talk}", ", amount: 8k}", "s.yaml:23:50: an amount of no corpus"),
        ("talk}", "talk, bta: 1}", "s.yaml:23:55: unknown key: feedback.ranked.bta (did you mean"),
        ("talk}", "talk, warmup: 9}", "s.yaml:23:63: feedback.ranked.warmup: input should be less"),
        ("{method: dpo", "{method: revise, beta: 1", "s.yaml:23:34: revise has no beta: 1"),
        ("  ranked:", "  a,b:", "s.yaml:23:8: feedback.a,b: a name has 1 to 64"),
    ],
)
def test_mistakes_in_recipe_sweep_and_feedback(old: str, new: str, message: str) -> None:
    assert old in MORE
    with pytest.raises(StudyFileError) as caught:
        parse(MORE.replace(old, new, 1), "s.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_template_offers_in_comments_is_a_study() -> None:
    text = resources.files("epigone.study").joinpath("template.yaml").read_text("utf-8")
    text = text.replace("STUDY_NAME", "mine")
    before = parse(text)
    after = parse(re.sub(r"^( *)# (?=(\w+: |\w+:$|  \w+: \{))", r"\1", text, flags=re.MULTILINE))
    assert (before.sweep, before.feedback) == ({}, {})
    assert len(after.variants()) == 4
    assert list(after.feedback) == ["ranked"]
    assert after.recipe.resolved().schedule == "wsd"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tiny", "2023-13-01", "s.yaml:1:7: no valid timestamp: 2023-13-01 (put a text in quotes)"),
        ("tiny", "9" * 5000, "s.yaml:1:7: no valid int: 999"),
        ("[8k", "[0x" + "f" * 5000, "s.yaml:9:10: int too large: 0xfff"),
        ("tiny", '!!int ""', "s.yaml:1:7: no valid int"),
        ("tiny", "!!bool maybe", "s.yaml:1:7: no valid bool: maybe"),
        ("tiny", "1" + ":59" * 400 + ".5", "s.yaml:1:7: no valid float: 1:59"),
        ("tiny", r'"\UFFFFFFFF"', "s.yaml:1:10: not YAML: no such character"),
        ("bases:", "? [a, b]\n: 1\nbases:", "s.yaml:3:3: a list or a mapping is no key"),
        ("bases:", "1: 2\nbases:", "s.yaml:3:4: 1: keys should be strings"),
        ("8k", "9" * 400, "s.yaml:9:10: int too large: 999"),
        ("8k", "9" * 400 + "k", "s.yaml:9:10: amounts.talk.0: an amount is a number of tokens"),
        ("[a, b]", "&b [a, b]", "s.yaml:3:8: anchors and aliases are not for studies: b"),
        ("  talk:", '  "a\\nb":', "s.yaml:6:5: corpora.a?b: a name has 1 to 64"),
    ],
)
def test_values_that_only_look_like_yaml_have_a_place(old: str, new: str, message: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        parse(GOOD.replace(old, new, 1), "s.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_aliases_of_aliases_are_refused_before_they_grow() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(StudyFileError, match=r"s\.yaml:1:5: anchors and aliases"):
        parse("\n".join(lines), "s.yaml")


def test_a_rate_is_finite() -> None:
    with pytest.raises(StudyFileError, match=r"s\.yaml:12:14: recipe\.lr: .* finite number: inf"):
        parse(GOOD + "recipe: {lr: .inf}\n", "s.yaml")


def test_line_and_column_count_bytes_of_the_real_file() -> None:
    text = GOOD.replace("    kind: broad", "    # two\n    # comments\n    kimd: broad")
    with pytest.raises(StudyFileError) as caught:
        parse(text)
    line = text.splitlines()[caught.value.line - 1]
    assert line[caught.value.column - 1 :].startswith("kimd")
    flow = 'corpora: {"größe😀": {kimd: broad}}\nname: x\n'
    with pytest.raises(StudyFileError) as caught:
        parse(flow)
    line_bytes = flow.splitlines()[caught.value.line - 1].encode()
    assert line_bytes[caught.value.column - 1 :].startswith(b"kimd")


@pytest.mark.parametrize(
    "text", ["", "just text", "[1, 2]", "\t", "a: &x [*x]", "{" * 5000, "\x00"]
)
def test_what_is_no_study_is_one_line(text: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "pocket.yaml").write_text(GOOD)
    with pytest.raises(StudyFileError, match=r"did you mean 'pocket\.yaml'"):
        read(tmp_path / "poket.yaml")
    with pytest.raises(StudyFileError, match="is a folder"):
        read(tmp_path)
    (tmp_path / "bad.yaml").write_bytes(b"name: \xff")
    with pytest.raises(StudyFileError, match="not UTF-8 at byte 6"):
        read(tmp_path / "bad.yaml")


@given(st.text(max_size=200))
def test_any_other_text_gives_one_line(text: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
