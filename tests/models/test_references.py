"""What references mean, their fingerprints, and what is refused; the hub is a server of our own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from epigone.errors import FetchError, ModelError, UnknownName, UserError
from epigone.models import catalogue, references
from epigone.models.references import Reference, data_fingerprint, fingerprint, locate, parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with made-up weights."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text("{}")
    (path / "README.md").write_text("about")
    weights = {"a": np.zeros((3, 5), np.float32), "b": np.ones(7, np.float32)}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


def test_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here.json").write_text("[]")
    (tmp_path / "m.gguf").write_text("")
    (tmp_path / "gemma-3-270m").mkdir()
    monkeypatch.chdir(tmp_path)
    expected = {
        "gemma-3-270m": Reference("catalogue", "gemma-3-270m"),
        "./gemma-3-270m": Reference("folder", str(tmp_path / "gemma-3-270m")),
        "here.json": Reference("file", str(tmp_path / "here.json")),
        "m.gguf": Reference("gguf", str(tmp_path / "m.gguf")),
        "gguf:here.json": Reference("gguf", str(tmp_path / "here.json")),
        "hf:gpt2": Reference("hf", "gpt2"),
        "hf:org/name": Reference("hf", "org/name"),
        "hf:org/na.me@refs/pr/1": Reference("hf", "org/na.me", "refs/pr/1"),
        "endpoint:https://h:1/v1#m/x": Reference("endpoint", "https://h:1/v1#m/x"),
    }
    for text, reference in expected.items():
        assert parse(text) == reference
        monkeypatch.chdir("/")
        assert parse(str(reference)) == reference, "the written form means the same anywhere"
        monkeypatch.chdir(tmp_path)


def test_relative_paths_start_at_the_base_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.json").write_text("[]")
    monkeypatch.chdir("/")
    assert parse("x.json", base_dir=tmp_path).value == str(tmp_path / "x.json")
    with pytest.raises(UnknownName):
        parse("x.json")


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("gemma-3-270", "did you mean 'gemma-3-270m'"),
        ("no/such", "or write hf:no/such"),
        ("hf:a/b/c", "hf:org/name"),
        ("hf:", "hf:org/name"),
        ("hf:a/b@", "hf:org/name"),
        ("gguf:/no/such.gguf", "no such file"),
        ("endpoint:ftp://h#m", "endpoint:https"),
        ("endpoint:http://h/v1", "endpoint:https"),
        ("endpoint:http://me:secret@h/v1#m", "environment variable"),
        ("endpoint:http://[::1/v1#m", "not an endpoint's URL"),
        ("endpoint:http://h:1x/v1#m", "not an endpoint's URL"),
        ("endpoint:http://me:secret@h/v1", "environment variable"),
        ("endpoint:ftp://me:secret@h/v1#m", "environment variable"),
        ("endpoint:http://me:secret@[::1/v1#m", "not an endpoint's URL"),
        ("endpoint:http://me:secret#1@h/v1#m", "not an endpoint's URL"),
    ],
)
def test_mistakes_are_told_with_the_fix(ref: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(ref)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys; from epigone.models import references as r;"
        "assert r.fingerprint('gemma-3-270m', offline=True);"
        "assert r.parameters('gemma-3-270m') == 268098176;"
        "assert not {'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_equal_content_has_equal_fingerprints(cache: Path, tmp_path: Path) -> None:
    content = os.urandom(100)
    for name in ("a.json", "b.json", "c.gguf", "d.gguf"):
        (tmp_path / name).write_bytes(content)
    expected = f"sha256:{hashlib.sha256(content).hexdigest()}"
    for ref in ("a.json", "b.json"):
        assert fingerprint(str(tmp_path / ref)) == expected
    converted = fingerprint(str(tmp_path / "c.gguf"))
    assert converted.startswith(expected)
    assert fingerprint(str(tmp_path / "d.gguf")) == converted
    entry = catalogue.find("sharegpt-v3-part")
    assert fingerprint("sharegpt-v3-part") == f"sha256:{entry.sha256}"


def test_a_folder_is_known_by_what_matters(cache: Path, folder: Path, tmp_path: Path) -> None:
    first = fingerprint(str(folder))
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("other words")
    (copy / "optimizer.pt").write_bytes(b"x")
    assert fingerprint(str(copy)) == first
    seen = {first}
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"):
        with open(copy / name, "ab") as f:
            f.write(b" ")
        seen.add(fingerprint(str(copy)))
    (copy / "tokenizer.json").rename(copy / "tokenizer_config.json")
    seen.add(fingerprint(str(copy)))
    assert len(seen) == 6


def test_compiled_files_are_no_data_of_a_folder(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "utils.py").write_text("x = 1\n")
    first = data_fingerprint(str(tmp_path))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "utils.cpython-311.pyc").write_bytes(b"x")
    assert data_fingerprint(str(tmp_path)) == first
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert data_fingerprint(str(tmp_path)) != first


def test_a_large_file_is_hashed_once_until_it_changes(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.json"
    path.write_bytes(bytes(2 << 20))
    counted: list[Path] = []
    plain = references.sha256_file

    def hashed(file: Path) -> str:
        counted.append(file)
        return plain(file)

    now = time.time_ns()
    monkeypatch.setattr(references, "sha256_file", hashed)
    monkeypatch.setattr(time, "time_ns", lambda: now)
    first = fingerprint(str(path))
    assert first == fingerprint(str(path))
    assert len(counted) == 2, "just written: it may change within one tick of the clock"
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**10)
    assert {fingerprint(str(path)) for _ in range(3)} == {first}
    assert len(counted) == 3
    stat = path.stat()
    path.write_bytes(b"\1" * (2 << 20))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(str(path)) != first
    (cache / "fingerprints.json").write_text("{broken")
    assert fingerprint(str(path)) != first


def test_hub_references_offline() -> None:
    assert fingerprint("hf:org/name", offline=True) is None
    assert fingerprint("hf:org/name@main", offline=True) is None
    assert fingerprint(f"hf:org/name@{COMMIT}", offline=True) == f"hf:org/name@{COMMIT}"


def test_pickles_are_refused(cache: Path, tmp_path: Path, folder: Path) -> None:
    for name in ("pytorch_model.bin", "model.pt", "a.ckpt", "b.PKL"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ModelError, match="pickle"):
            parse(str(tmp_path / name))
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert locate(str(folder)) == folder, "a pickle beside safetensors is never opened"
    (folder / "model.safetensors").unlink()
    for use in (locate, fingerprint, references.check_model):
        with pytest.raises(ModelError, match=r"pickle.*save_pretrained"):
            use(str(folder))


def test_what_is_no_model(cache: Path, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    for ref in ("sharegpt-v3-part", str(tmp_path / "x.json"), "endpoint:http://h/v1#m"):
        with pytest.raises(ModelError, match="not a model"):
            references.check_model(ref)
    with pytest.raises(ModelError, match="no files"):
        locate("endpoint:http://h/v1#m")
    with pytest.raises(ModelError, match="name the folder"):
        parse(str(folder / "model.safetensors"))
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json"):
        locate(str(folder))


def test_files_that_changed_since_the_plan(cache: Path, folder: Path) -> None:
    planned = fingerprint(str(folder))
    assert locate(str(folder), fingerprint=planned) == folder
    (folder / "config.json").write_text("{ }")
    with pytest.raises(UserError, match="changed since"):
        locate(str(folder), fingerprint=planned)


def test_parameters_are_counted_from_the_headers(folder: Path) -> None:
    assert references.parameters(str(folder)) == 3 * 5 + 7
    assert references.parameters("sharegpt-v3-part") is None
    (folder / "broken.safetensors").write_bytes(b"123")
    with pytest.raises(ModelError, match="not a safetensors file"):
        references.parameters(str(folder))


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as a download needs; `folder` is the repository org/good."""

    folder: Path
    asked: list[str]

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        names = sorted(p.name for p in self.folder.iterdir())
        listed = [{"rfilename": name} for name in names]
        if path.startswith("/api/models/org/good/tree/"):
            self._send(json.dumps(self._tree(names)).encode(), body)
        elif path.startswith("/api/models/org/good"):
            info = {"id": "org/good", "modelId": "org/good", "sha": COMMIT, "siblings": listed}
            self._send(json.dumps(info).encode(), body)
        elif path.startswith("/api/datasets/org/data/tree/"):
            self._send(json.dumps(self._tree(["rows.jsonl", "setup.py"])).encode(), body)
        elif path.startswith("/api/datasets/org/data"):
            info = {"id": "org/data", "sha": COMMIT, "siblings": [{"rfilename": "rows.jsonl"}]}
            self._send(json.dumps(info).encode(), body)
        elif path.startswith(f"/datasets/org/data/resolve/{COMMIT}/"):
            self._send(b'{"prompt": "p", "response": "r"}', body, ETag='"0123"')
        elif path.startswith("/api/models/org/pickled"):
            files = [{"rfilename": "config.json"}, {"rfilename": "pytorch_model.bin"}]
            info = {"id": "org/pickled", "modelId": "org/pickled", "sha": COMMIT, "siblings": files}
            self._send(json.dumps(info).encode(), body)
        elif path.startswith(f"/org/good/resolve/{COMMIT}/"):
            name = path.rsplit("/", 1)[1]
            tag = hashlib.sha1(name.encode()).hexdigest()
            self._send((self.folder / name).read_bytes(), body, ETag=f'"{tag}"')
        elif "gated" in path:
            self._fail(403, "GatedRepo")
        elif "broken" in path:
            self._fail(500, "")
        else:
            self._fail(404, "RepoNotFound" if "headers" in path else "")

    def _tree(self, names: list[str]) -> list[dict[str, object]]:
        return [
            {
                "type": "file",
                "path": name,
                "size": 32,
                "oid": hashlib.sha1(name.encode()).hexdigest(),
            }
            for name in names
        ]

    def _send(self, content: bytes, body: bool, **headers: str) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _fail(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on this machine, and an empty hub cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    handler = type("Served", (Hub,), {"folder": folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield handler
    server.shutdown()
    server.server_close()


def test_a_hub_model_is_pinned_and_fetched(cache: Path, hub: type[Hub], folder: Path) -> None:
    assert fingerprint("hf:org/good") == f"hf:org/good@{COMMIT}"
    seen: list[tuple[float, float]] = []
    path = locate("hf:org/good", lambda d, t, n="": seen.append((d, t)))
    names = {p.name for p in path.iterdir()}
    assert names == {"config.json", "tokenizer.json", "model.safetensors"}
    weights = (folder / "model.safetensors").read_bytes()
    assert (path / "model.safetensors").read_bytes() == weights
    assert not any("pytorch_model.bin" in asked for asked in hub.asked)
    assert all(0 <= done <= total for done, total in seen)
    hub.asked.clear()
    pinned = locate("hf:org/good@main", fingerprint=f"hf:org/good@{COMMIT}")
    assert pinned == path
    assert not any("main" in asked for asked in hub.asked), "the branch may have moved"


@pytest.mark.parametrize(
    ("repo", "told"),
    [
        ("org/absent", "no such model"),
        ("org/headers", "no such model"),
        ("org/gated", "gated"),
        ("org/broken", "500"),
    ],
)
def test_what_the_hub_refuses(cache: Path, hub: type[Hub], repo: str, told: str) -> None:
    for use in (fingerprint, locate):
        with pytest.raises(ModelError, match=told) as caught:
            use(f"hf:{repo}")
        assert "\n" not in str(caught.value)
        assert repo in str(caught.value)


def test_a_hub_model_of_pickles_only(cache: Path, hub: type[Hub]) -> None:
    with pytest.raises(ModelError, match="pickle"):
        fingerprint("hf:org/pickled")


def test_a_pinned_model_is_asked_for_before_any_work(cache: Path, hub: type[Hub]) -> None:
    with pytest.raises(ModelError, match="no such model"):
        fingerprint(f"hf:org/absent@{COMMIT}")
    pinned = f"hf:org/good@{COMMIT}"
    assert fingerprint(pinned) == pinned
    locate(pinned)
    hub.asked.clear()
    assert fingerprint(pinned) == pinned
    assert hub.asked == [], "what is in the cache needs no network"


def test_a_dataset_of_the_hub(cache: Path, hub: type[Hub]) -> None:
    pinned = references.data_fingerprint("hf:org/data")
    assert pinned == f"hf:org/data@{COMMIT}"
    folder = references.locate_data("hf:org/data", fingerprint=pinned)
    assert [p.name for p in folder.iterdir()] == ["rows.jsonl"], "never code"
    with pytest.raises(ModelError, match="no such dataset"):
        references.data_fingerprint("hf:org/absent")


def test_a_folder_of_data_is_known_by_all_its_files(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.jsonl").write_text("{}")
    before = references.data_fingerprint(str(tmp_path / "a"))
    assert before is not None
    assert references.locate_data(str(tmp_path / "a"), fingerprint=before) == tmp_path / "a"
    (tmp_path / "a/y.jsonl").write_text("{}")
    assert references.data_fingerprint(str(tmp_path / "a")) != before
    with pytest.raises(UserError, match="have changed"):
        references.locate_data(str(tmp_path / "a"), fingerprint=before)


def test_another_conversion_is_another_model(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "m.json").write_bytes(b"GGUF")
    refs = ("smollm2-135m-instruct", "sharegpt-v3-part", f"{tmp_path}/m.gguf", f"{tmp_path}/m.json")
    before = [fingerprint(ref) for ref in refs]
    monkeypatch.setattr(references, "CONVERSION", references.CONVERSION + 1)
    changed = [old != fingerprint(ref) for old, ref in zip(before, refs, strict=True)]
    assert changed == [True, False, True, False]


def test_no_hub(cache: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for use in (fingerprint, locate):
        with pytest.raises(ModelError, match=r"cannot be reached.*folder"):
            use("hf:org/good")


def test_a_conversion_on_a_full_disk(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    convert = pytest.importorskip("epigone.models.convert")
    monkeypatch.setattr(convert, "convert_gguf", full)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(FetchError, match="the disk is full"):
        locate(str(tmp_path / "m.gguf"))
