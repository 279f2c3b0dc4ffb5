from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parents[2]
VERBS = (
    "new", "plan", "run", "status", "report", "compare", "show", "study-schema", "corpus build",
    "corpus stats", "train", "generate", "benchmark", "style", "doctor", "cache ls", "cache clear",
)  # fmt: skip


def one_line(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one line on stderr that a mistake gives."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("epigone: ")
    return lines[0]


@pytest.mark.parametrize("verb", VERBS)
def test_help_tells_what_a_verb_does_with_an_example(cli: Cli, verb: str) -> None:
    done = cli(*verb.split(), "--help", cwd=ROOT)
    assert done.returncode == 0
    assert "Example: epigone" in " ".join(done.stdout.split())
    assert "--json" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("plan", "studies/pocket.yaml"),
        ("status", "studies/pocket.yaml"),
        ("study-schema",),
        ("--version",),
    ],
)
def test_light_verbs_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['epigone', *{arguments!r}]\n"
        "try:\n    runpy.run_module('epigone', run_name='__main__')\n"
        "except SystemExit as e:\n    assert not e.code, e.code\n"
        "heavy = {'torch', 'transformers', 'lm_eval', 'datasets', 'altair', 'scipy', 'numpy'}\n"
        "heavy.add('httpx')\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_plan_downloads_nothing_and_writes_nothing(process: Cli, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    env = {"EPIGONE_HOME": str(cache), "PIP_NO_INDEX": "1"}
    done = process("plan", ROOT / "studies/pocket.yaml", "--json", cwd=tmp_path, env=env)
    plan = json.loads(done.stdout)
    assert len(plan["cells"]) == 4
    assert plan["done"] == 0
    assert plan["teacher_tokens_to_train"] == 64_000
    assert {s["why"] for s in plan["steps"]} == {"never ran"}
    assert list(tmp_path.iterdir()) == []


