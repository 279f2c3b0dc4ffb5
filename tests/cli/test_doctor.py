from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from epigone.cli import doctor_machine, doctor_network, doctor_study
from epigone.cli.checks import Check, Probe, side_by_side
from epigone.models.endpoint import Endpoint

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parents[2]
KEY = "sk-never-sent-or-told"
H200 = ["NVIDIA H200", "143771", "570.86.15"]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, nothing is late but what never comes."""
    for module in (doctor_machine, doctor_network, doctor_study):
        monkeypatch.setattr(module, "SECONDS", 600.0)
    monkeypatch.setattr(doctor_network, "TIMEOUT", 600.0)


class Site:
    """A server that answers all with one answer, and what it was asked with what headers."""

    def __init__(self) -> None:
        self.status, self.headers, self.content = 200, {}, b"{}"
        self.endless = False
        self.asked: list[tuple[str, str]] = []
        self.sent: list[str] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def models(self, *names: str) -> None:
        self.content = json.dumps({"data": [{"id": name} for name in names]}).encode()


@contextmanager
def serving(site: Site) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            site.asked.append((self.command, self.path))
            site.sent += [f"{name}: {value}" for name, value in self.headers.items()]
            self.send_response(site.status)
            for name, value in site.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                try:
                    self.wfile.write(site.content)
                    while site.endless:
                        self.wfile.write(b"x" * 65_536)
                except OSError:
                    return

        do_HEAD = do_POST = do_GET

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    site.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    with serving(site):
        yield site


def looked(url: str, model: str = "m") -> Check:
    (check,) = doctor_network.look(Endpoint(f"{url}/v1", model), "teacher t")
    return check


def test_an_endpoint_is_asked_for_its_models_without_the_key(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIGONE_API_KEY", KEY)
    site.models("n", "m")
    check = looked(site.url)
    assert (check.state, check.found) == ("ok", f"127.0.0.1:{site.port} answers, and has the model")
    assert site.asked == [("GET", "/v1/models")]
    assert not any(KEY in header or "uthorization" in header for header in site.sent)


@pytest.mark.parametrize(
    ("status", "content", "state", "told"),
    [
        (401, b"", "ok", "answers, and wants a key"),
        (403, b"", "ok", "answers, and wants a key"),
        (200, b'{"data": [{"id": "gpt-5-mini"}]}', "note", "unknown model there: gpt-5-minis"),
        (404, b"<html>", "note", "answers HTTP 404 to GET /models"),
        (302, b"", "note", "answers HTTP 302 to GET /models"),
        (503, b"", "note", "answers HTTP 503 to GET /models"),
        (200, b"<html>\x1b[2J", "note", "answers no list of models"),
        (200, b"[" * 500_000, "note", "answers no list of models"),
        (200, b'{"data": {"id": 7}}', "note", "answers no list of models"),
        (200, b'{"data": [{"id": NaN}]}', "note", "answers no list of models"),
    ],
)
def test_what_an_endpoint_may_answer(
    site: Site, status: int, content: bytes, state: str, told: str
) -> None:
    site.status, site.content = status, content
    site.headers = {"Location": "http://127.0.0.1:1/elsewhere"}
    check = looked(site.url, "gpt-5-minis")
    assert (check.state, told in check.found) == (state, True), check
    assert check.state == "ok" or check.fix
    assert "\x1b" not in check.found


def test_an_answer_without_end_is_left(site: Site) -> None:
    site.endless = True
    assert looked(site.url).found.endswith("answers without end to GET /models")


def test_names_that_an_endpoint_makes_up_cannot_write_on_the_terminal(site: Site) -> None:
    site.models("\x1b[2Jm" * 10_000)
    check = looked(site.url)
    assert check.state == "note"
    assert len(check.found) < 300


def test_an_endpoint_that_is_not_there() -> None:
    check = looked("http://127.0.0.1:1")
    assert check.state == "problem"
    assert check.found.startswith("127.0.0.1:1 cannot be reached: ConnectError")
    assert check.fix == "start it, or check its URL and the network"


@pytest.mark.parametrize(
    ("url", "value", "state", "told"),
    [
        ("https://host/v1", KEY, "ok", "$JUDGE_KEY is set"),
        ("https://host/v1", None, "problem", "$JUDGE_KEY is not set"),
        ("http://host/v1", None, "ok", "an endpoint of your own may need none"),
        ("https://host/v1", f"{KEY}\n", "problem", "characters that no key has: $JUDGE_KEY"),
    ],
)
def test_the_variable_of_a_key(
    monkeypatch: pytest.MonkeyPatch, url: str, value: str | None, state: str, told: str
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("JUDGE_KEY", value)
    check = doctor_network.key(Endpoint(url, "m", "JUDGE_KEY"), "judge j")
    assert check.state == state
    assert told in check.found
    assert KEY not in check.found + check.fix


def test_the_package_index_is_the_one_that_pip_would_ask(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:{KEY}@127.0.0.1:{site.port}/simple/")
    (check,) = doctor_network._index()
    assert (check.state, check.found) == ("ok", "127.0.0.1 answers")
    assert site.asked == [("HEAD", "/simple/pip/")]
    site.status = 403
    monkeypatch.setattr(doctor_network, "_pip", lambda: {"index-url": site.url})
    (check,) = doctor_network._index()
    assert (check.state, check.need) == ("note", "index")
    assert check.found == "127.0.0.1 answers HTTP 403"
    monkeypatch.setattr(doctor_network, "_pip", lambda: {"no-index": "true", "find-links": "/w"})
    assert doctor_network._index()[0].found == "none by pip's settings; it looks into /w"
    monkeypatch.setattr(doctor_network, "_pip", lambda: None)
    assert "ensurepip" in doctor_network._index()[0].fix


def test_the_hub_is_the_one_that_is_set(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    assert doctor_network._hub()[0].state == "ok"
    assert site.asked == [("HEAD", "/")]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert doctor_network._hub()[0].state == "note"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor_network._hub()[0].found.startswith("off by HF_HUB_OFFLINE")


@pytest.mark.parametrize(
    ("torch", "driver", "said", "told"),
    [
        ({"gpus": []}, [], "", [("ok", "none: models run on the CPU")]),
        ({"gpus": [["NVIDIA H200", 150_000_000_000]], "cuda": "12.8"}, [H200], "",
         [("ok", "NVIDIA H200, 150.0 GB, driver 570.86.15")]),
        ({"gpus": [["AMD Instinct MI300X", 206_000_000_000]], "hip": "6.4"}, [], "",
         [("ok", "AMD Instinct MI300X, 206.0 GB")]),
        ({"gpus": []}, [H200, H200], "", [("note", "it is a build for the CPU")] * 2),
        ({"gpus": [], "cuda": "13.0"}, [H200], "x\nthe driver is too old (11040)",
         [("note", "torch cannot use it, the driver is too old (11040)")]),
        ({"gpus": [], "cuda": "13.0"}, None, "", [("note", "its driver does not answer")]),
        ({"gpus": [], "mps": True}, [], "", [("ok", "Apple's, through Metal")]),
    ],
)  # fmt: skip
def test_gpus_of_torch_beside_those_of_the_driver(
    torch: dict[str, Any], driver: Any, said: str, told: list[tuple[str, str]]
) -> None:
    torch = {"cuda": None, "hip": None, "mps": False, **torch}
    found = doctor_machine.gpus(torch, driver, said)
    assert [check.state for check in found] == [state for state, _ in told]
    for check, (state, text) in zip(found, told, strict=True):
        assert check.found.endswith(text)
        assert bool(check.fix) is (state == "note")


def test_every_extra_says_what_it_gives() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*doctor_machine.GIVES, "dev"} == set(extras["optional-dependencies"])


def test_an_extra_that_is_not_installed_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name == "typst":
            raise metadata.PackageNotFoundError(name)
        return "1.8" if name == "vl-convert-python" else "99"

    needs = ["vl-convert-python>=1.9; extra == 'pdf'", "typst>=0.15; extra == 'pdf'",
             "zstandard>=0.22; extra == 'zstd'", "httpx>=0.27"]  # fmt: skip
    monkeypatch.setattr(doctor_machine.metadata, "requires", lambda _: needs)
    monkeypatch.setattr(doctor_machine.metadata, "version", version)
    found = doctor_machine._extra("pdf", "reports")
    assert (found.state, found.fix) == ("note", "pip install 'epigone[pdf]'")
    assert found.found == "vl-convert-python 1.8 is not >=1.9; typst is missing: reports"
    assert doctor_machine._extra("zstd", "data").state == "ok"
    assert doctor_machine._packages()[0].found == "epigone 99 and all 1 it needs"
    needs.append("typst")
    assert doctor_machine._packages()[0].state == "problem"


def test_a_disk_that_cannot_hold_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def free(count: float) -> Check:
        usage = type("Usage", (), {"free": count})
        monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda _: usage)
        return doctor_machine._disk("disk", tmp_path / "runs" / "deep", "set X")

    assert [free(n).state for n in (6e9, 4e9, 0.5e9)] == ["ok", "note", "problem"]
    assert free(4e9).found == f"4.0 GB free for {tmp_path}/runs/deep"

    def refuse(number: int) -> None:
        def temporary(dir: Path) -> None:
            assert dir == tmp_path
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(doctor_machine, "TemporaryFile", temporary)

    refuse(errno.EROFS)
    assert free(0).found == f"{tmp_path} cannot be written to"
    refuse(errno.ENOSPC)  # of names for files, say
    assert (free(6e9).state, free(6e9).fix) == ("problem", "free some space, or set X")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_where_even_root_cannot_write_is_no_lack_of_space() -> None:
    check = doctor_machine._disk("disk of cache", Path("/proc/foo/bar"), "set X")
    assert (check.state, check.found) == ("problem", "/proc cannot be written to")
    assert check.fix == "set X"


def test_what_is_not_here_has_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found = {check.name: check for check in doctor_machine._programs()}
    assert {check.state for check in found.values()} == {"note"}
    assert "apt install chromium" in found["browser"].fix
    assert "apt install postgresql" in found["PostgreSQL"].fix
    monkeypatch.setattr(doctor_machine.shutil, "which", lambda name: f"/bin/{name}")
    assert {check.state for check in doctor_machine._programs()} == {"ok"}


def test_a_probe_that_hangs_hangs_nobody() -> None:
    never = threading.Event()
    late = Check("s", "late", "note", "no answer")

    def hangs() -> list[Check]:
        never.wait()
        return []

    found = side_by_side(
        [
            Probe(hangs, 0.05, late),
            Probe(lambda: [Check("s", "quick", "ok", "here")], 60, late),
        ]
    )
    never.set()
    assert [check.name for check in found] == ["late", "quick"]


@pytest.fixture
def study_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor looks at a study, and not at the machine."""
    sandbox = Check("Machine", "sandbox", "note", "there is no bwrap", "get one", "sandbox")
    probe = Probe(lambda: [sandbox], 60, sandbox)
    monkeypatch.setattr(doctor_machine, "probes", lambda _: [probe])
    hub = Check("Network", "model hub", "note", "not there", "check", "hub")
    monkeypatch.setattr(doctor_network, "probes", lambda: [Probe(lambda: [hub], 60, hub)])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """What looks like a model where nobody opens it."""
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


