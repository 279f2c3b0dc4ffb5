"""What .ci/install.py hands from pip's configuration to uv."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("pip")


def installer() -> ModuleType:
    file = Path(__file__).parents[1] / ".ci" / "install.py"
    spec = importlib.util.spec_from_file_location("install", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_uv_is_told_all_that_pip_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text(
        "[global]\nproxy = http://proxy.test:3128\ntrusted-host =\n    a.test\n    b.test:8443\n"
        "extra-index-url = https://more.test/simple\n"
        "[install]\nconstraint = /x/global.txt\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_CONSTRAINT", "/x/one.txt /x/two.txt")
    told = {name: value for name, value in installer()._told().items() if value}
    assert told["UV_CONSTRAINT"] == "/x/one.txt /x/two.txt"
    assert told["UV_INSECURE_HOST"] == "a.test b.test:8443"
    assert told["HTTP_PROXY"] == told["HTTPS_PROXY"] == "http://proxy.test:3128"
    assert told["UV_EXTRA_INDEX_URL"] == "https://more.test/simple"
    assert "UV_NO_INDEX" not in told