def test_the_schema_accepts_the_shipped_studies(cli: Cli) -> None:
    import jsonschema

    schema = json.loads(cli("study-schema", cwd=ROOT).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    for path in (ROOT / "studies").glob("*.yaml"):
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    broken = yaml.safe_load((ROOT / "studies/pocket.yaml").read_text()) | {"basis": 1}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_new_writes_a_study_that_plans(cli: Cli, tmp_path: Path) -> None:
    assert cli("new", "mine", cwd=tmp_path).returncode == 0
    text = (tmp_path / "mine/study.yaml").read_text()
    assert text.count("#") > 10
    done = cli("plan", "mine", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["study"] == "mine"
    again = one_line(cli("new", "mine", cwd=tmp_path))
    assert "a study is there already" in again
    assert "not a name" in one_line(cli("new", "bad name!", cwd=tmp_path))


def test_mistakes_on_the_command_line(cli: Cli, process: Cli, tmp_path: Path) -> None:
    for verbs in (cli, process):
        assert "did you mean 'plan'?" in one_line(verbs("plam", cwd=tmp_path))
    assert "--jsom" in one_line(cli("plan", "x.yaml", "--jsom", cwd=tmp_path))
    assert "Missing argument" in one_line(cli("plan", cwd=tmp_path))
    assert "no such file" in one_line(cli("plan", "absent.yaml", cwd=tmp_path))


def study(tmp_path: Path, text: str, old: str = "", new: str = "") -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(text.replace(old, new, 1) if old else text)
    return file


def refused(cli: Cli, tmp_path: Path, text: str, old: str, new: str, **kw: object) -> str:
    """The line that `run` gives for an edited study; no step may have been begun."""
    done = cli("run", study(tmp_path, text, old, new), cwd=tmp_path, **kw)
    line = one_line(done)
    assert not (tmp_path / "runs/tiny/steps").exists()
    return line


def test_a_study_that_is_not_yaml(cli: Cli, tmp_path: Path, study_text: str) -> None:
    line = refused(cli, tmp_path, study_text, "bases: [", "bases: [[")
    assert "not YAML" in line
    assert "study.yaml:" in line


def test_an_unknown_base_is_told_with_the_nearest(
    cli: Cli, tmp_path: Path, study_text: str, tiny_base: Path
) -> None:
    line = refused(cli, tmp_path, study_text, str(tiny_base), "gemma-3-270n")
    assert "did you mean 'gemma-3-270m'?" in line
    text = (tmp_path / "study.yaml").read_text().splitlines()
    place = next(i for i, row in enumerate(text) if "gemma-3-270n" in row)
    column = text[place].index("gemma-3-270n") + 1
    assert f"study.yaml:{place + 1}:{column}: unknown" in line


def test_a_base_that_is_called_as_the_teacher(
    cli: Cli, tmp_path: Path, study_text: str, tiny_base: Path
) -> None:
    teacher = yaml.safe_load(study_text)["teacher"]["name"]
    line = refused(cli, tmp_path, study_text, f"name: {teacher}", f"name: {tiny_base.name}")
    assert "a base has the teacher's name" in line


def test_paths_start_at_the_study_files_folder(
    cli: Cli, tmp_path: Path, study_text: str, talk: Path
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/here.json").write_bytes(talk.read_bytes())
    (tmp_path / "deep/study.yaml").write_text(study_text.replace(str(talk), "here.json"))
    here = cli("plan", "deep/study.yaml", "--json", cwd=tmp_path)
    assert here.returncode == 0, here.stderr
    assert json.loads(here.stdout)["to_do"] > 0


def test_an_unknown_benchmark_is_told_with_the_nearest(
    cli: Cli, tmp_path: Path, study_text: str
) -> None:
    assert "did you mean 'facts'?" in refused(cli, tmp_path, study_text, "[facts", "[fact")


def test_a_pickle_model_is_refused(
    cli: Cli, tmp_path: Path, study_text: str, tiny_base: Path
) -> None:
    bad = tmp_path / "pickled"
    bad.mkdir()
    (bad / "config.json").write_text((tiny_base / "config.json").read_text())
    (bad / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    line = refused(cli, tmp_path, study_text, str(tiny_base), str(bad))
    assert "safetensors" in line


def test_a_missing_extra_is_named(
    process: Cli, tmp_path: Path, study_text: str, talk: Path
) -> None:
    packed = tmp_path / "talk.json.zst"
    packed.write_bytes(b"\x28\xb5\x2f\xfd")
    # A module of this name that cannot be imported stands in for the package not being there.
    (tmp_path / "zstandard.py").write_text("raise ImportError")
    line = refused(
        process, tmp_path, study_text, str(talk), str(packed), env={"PYTHONPATH": str(tmp_path)}
    )
    assert "pip install 'epigone[zstd]'" in line


def test_an_amount_larger_than_the_files_is_refused(
    cli: Cli, tmp_path: Path, study_text: str
) -> None:
    line = refused(cli, tmp_path, study_text, "2k]", "900m]")
    assert "amount larger than corpus 'talk'" in line


def test_a_model_that_does_not_exist_on_the_hub(
    process: Cli, tmp_path: Path, study_text: str, tiny_base: Path
) -> None:
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        env = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
        line = refused(process, tmp_path, study_text, str(tiny_base), "hf:nobody/nothing", env=env)
    finally:
        server.shutdown()
        server.server_close()
    assert "nobody/nothing" in line


@pytest.mark.slow
def test_a_corpus_with_nothing_left(cli: Cli, tmp_path: Path, study_text: str, talk: Path) -> None:
    empty = tmp_path / "empty.json"
    empty.write_text('[{"id": "a", "conversations": []}]' + " " * 4096)
    done = cli("run", study(tmp_path, study_text, str(talk), str(empty)), cwd=tmp_path)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("epigone: ")
    assert "nothing" in last
    assert "no_turns" in last


@pytest.mark.slow
def test_an_amount_larger_than_the_corpus_stops_before_training(
    cli: Cli, tmp_path: Path, study_text: str
) -> None:
    done = cli("run", study(tmp_path, study_text, "2k]", "9k]"), cwd=tmp_path)
    assert done.returncode == 2
    assert "amount larger than corpus 'talk'" in done.stderr.strip().splitlines()[-1]
    assert {p.name for p in (tmp_path / "runs/tiny/steps").iterdir()} == {"corpus", "items"}


@pytest.mark.slow
def test_every_verb_on_a_finished_study(cli: Cli, whole: Path, study_text: str) -> None:
    tmp_path, file = whole, whole / "study.yaml"
    told = (whole / "told.txt").read_text()
    assert "Where the time went" in told
    assert Path(told.strip().splitlines()[-1].removeprefix("report: ")).is_file()

    status = json.loads(cli("status", file, "--json", cwd=tmp_path).stdout)
    assert {s["state"] for s in status["steps"]} == {"done"}
    assert status["runners"] == []
    assert "nobody works on it" in cli("status", file, cwd=tmp_path).stdout

    report = json.loads(cli("report", file, "--json", cwd=tmp_path).stdout)
    page = Path(report["report"])
    assert page == whole / "runs/tiny/report/index.html"
    assert page.is_file()
    assert report["verdicts"]

    names = json.loads(cli("show", file, "--json", cwd=tmp_path).stdout)
    record = json.loads(cli("show", file, names["steps"][0], cwd=tmp_path).stdout)
    assert record["stage"] == "items"
    model = names["models"][-1]
    assert "--- scribe" in cli("show", file, model, "-n", "1", cwd=tmp_path).stdout
    assert len(json.loads(cli("show", file, model, "--json", cwd=tmp_path).stdout)) == 3
    assert "unknown step or model" in one_line(cli("show", file, "nonsense", cwd=tmp_path))

    plan = json.loads(cli("plan", file, "--json", cwd=tmp_path).stdout)
    assert plan["to_do"] == 0
    changed = study(tmp_path, study_text, "n: 6", "n: 5")
    why = cli("plan", changed, "--why", cwd=tmp_path).stdout
    assert "spec.n: 6 -> 5" in why


@pytest.mark.slow
def test_the_stages_by_themselves(cli: Cli, tmp_path: Path, talk: Path, tiny_base: Path) -> None:
    def good(*arguments: str | Path) -> str:
        done = cli(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    built = json.loads(good("corpus", "build", talk, "-o", "c", "--held-out", "6", "--json"))
    assert built["read"] == 64
    assert good("corpus", "build", talk, "-o", "c", "--held-out", "6")  # the same again is done
    other = cli("corpus", "build", talk, "-o", "c", "--held-out", "7", cwd=tmp_path)
    assert "another request" in one_line(other)
    assert json.loads(good("corpus", "stats", "c", "--json"))
    out = good(
        "train", tiny_base, "c", "-o", "s", "--amount", "600", "--batch", "2", "--block", "128"
    )
    student = out.strip()
    for model, file in ((str(tiny_base), "base.jsonl"), (student, "student.jsonl")):
        good("generate", model, "c/held_out.jsonl", "-o", file, "--max-new-tokens", "8")
    shutil.copy(tmp_path / "base.jsonl", tmp_path / "copy.jsonl")
    scores = json.loads(good("style", "base.jsonl", "copy.jsonl", "student.jsonl", "--json"))
    same = [s for s in scores if s["model"] == "copy" and s["metric"] == "unigram"]
    assert same[0]["value"] == 100
    bench = json.loads(good("benchmark", student, "--tasks", "facts", "--limit", "4", "--json"))
    assert bench[0]["n"] == 4
    assert "did you mean 'facts'" in one_line(
        cli("benchmark", student, "--tasks", "factz", cwd=tmp_path)
    )
