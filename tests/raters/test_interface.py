from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from epigone.raters import people, serving
from epigone.raters.app import build_app
from epigone.raters.comparisons import compare
from epigone.raters.site import Settings
from epigone.schema import Rating

from .rating_site import ADMIN, SECRET, filled, outputs, pairs, serving_site

SITE = "http://127.0.0.1:8600"


def site_of(folder: Path, n: int = 3) -> tuple[TestClient, Any, str]:
    store = filled(folder, pairs(n), check_every=2)
    told = Settings(SECRET, ADMIN, SITE, client=(1e6, 1e6), session=(1e6, 1e6))
    app = build_app(store, told, serving.doors(store, told, public=True))
    site = TestClient(app, base_url=SITE)
    csrf = re.findall(r'name="csrf" value="([^"]+)"', site.get("/in/public").text)[0]
    site.post("/begin", data={"csrf": csrf})
    return site, store, site.get("/api/session").json()["csrf"]


def test_a_client_without_a_browser_rates_to_the_end(memory: Path) -> None:
    site, store, csrf = site_of(memory)
    head = {"X-CSRF-Token": csrf}
    trained = 0
    while (task := site.post("/api/next", headers=head).json()["task"]) is not None:
        vote = {"task": task["id"], "preference": -2, "reasons": ["safe"], "visible": 0.0}
        told = site.post("/api/vote", headers=head, json=vote).json()
        assert told["training"] is task["training"]
        assert (told["expected"] is None) is not task["training"]
        trained += told["training"]
    assert trained == 3
    at = site.get("/api/session").json()
    assert at["done"] == at["total"]
    ratings: list[Rating] = list(people.ratings(store))
    assert len(ratings) == 3 + at["done"]
    assert all(r.reasons == ("safe",) and r.seconds == 0.0 for r in ratings)
    store.close()


def test_clients_see_of_an_output_what_a_page_shows(memory: Path) -> None:
    made = compare(outputs("t", ["\u200b same\r\n\n"]), [outputs("m", ["same"])])
    store = filled(memory, made, checks=False, check_every=0)
    told = Settings(SECRET, ADMIN, SITE)
    site = TestClient(
        build_app(store, told, serving.doors(store, told, public=True)), base_url=SITE
    )
    csrf = re.findall(r'name="csrf" value="([^"]+)"', site.get("/in/public").text)[0]
    site.post("/begin", data={"csrf": csrf})
    head = {"X-CSRF-Token": site.get("/api/session").json()["csrf"]}
    task = site.post("/api/next", headers=head).json()["task"]
    assert (task["left"], task["right"]) == ("same", "same")
    assert task["prompt"] == [{"role": "user", "content": "Question 0?"}]
    store.close()


def test_votes_that_are_none_are_refused(memory: Path) -> None:
    site, store, csrf = site_of(memory)
    head = {"X-CSRF-Token": csrf}
    task = site.post("/api/next", headers=head).json()["task"]["id"]
    for change in (
        {"preference": 3}, {"preference": "1"}, {"preference": True}, {"preference": 1.5},
        {"reasons": ["rich"]}, {"comment": "x" * 2001}, {"visible": -1}, {"visible": "NaN"},
        {"more": 1}, {"task": None},
    ):  # fmt: skip
        told = site.post("/api/vote", headers=head, json={"task": task, "preference": 1, **change})
        assert told.status_code == 422 and told.json()["detail"], change
    half = b'{"task": "x", "preference": 1, "comment": "\\ud800", "\\udfff": 1}'
    assert site.post("/api/vote", headers=head, content=half).status_code == 422
    assert list(people.ratings(store)) == []
    store.close()


def test_schemathesis_finds_nothing(memory: Path) -> None:
    """Every documented operation, attacked as its OpenAPI says and as it does not."""
    program = Path(sys.executable).with_name("schemathesis")
    store = filled(memory, pairs(200), check_every=2, per_rater=200)
    with serving_site(store, client=(1e6, 1e6), session=(1e6, 1e6)) as served:
        site = httpx.Client(base_url=served.url, follow_redirects=True)
        csrf = re.findall(r'name="csrf" value="([^"]+)"', site.get("/in/public").text)[0]
        site.post("/begin", data={"csrf": csrf})
        cookies = "; ".join(f"{name}={value}" for name, value in site.cookies.items())
        csrf = site.get("/api/session").json()["csrf"]
        site.close()
        done = subprocess.run(
            [program, "--no-color", "run", f"{served.url}/api/openapi.json", "--seed", "1",
             "--max-examples", "10", "--phases", "coverage,fuzzing",
             "-H", f"Cookie: {cookies}", "-H", f"X-CSRF-Token: {csrf}",
             "--generation-database", "none"],
            capture_output=True, text=True, timeout=120, check=False, cwd=memory,
        )  # fmt: skip
    store.close()
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "No issues found" in done.stdout
