from __future__ import annotations

import contextlib
import io
import json
import logging
import subprocess
import sys
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from epigone import logs
from epigone.models.endpoint import Client, Endpoint
from epigone.runs.logged import logged
from epigone.schema import Message

from .endpoint_server import Server

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
SECRET = "sk-Ab/9+never+told"


class Read:
    """What has been logged since `with` began."""

    def __init__(self) -> None:
        self.text = io.StringIO()

    def __call__(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.text.getvalue().splitlines()]


@contextlib.contextmanager
def logging_on() -> Iterator[Read]:
    read = Read()
    with contextlib.redirect_stderr(read.text):
        logs.start()
        try:
            yield read
        finally:
            logs.stop()


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (f"key {SECRET}!", "key [hidden]!"),
        (f"?q={urllib.parse.quote(SECRET, safe='')}", "?q=[hidden]"),
        ("https://me:pass@host/v1", "https://[hidden]@host/v1"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [hidden]"),
        ("GET /v1?alt=json&key=AIza12&n=1", "GET /v1?alt=json&key=[hidden]&n=1"),
        ("/f?X-Amz-Signature=0af3 200", "/f?X-Amz-Signature=[hidden] 200"),
        ("mail me@example.org, see a://b/c@d", "mail me@example.org, see a://b/c@d"),
    ],
)
def test_secrets_are_taken_out(monkeypatch: pytest.MonkeyPatch, said: str, left: str) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", SECRET)
    assert logs.redacted(said) == left


def test_a_secret_that_begins_another_leaves_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A_KEY", "abcdef")
    monkeypatch.setenv("B_KEY", "abcdef-ghi")
    assert logs.redacted("x abcdef-ghi x") == "x [hidden] x"


def test_a_secret_at_the_place_where_a_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", SECRET)
    with logging_on() as read:
        for before in range(3_980, 4_001):
            logging.getLogger("epigone.x").info("%s", "-" * before + SECRET + "!" * 100)
    assert len(read()) == 21
    for row in read():
        assert SECRET[:4] not in row["message"]
        assert len(row["message"]) <= 4_001


def test_hostile_text_is_one_line_of_ascii() -> None:
    with logging_on() as read:
        logging.getLogger("epigone.x").warning("%s", "\x1b[2J\n\r\u2028é\ud800")
    line = read.text.getvalue().removesuffix("\n")
    assert line.isascii() and line.isprintable()
    assert read()[0]["message"] == "\x1b[2J\n\r\u2028é\ud800"


def test_a_librarys_mistake_in_a_log_line_is_a_log_line() -> None:
    wrong = logging.LogRecord("x", logging.INFO, "", 1, "%d of %d", ("no number",), None)
    told = logs._Json(io.StringIO()).format(wrong)
    assert json.loads(told)["message"] == "%d of %d ('no number',)"


@pytest.mark.filterwarnings("default")
def test_all_that_python_writes_to_stderr_is_a_log_line() -> None:
    with logging_on() as read:
        print("one\ntwo", file=sys.stderr)
        sys.stderr.write("thr")
        sys.stderr.write("ee")
        warnings.warn("beware", stacklevel=1)
        assert not sys.stderr.isatty()
        logging.getLogger("library").debug("not of interest")
        logging.getLogger("epigone.room").debug("of interest")
    told = [(row["logger"], row["level"], row["message"]) for row in read()]
    assert told[:2] == [("stderr", "info", "one"), ("stderr", "info", "two")]
    assert told[2][:2] == ("py.warnings", "warning") and "beware" in told[2][2]
    assert told[3:] == [
        ("epigone.room", "debug", "of interest"),
        ("stderr", "info", "three"),
    ]


def test_it_is_all_undone(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stderr, list(logging.getLogger().handlers), logging.getLogger().level
    logs.start()
    logs.start()
    assert logs.on()
    logs.stop()
    logs.stop()
    assert (sys.stderr, list(logging.getLogger().handlers), logging.getLogger().level) == before
    print("plain", file=sys.stderr)
    assert capsys.readouterr().err == "plain\n"


@pytest.mark.parametrize("words", [("--verbose", "plan", "absent.yaml"),
                                   ("plan", "absent.yaml", "--verbose")])  # fmt: skip
def test_verbose_before_and_after_the_verb(cli: Cli, tmp_path: Path, words: tuple[str]) -> None:
    plain = cli("plan", "absent.yaml", cwd=tmp_path)
    done = cli(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout) == (2, "")
    (row,) = map(json.loads, done.stderr.splitlines())
    assert plain.stderr == f"epigone: {row['message']}\n"
    assert (row["level"], row["logger"]) == ("error", "epigone")
    assert row["exception"].startswith("Traceback")
    assert "StudyFileError: absent.yaml: no such file" in row["exception"]


def test_a_mistake_of_our_own_is_a_log_line_too(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("epigone.cli.new.write_text", broken)
    with pytest.raises(ZeroDivisionError):
        cli("new", "mine", cwd=tmp_path)
    done = cli("new", "mine", "--verbose", cwd=tmp_path)
    (row,) = map(json.loads, done.stderr.splitlines())
    assert done.returncode == 1
    assert row["message"] == "ZeroDivisionError: of ours"
    assert "in broken" in row["exception"]


def test_requests_are_told_without_the_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    # No name that says what it holds, and a server that repeats it.
    monkeypatch.setenv("MY_JUDGE", SECRET)
    server.key = SECRET
    server.failures = [(500, {}, SECRET)]
    with logging_on() as read:
        client = Client(Endpoint(server.url, "m", "MY_JUDGE"))
        client.ask([Message(role="user", content="hi")], max_tokens=5)
        client.close()
        logging.getLogger("someone").info("sent %s", SECRET)
    rows = read()
    assert SECRET not in json.dumps(rows)
    assert [row["logger"] for row in rows if "HTTP/1" in row["message"]] == ["httpx", "httpx"]
    assert any(row["logger"] == "epigone.models.endpoint" for row in rows)
    assert rows[-1]["message"] == "sent [hidden]"


def test_what_a_run_does_names_its_step(tmp_path: Path) -> None:
    told: list[str] = []

    class Watcher:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_: told.append(name)

    (tmp_path / "failure.json").write_text('{"error": "e", "traceback": "Traceback: here"}')
    step, other = SimpleNamespace(name="train/a-1"), SimpleNamespace(name="style/b-2")
    with logging_on() as read:
        watcher = logged(Watcher())
        watcher.started(step, 1, 2)
        watcher.progress(step, 1, 2, "half")
        watcher.failed(step, "it broke", tmp_path / "log.txt")
        watcher.blocked([other], step)
        watcher.remaining(1, 2, 60.0)
    assert told == ["started", "progress", "failed", "blocked", "remaining"]
    begun, failed, blocked, _ = read()
    assert (begun["step"], begun["level"]) == ("train/a-1", "info")
    assert (failed["step"], failed["level"]) == ("train/a-1", "error")
    assert failed["exception"] == "Traceback: here"
    assert (blocked["step"], blocked["message"]) == ("style/b-2", "blocked by train/a-1")


def test_without_verbose_a_watcher_stays_as_it_is() -> None:
    watcher = object()
    assert logged(watcher) is watcher
