from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


@pytest.mark.slow
def test_a_corpus_of_several_formats_is_what_datasets_reads(
    cli: Cli, tmp_path: Path, talk: Path, adds_up: Callable[[Path], None]
) -> None:
    from datasets import load_dataset

    pairs = "\n".join(f"what is thing {i} for the winter,it is {i} of them" for i in range(30))
    (tmp_path / "pairs.csv").write_text(f"prompt,response\n{pairs}\n")
    done = cli(
        "corpus", "build", f"sharegpt={talk}", "pairs.csv", "-o", "c", "--held-out", "4",
        "--teacher", "claude-3", "--without", "same_query", "--with", "refusals", "--cap", "0",
        "--cap", "10", "--max-tokens", "400", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    adds_up(tmp_path / "c")
    assert facts["formats"]["pairs.csv"] == "pairs, CSV"
    assert facts["dropped"]["over_cap"] > 0
    rows = load_dataset(str(tmp_path / "c"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == facts["train"]
    assert rows.column_names[:2] == ["id", "messages"]
    assert {m["role"] for m in rows[0]["messages"]} >= {"user", "assistant"}
    assert {row["terms"] for row in rows} == {""}
    assert {row["teacher"] for row in rows} == {"claude-3"}
    card = (tmp_path / "c" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["configs"][0]["data_files"] == "train.parquet"
    assert "commercial use of a model trained on this data: no" in card

    stats = json.loads(
        cli("corpus", "stats", "c", "--diversity", "20", "--json", cwd=tmp_path).stdout
    )
    assert stats["by_terms"] == {"anthropic": facts["train"]}
    assert 0 < stats["diversity"]["mean_highest_bleu"] < 100
    assert Path(stats["page"]).is_file()


def test_a_use_that_the_terms_forbid_is_refused_before_any_work(
    cli: Cli, tmp_path: Path, talk: Path, study_text: str
) -> None:
    line = one_line(
        cli("corpus", "build", talk, "-o", "c", "--terms", "openai", "--use", "commercial",
            cwd=tmp_path)
    )  # fmt: skip
    assert "forbid commercial use" in line
    assert not (tmp_path / "c").exists()
    (tmp_path / "study.yaml").write_text(study_text.replace("name: scribe", "name: gpt-4o"))
    for verb in ("plan", "run"):
        line = one_line(cli(verb, "study.yaml", "--use", "commercial", cwd=tmp_path))
        assert "forbid commercial use" in line
    told = cli("plan", "study.yaml", cwd=tmp_path)
    assert told.returncode == 0
    assert "terms of talk: OpenAI terms of use" in told.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--with", "refusal"], "did you mean 'refusals'?"),
        (["--mix", "sharegpt-mx"], "did you mean 'sharegpt-mix'?"),
        (["--mix", "sharegpt-mix"], "needs a source of each of its formats"),
        (["--format", "sharegbt"], "did you mean 'sharegpt'?"),
        (["--cap", "1", "--cap", "2"], "--cap is given 2 times for 1 files"),
        (["--languages", "english"], "languages"),
        (["--decontaminate", "fact"], "did you mean 'facts'?"),
    ],
)
def test_mistakes_are_one_line(
    cli: Cli, tmp_path: Path, talk: Path, arguments: list[str], told: str
) -> None:
    line = one_line(cli("corpus", "build", talk, "-o", "c", *arguments, cwd=tmp_path))
    assert told in line
    assert not (tmp_path / "c").exists()


def test_a_mistake_in_a_corpus_has_its_place(cli: Cli, tmp_path: Path, study_text: str) -> None:
    text = study_text.replace("held_out: 6}", "held_out: 6, rules: {refusal: true}}")
    (tmp_path / "study.yaml").write_text(text)
    line = one_line(cli("plan", "study.yaml", cwd=tmp_path))
    number = next(i for i, row in enumerate(text.splitlines(), 1) if "refusal" in row)
    column = text.splitlines()[number - 1].index("refusal") + 1
    assert f"study.yaml:{number}:{column}: unknown rule: refusal (did you mean 'refusals'?)" in line


def test_rows_that_name_a_teacher_of_their_own_bring_its_terms(
    cli: Cli, tmp_path: Path, study_text: str, talk: Path
) -> None:
    rows = [
        {"prompt": f"what is thing {i} for the winter", "response": f"it is {i} of them",
         "model": "gpt-4" if i == 7 else ""}
        for i in range(30)
    ]  # fmt: skip
    logs = tmp_path / "logs.jsonl"
    logs.write_text("\n".join(map(json.dumps, rows)))
    asked = ("corpus", "build", logs, "--held-out", "2", "--teacher", "mixtral", "-o")
    line = one_line(cli(*asked, "c", "--use", "commercial", cwd=tmp_path))
    assert "rows of the corpus forbid commercial use" in line
    assert not (tmp_path / "c").exists()
    assert [p.name for p in (tmp_path / "c.partial").iterdir()] == ["failure.json"]
    facts = json.loads(cli(*asked, "c", "--json", cwd=tmp_path).stdout)
    assert facts["by_terms"] == {"mistral": 27, "openai": 1}
    assert "OpenAI terms of use" in (tmp_path / "c" / "README.md").read_text()
    # Whoever states the terms of the data vouches for all of it.
    stated = cli(*asked, "d", "--terms", "permissive", "--use", "commercial", cwd=tmp_path)
    assert stated.returncode == 0, stated.stderr

    text = study_text.replace("name: scribe", "name: mixtral").replace(str(talk), str(logs))
    (tmp_path / "study.yaml").write_text(text.replace("[600, 2k]", "[20, 60]"))
    assert cli("plan", "study.yaml", "--use", "commercial", cwd=tmp_path).returncode == 0
    done = cli("run", "study.yaml", "--use", "commercial", cwd=tmp_path)
    assert done.returncode == 2
    # Before it stands the progress of the corpus.
    assert "rows of corpus 'talk' forbid commercial use" in done.stderr.splitlines()[-1]
    line = one_line(cli("plan", "study.yaml", "--use", "commercial", cwd=tmp_path))
    assert "forbid commercial use" in line
    assert "OpenAI terms of use" in cli("plan", "study.yaml", cwd=tmp_path).stdout
