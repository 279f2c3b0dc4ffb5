"""What an endpoint refuses, and for how long it is asked all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.teachers.conftest import Running
from tests.teachers.test_collect import ask, prompt_file

from epigone.errors import EndpointError
from epigone.teachers.ask import Asker

Fakes = Callable[..., Running]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before trying again."""
    monkeypatch.setattr(Asker, "_pause", lambda self, tried, failed: 0.0)


@pytest.mark.parametrize("status", ["400", "403"])
def test_a_run_with_many_refusals_can_be_repeated(fake: Fakes, tmp_path: Path, status: str) -> None:
    server = fake()
    prompts = prompt_file(tmp_path, 100)
    ask(server, prompts, tmp_path, n=50)
    server.steer(faults={status: 1.0})
    for _ in range(2):
        facts = ask(server, prompts, tmp_path)
        assert (facts["known"], facts["written"]) == (50, 50)
        assert facts["rejected"] == {"refused by the endpoint": 50}


def test_an_endpoint_that_refuses_everything_is_not_asked_for_ever(
    fake: Fakes, tmp_path: Path
) -> None:
    server = fake(faults={"400": 1.0})
    with pytest.raises(EndpointError, match="answers nothing that can be used"):
        ask(server, prompt_file(tmp_path, 400), tmp_path)
    assert sum(server.told()["seen"].values()) < 60
