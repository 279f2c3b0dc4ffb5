"""The tutorial's commands run in order; the README's are planned, or checked against --help."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from epigone.corpus.readers import File
from epigone.corpus.rows import Row
from epigone.corpus.values import Lost
from epigone.models import references

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
# What `epigone new` writes, on the first thirtieth of its corpus and in test time.
SMALLER = {
    "[sharegpt-v3-part]": "[part.json]",
    "held_out: 128": "max_chars: 300\n    held_out: 16",
    "[2k, 8k]": "[100]",
    "block: 512": "block: 64",
    "n: 16, max_new_tokens: 192": "n: 2, max_new_tokens: 8",
    "benchmarks: [facts, choices]": "benchmarks: [facts]\n  limit: 2",
}


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[list[str]]:
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words for words in found if words and words[0] == "epigone"]


def shrink(study: Path) -> None:
    text = study.read_text()
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new)
    study.write_text(text)
    with open(references.locate_data("sharegpt-v3-part"), "rb") as whole:
        (study.parent / "part.json").write_bytes(whole.read(4_000_000))


def whole_values(text: str) -> int:
    """How many values of a JSON array Python's own parser reads until it fails."""
    decoder, place, count = json.JSONDecoder(), text.index("[") + 1, 0
    while True:
        try:
            _, place = decoder.raw_decode(text, re.compile(r"[\s,]*").match(text, place).end())  # type: ignore[union-attr]
        except ValueError:
            return count
        count += 1


@pytest.mark.slow
def test_the_tutorial_runs_on_a_real_model(cli: Cli, process: Cli, tmp_path: Path) -> None:
    for words in commands("docs/tutorial.md"):
        done = (process if words[1] == "run" else cli)(*words[1:], cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
        if words[1] == "new":
            shrink(tmp_path / "first/study.yaml")
    assert (tmp_path / "runs/first/report/index.html").is_file()
    assert "smollm2-135m-instruct" in done.stdout
    records = list((tmp_path / "runs/first/steps/train").glob("*/record.json"))
    facts = json.loads(records[0].read_text())["facts"]
    assert facts["last_loss"] > 0
    (corpus,) = (tmp_path / "runs/first/steps/corpus").glob("*/record.json")
    facts = json.loads(corpus.read_text())["facts"]
    part = (tmp_path / "first/part.json").read_text(errors="ignore")
    assert facts["read"] == whole_values(part) > 500
    assert facts["invalid"] == 0
    (lost,) = facts["lost"]
    assert lost.endswith("cut off in mid-string")


@pytest.mark.slow
def test_the_tutorials_corpus_is_read_to_where_its_file_is_cut_off() -> None:
    path = references.locate_data("sharegpt-v3-part")
    with File(path) as file:
        kinds = Counter(type(item) for item in file)
    assert kinds == {Row: 17_671, Lost: 1}
    assert whole_values(path.read_text()) == 17_671


def test_the_readme_names_only_verbs_and_options_that_exist(cli: Cli, tmp_path: Path) -> None:
    for words in commands("README.md"):
        verb = words[1:3] if words[1] == "corpus" else words[1:2]
        text = cli(*verb, "--help", cwd=tmp_path).stdout
        for word in words:
            if word.startswith("-"):
                assert word in text, (words, word)


def test_the_readmes_study_plans(cli: Cli, tmp_path: Path) -> None:
    for words in commands("README.md"):
        if words[1] in ("new", "plan", "status"):
            done = cli(*words[1:], cwd=tmp_path)
            assert done.returncode == 0, (words, done.stderr)


@pytest.mark.parametrize("study", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_study_plans(cli: Cli, study: Path, tmp_path: Path) -> None:
    done = cli("plan", study, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["to_do"] > 0


def test_the_readmes_python_is_valid_and_names_what_exists() -> None:
    import epigone as package

    for block in blocks("README.md", "python"):
        compile(block, "README.md", "exec")
        for name in re.findall(r"epigone\.(\w+)", block):
            assert name in package.__all__


def test_every_make_target_of_the_readme_exists() -> None:
    text = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("README.md", "sh")), re.MULTILINE):
        assert re.search(rf"^{target}:", text, re.MULTILINE)


def test_make_says_which_python_it_needs(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("no make")
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "-C", str(ROOT), "demo", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"],
        capture_output=True,
        text=True,
        env={**os.environ, "MAKEFLAGS": ""},
        check=False,
    )
    assert done.returncode == 2
    assert "needs Python 3.11 or newer" in done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_to_a_file_of_the_repository(page: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]+`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    # What only its writer should see shows in the page's source all the same.
    assert "<!--" not in text
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if ":" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
