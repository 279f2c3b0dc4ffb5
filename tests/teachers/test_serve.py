"""A local teacher through llama.cpp: a real server of a tiny model, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.models.test_convert import write_gguf

from epigone.errors import MissingExtra, UserError
from epigone.teachers.answers import Settings
from epigone.teachers.collect import ask_teacher
from epigone.teachers.means import Means
from epigone.teachers.serve import gguf_of, serving

pytestmark = pytest.mark.slow


@contextmanager
def served(model: Path, **env: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    command = [sys.executable, "-m", "epigone", "teacher", "serve", str(model)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--context", "64", "--parallel", "2", "--json"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, **env},
    )  # fmt: skip
    assert process.stdout
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("}"):
                break
        yield process, json.loads("".join(lines))
    finally:
        process.kill()
        process.wait()


def test_a_served_model_is_asked_and_ends_when_told(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    with served(write_gguf(tmp_path / "tiny.gguf")) as (process, told):
        assert told["endpoint"].startswith("http://127.0.0.1:")
        assert told["endpoint"].endswith("/v1#tiny")
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("a b\nb a\n")
        settings = Settings(max_tokens=8, cut=True, temperature=0.0)
        means = Means(ledgers=tmp_path / "ledger")
        facts = ask_teacher(prompts, tmp_path / "out", told["endpoint"], settings, means=means)
        assert facts["written"] + sum(facts["rejected"].values()) == 2
        assert facts["tokens"] > 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_a_key_in_the_environment_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    model = write_gguf(tmp_path / "tiny.gguf")
    with served(model, EPIGONE_API_KEY="sk-planted") as (_, told):
        body = {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}
        url = f"{told['url']}/chat/completions"
        assert httpx.post(url, json=body).status_code == 401
        headers = {"Authorization": "Bearer sk-planted"}
        assert httpx.post(url, json=body, headers=headers).status_code == 200
        assert "sk-planted" not in json.dumps(told)


def test_what_cannot_be_served_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model, says in (
        (str(tmp_path), "no model that can be served"),
        ("sharegpt-v3-part", "no model that can be served"),
        ("endpoint:http://x/v1#m", "no model that can be served"),
        ("smolm2-135m-instruct", "did you mean"),
    ):
        with pytest.raises(UserError, match=says) as raised:
            gguf_of(model)
        assert "\n" not in str(raised.value)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"epigone\[serve\]"), serving("smollm2-135m-instruct"):
        pass


def test_a_broken_file_is_told_in_a_line(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    (tmp_path / "model.gguf").write_bytes(b"GGUF but nothing more")
    with pytest.raises(UserError, match="not a GGUF file"), serving(str(tmp_path / "model.gguf")):
        pass


def test_a_port_that_is_taken_is_told_in_a_line(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    model = write_gguf(tmp_path / "tiny.gguf")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"cannot be served on port {port}"),
            serving(str(model), port=port),
        ):
            pass
