"""What the nodes of a Ray cluster are asked, with a cluster that is none."""

from __future__ import annotations

import logging
import os
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from epigone.errors import UserError
from epigone.runs import on_ray
from epigone.runs.machine import Here
from epigone.runs.needs import Machine, Needs
from epigone.runs.on_ray import OnRay

NO_EPIGONE = """\
ray::_look() (pid=7, ip=10.0.0.2)
RuntimeError: The remote function failed to import on the worker.

Traceback (most recent call last):
ModuleNotFoundError: No module named 'epigone'
"""


class RayError(Exception): ...


class RayTaskError(RayError): ...


class Cluster:
    """What `ray` tells of nodes that answer, fail or say nothing; no time passes."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, **nodes: Any) -> None:
        self.answers = nodes
        self.waited: list[float] = []

    def nodes(self) -> list[dict[str, Any]]:
        has = {"CPU": 4.0, "GPU": 1.0, "memory": 8e9}
        return [
            {"NodeID": n, "Alive": True, "NodeManagerHostname": f"host-{n}", "Resources": has}
            for n in self.answers
        ]

    def wait(self, refs: list[str], num_returns: int, timeout: float) -> tuple[list[str], Any]:
        assert num_returns == len(refs)
        self.waited.append(timeout)
        return [ref for ref in refs if self.answers[ref] is not None], []

    def get(self, ref: str) -> Any:
        answer = self.answers[ref]
        if isinstance(answer, Exception):
            raise answer
        return answer


def attached(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> OnRay:
    """An executor without the start of Ray."""
    asked: Any = SimpleNamespace(
        options=lambda scheduling_strategy: SimpleNamespace(remote=lambda _: scheduling_strategy)
    )
    monkeypatch.setattr(OnRay, "_at", lambda self, node, soft=False: node)
    ray = OnRay.__new__(OnRay)
    ray._ray, ray._look_at, ray._place = cluster, asked, "/runs"
    ray._known, ray._asked = {}, {}
    return ray


def answer() -> dict[str, Any]:
    return {"version": metadata.version("epigone"), "gpu_bytes": 7, "sees": True}


HAS = Needs(4, 1, 8e9)


def test_a_node_that_hangs_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(a=answer(), hangs=None)
    ray = attached(cluster, monkeypatch)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            ray._look()
    assert [*ray._known.values()] == [Machine("host-a", HAS, 7.0)]
    assert cluster.waited == [60.0, 0.0, 0.0]
    (line,) = caplog.messages
    assert line == "the Ray node host-hangs does not answer; it gets no steps until then"
    # It gets steps once it answers, behind those that were there.
    cluster.answers["hangs"] = answer()
    ray._look()
    assert [m.name for m in ray._known.values()] == ["host-a", "host-hangs"]
    ray._look()
    assert cluster.waited == [60.0, 0.0, 0.0, 0.0]


def test_a_node_without_epigone_is_named_and_the_others_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError) as caught:
        attached(Cluster(b=RayTaskError(NO_EPIGONE)), monkeypatch)._look()
    version = metadata.version("epigone")
    assert str(caught.value) == (
        "the Ray node host-b cannot run Epigone: ModuleNotFoundError: No module named 'epigone' "
        f"(install epigone[ray]=={version} there)"
    )
    ray = attached(Cluster(a=answer(), b=RayTaskError(NO_EPIGONE)), monkeypatch)
    for _ in range(2):
        ray._look()
    assert [m.has.cpus for m in ray._known.values()] == [4, 0]
    assert sum("host-b cannot run Epigone" in line for line in caplog.messages) == 2


def test_a_node_that_dies_over_its_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(a=RayError("the node died"))
    ray = attached(cluster, monkeypatch)
    ray._look()
    assert not ray._known and not ray._asked
    cluster.answers["a"] = answer()
    ray._look()
    assert [m.name for m in ray._known.values()] == ["host-a"]


def test_gpus_that_ray_hides_from_a_task_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> Here:
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
        return Here(1, (("H200", 9), ("A100", 5)))

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(on_ray, "here", look)
    assert on_ray._look(str(tmp_path))["gpu_bytes"] == 5
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