STUDY = """\
name: ill
teacher: {{name: t, endpoint: {{url: "{url}/v1", model: m, key_env: T_KEY}}}}
bases: [{base}]
corpora: {{talk: {{kind: broad, from: [{talk}], held_out: 6}}}}
amounts: {{talk: [600]}}
tokenizer: {base}
evaluate:
  benchmarks: [{benchmark}]
  style: {{n: 6}}
"""


@pytest.mark.usefixtures("study_alone")
def test_a_study_is_looked_at_with_all_that_it_lacks(
    cli: Cli, site: Site, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T_KEY", KEY)
    site.models("m")
    text = STUDY.format(url=site.url, base=base, talk="no/talk.json", benchmark="humaneval")
    (tmp_path / "study.yaml").write_text(text)
    done = cli("doctor", "study.yaml", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"]) == (1, False)
    rows = [(row["state"], row["name"], row["found"]) for row in told["checks"]]
    assert ("problem", "sandbox", "there is no bwrap") in rows
    assert ("note", "model hub", "not there") in rows
    assert ("problem", "data", f"nothing lies at {tmp_path}/no/talk.json") in rows
    assert ("ok", "data", f"{base} is there") in rows
    assert ("ok", "key of teacher t", "$T_KEY is set") in rows
    assert ("ok", "teacher t", f"127.0.0.1:{site.port} answers, and has the model") in rows
    assert KEY not in done.stdout + done.stderr
    assert not any(KEY in header for header in site.sent)
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("study_alone")
def test_a_study_that_lacks_nothing(cli: Cli, tmp_path: Path, base: Path, talk: Path) -> None:
    text = STUDY.format(url="http://127.0.0.1:1", base=base, talk=talk, benchmark="facts")
    (tmp_path / "study.yaml").write_text(text)
    done = cli("doctor", "study.yaml", "--offline", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.endswith("Nothing is missing, 1 note.\n")
    assert f"  ok       data              {talk} is there\n" in done.stdout
    done = cli("doctor", "study.yaml", cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    place = next(i for i, line in enumerate(lines) if "cannot be reached" in line)
    assert lines[place].startswith("  problem  teacher t")
    assert lines[place + 1].strip() == "fix: start it, or check its URL and the network"


@pytest.mark.usefixtures("study_alone")
def test_a_study_file_that_is_wrong_is_a_problem(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: x\nbasis: 3\n")
    done = cli("doctor", "study.yaml", "--offline", cwd=tmp_path)
    assert done.returncode == 1
    assert "study.yaml:2:1: unknown key: basis" in done.stdout
    assert "fix: did you mean 'bases'?" in done.stdout


def test_a_shipped_study_says_what_its_own_code_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_study, "side_by_side", lambda _: [])
    study = ROOT / "studies/text2cypher.yaml"
    assert "sandbox" in doctor_study.examine(study, Path("runs"), True)[1]
    monkeypatch.setattr(doctor_study.importlib.util, "find_spec", lambda _: None)
    checks, _ = doctor_study.examine(study, Path("runs"), True)
    assert "pip install 'epigone[cypher]'" in {check.fix for check in checks}


def test_this_machine(cli: Cli, tmp_path: Path) -> None:
    done = cli("doctor", "--offline", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    version = re.escape(metadata.version("torch"))
    assert re.search(rf"^  ok       torch +{version}, .* build, \d+ threads$", done.stdout, re.M)
    assert "bubblewrap isolates a program" in done.stdout or "HumanEval" in done.stdout
    assert "Network" not in done.stdout
