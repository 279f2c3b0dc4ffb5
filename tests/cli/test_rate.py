from __future__ import annotations

import json
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from epigone.cli.rate import _answers
from epigone.errors import UserError
from epigone.raters import serving
from epigone.study.rating import Raters
from epigone.study.values import told

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for model in ("teacher", "student"):
        rows = [{"item": f"i{n}", "prompt": f"q{n}", "output": f"{model} {n}"} for n in range(4)]
        (tmp_path / f"{model}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_any_files_become_a_rating_database(cli: Cli, folder: Path) -> None:
    with (folder / "student.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"item": "x", "prompt": "q", "output": "I am ChatGPT."}))
    with (folder / "teacher.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"item": "x", "prompt": "q", "output": "fine"}))
    (folder / "lr=0.1.jsonl").write_text((folder / "student.jsonl").read_text())
    words = ("rate", "tasks", "teacher.jsonl", "mine=lr=0.1.jsonl", "--db", "r.db")
    done = cli(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "5 comparisons, 3 raters each, in r.db (14 new)" in done.stdout
    assert "item x, mine: speaks as 'ChatGPT'" in done.stdout
    assert "(0 new)" in cli(*words, cwd=folder).stdout
    dropped = cli(*words[:-1], "other.db", "--drop-leaks", cwd=folder)
    assert "4 comparisons" in dropped.stdout and "1 items left out, for all" in dropped.stdout
    fewer = cli(*words, "--drop-leaks", "-n", "2", "--json", cwd=folder)  # the same database
    told = json.loads(fewer.stdout)
    assert (told["comparisons"], told["new"], told["taken_out"]) == (1, 0, 4)  # one names itself
    assert "speaks as" in fewer.stderr
    assert "2 items were asked for, 1 can be compared" in fewer.stderr
    refused = cli(*words, "--seed", "4", cwd=folder)
    assert refused.returncode == 2 and "another study or seed" in refused.stderr


def test_invitations_are_links_that_can_be_revoked(cli: Cli, folder: Path) -> None:
    cli("rate", "tasks", "teacher.jsonl", "student.jsonl", "--db", "r.db", cwd=folder)
    words = ("rate", "invite", "r.db", "-n", "2", "--label", "lab", "--url", "https://r.example")
    links = cli(*words, cwd=folder).stdout.split()
    assert len(set(links)) == 2
    assert all(re.fullmatch(r"https://r\.example/in/private/[\w.-]{40,}", x) for x in links)
    assert stat.S_IMODE((folder / "r.db.secret").stat().st_mode) == 0o600
    secret = (folder / "r.db.secret").read_text().strip()
    kept = b"".join(
        (folder / f"r.db{end}").read_bytes()
        for end in ("", "-wal")
        if (folder / f"r.db{end}").exists()
    )
    assert secret.encode() not in kept
    assert not any(link.rpartition("/")[2].encode() in kept for link in links)
    assert "revoked 2" in cli("rate", "revoke", "r.db", "lab", cwd=folder).stdout
    assert json.loads(cli("rate", "revoke", "r.db", "1", "--json", cwd=folder).stdout) == {
        "revoked": 0
    }
    wrong = cli("rate", "revoke", "r.db", "nobody", cwd=folder)
    assert wrong.returncode == 2 and "no such invitation: nobody" in wrong.stderr


def test_a_study_is_served_with_its_own_settings(
    cli: Cli, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "serve", lambda app, sockets, ready: (ready(), sockets[0].close()))
    study = whole / "study.yaml"
    text = study.read_text()
    study.write_text(text + "  raters: {per_item: 2, n: 3}\n")
    done = cli("rate", "study.yaml", "--port", "0", "--public", cwd=whole)
    assert done.returncode == 0, done.stderr
    assert "9 comparisons, 2 raters each" in done.stdout  # a base and two students
    # No terminal, so this may be a log, where no link belongs.
    assert "/in/private/" not in done.stdout and "invite raters:  epigone rate" in done.stdout
    assert "ratings.db.admin" in done.stdout and (whole / "runs/tiny/ratings.db").is_file()
    words = ("rate", "study.yaml", "--port", "0", "--host", "::1", "--json")
    again = cli(*words, cwd=whole)
    assert "(0 new)" in again.stderr
    link = json.loads(again.stdout)["invitation"]
    assert re.fullmatch(r"http://\[::1\]:\d+/in/private/[\w.-]{40,}", link)
    assert json.loads(cli(*words, cwd=whole).stdout)["invitation"] == ""
    wrong = cli("rate", "study.yaml", "--models", "nobody", cwd=whole)
    assert wrong.returncode == 2 and "unknown model: nobody" in wrong.stderr
    # What people are asked changes no step.
    assert json.loads(cli("plan", "study.yaml", "--json", cwd=whole).stdout)["to_do"] == 0
    study.write_text(text)


def test_models_that_have_not_answered_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Study(SimpleNamespace):
        def plan(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(step=SimpleNamespace(stage="generate", model=m), record=record)
                    for m, record in (("teacher", 1), ("student", 1), ("late", None))]  # fmt: skip

        def expansion(self) -> SimpleNamespace:
            subjects = [SimpleNamespace(model=m) for m in ("student", "late")]
            return SimpleNamespace(subjects=subjects)

    for model in ("teacher", "student"):
        (folder / model).mkdir()
        (folder / f"{model}.jsonl").rename(folder / model / "samples.jsonl")
    loaded: Any = Study(
        store=SimpleNamespace(folder=lambda step: folder / step.model),
        declaration=SimpleNamespace(teacher=SimpleNamespace(name="teacher"), name="s"),
    )
    assert len(_answers(loaded, [])[1]) == 1
    assert capsys.readouterr().err == "not answered yet, and left out: late\n"
    _answers(loaded, ["student"])
    assert capsys.readouterr().err == ""


def test_mistakes_are_told_in_a_line(cli: Cli, folder: Path) -> None:
    below = ("-o", "x.json", "--name", "N", "--description", "D", "--url", "https://x.org/a",
             "--reward", "9", "--minutes", "1", "--places", "1")  # fmt: skip
    for words, says in (
        (("rate", "invit", "r.db"), "unknown verb of rate: invit"),
        (("rate", "study-that-is-not-there.yaml"), "study-that-is-not-there.yaml"),
        (("rate", "serve", "none.db"), "no rating database: none.db"),
        (("rate", "invite", "none.db"), "no rating database: none.db"),
        (("rate", "serve", "x.db", "--url", "rate.example.org"), "not the address of a site"),
        (("rate", "invite", "x.db", "--url", "https://x.org/a"), "not below a path: https://x.org"),
        (("rate", "prolific", "create", *below), "not below a path: https://x.org"),
        (("rate", "mturk", "create", *below), "not below a path: https://x.org"),
        (("rate", "tasks", "none.jsonl", "student.jsonl", "--db", "r.db"), "cannot read"),
        (("rate", "tasks", "teacher.jsonl", "teacher.jsonl", "--db", "r.db"), "two files of one"),
    ):
        done = cli(*words, cwd=folder)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), (words, done.stderr)
        assert says in done.stderr
    assert not (folder / "none.db").exists()


def test_a_port_that_is_taken_is_told(cli: Cli, folder: Path) -> None:
    cli("rate", "tasks", "teacher.jsonl", "student.jsonl", "--db", "r.db", cwd=folder)
    with serving.bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        done = cli("rate", "serve", "r.db", "--port", port, cwd=folder)
    assert done.returncode == 2 and "cannot listen" in done.stderr
    done = cli("rate", "serve", "r.db", "--port", "0", "--host", "0.0.0.0", cwd=folder)
    assert done.returncode == 2 and "links need the address" in done.stderr


def test_a_host_that_gives_no_address_is_told() -> None:
    for host in ("0.0.0.0", "::", "0"):
        with (serving.bind(host, 0) as sock,
              pytest.raises(UserError, match=rf"{host} \(--url https")):  # fmt: skip
            serving.url(sock, host)
    with serving.bind("::1", 0) as sock:
        assert serving.url(sock, "::1") == f"http://[::1]:{sock.getsockname()[1]}"
    for host in ("..", "a" * 64 + ".example"):
        with pytest.raises(UserError, match=r"cannot listen: .*another --host"):
            serving.bind(host, 0)
    bare = ["http://rate.example", "http://10.0.0.1:8600"]
    fine = ["https://rate.example", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost"]
    assert [serving.is_bare(url) for url in (*bare, *fine)] == [True] * 2 + [False] * 4


def test_the_study_files_part_is_strict() -> None:
    from pydantic import ValidationError

    assert Raters().per_item == 3
    for wrong in ({"per_item": 0}, {"pairs": "some"}, {"models": "one"}, {"peritem": 3}):
        with pytest.raises(ValidationError) as caught:
            Raters.model_validate(wrong)
        assert "\n" not in str(told(caught.value))
