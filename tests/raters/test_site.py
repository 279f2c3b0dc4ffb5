from __future__ import annotations

import asyncio
import logging
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from itsdangerous import URLSafeTimedSerializer
from starlette.testclient import TestClient

from epigone.errors import UserError
from epigone.raters import guard, logins, people, serving
from epigone.raters.admin import link
from epigone.raters.app import build_app
from epigone.raters.comparisons import compare
from epigone.raters.guard import MAX_BODY, Bucket, address
from epigone.raters.secret import secret
from epigone.raters.site import Settings, Site
from epigone.raters.store import Store
from epigone.raters.workforces import Arrival, Finish, NotAdmitted
from epigone.schema import Workforce

from .rating_site import ADMIN, SECRET, filled, outputs, pairs

SITE = "https://rate.example"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Framed:
    """A door like that of a platform which shows pages in a frame and is told the end by a form."""

    workforce: Workforce = "mturk"
    frame_ancestors: tuple[str, ...] = ("https://frames.example",)
    blind = True

    def arrive(self, query: Any) -> Arrival:
        if "worker" not in query:
            raise NotAdmitted("No <b>worker</b>.")
        return Arrival(query["worker"], query.get("visit", ""), preview="preview" in query)

    def finish(self, arrival: Arrival, answers: int, excluded: bool) -> Finish:
        return Finish("post", "https://frames.example/submit", {"visit": arrival.submission})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(memory: Path) -> Iterator[Store]:
    made = filled(memory, pairs(3), checks=False, per_rater=2, per_item=9, check_every=0)
    yield made
    made.close()


def client(store: Store, clock: Clock, **settings: Any) -> TestClient:
    found = Settings(SECRET, ADMIN, SITE, clock, **settings)
    doors = [*serving.doors(store, found, public=True), Framed()]
    return TestClient(build_app(store, found, doors), base_url=SITE)


@pytest.fixture
def site(store: Store, clock: Clock) -> TestClient:
    return client(store, clock)


def fields(html: str) -> dict[str, str]:
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', html))


def come(site: TestClient, way: str = "/in/public") -> Any:
    page = site.get(way)
    assert page.status_code == 200, page.text
    return site.post("/begin", data=fields(page.text))


def invitation(store: Store, clock: Clock, **kw: Any) -> str:
    (made,) = people.invite(store, ["x"], clock(), who="t", **kw)
    return link("", SECRET, made)


def people_in(store: Store) -> list[Any]:
    return list(store.read(lambda s: s.connection().exec_driver_sql("SELECT * FROM rater").all()))


def hidden(store: Store) -> str:
    """By what a site tells its database's cookies from another's."""
    return Site(store, Settings(SECRET), {}).rater.database


def log_in(site: TestClient) -> str:
    assert site.post("/admin/login", data={"token": ADMIN}).status_code == 200
    return fields(site.get("/admin").text)["csrf"]


def test_a_rater_goes_through_by_plain_forms(site: TestClient, store: Store) -> None:
    page = come(site)
    for n in range(2):
        assert f"Task {n + 1} of 2" in page.text
        told = {"preference": "-1", "visible": "1500", "comment": " a\x00 "}
        page = site.post("/vote", data={**fields(page.text), **told, "reasons": ["clear", "odd"]})
    assert page.url.path == "/done"
    first, _ = people.ratings(store)
    assert (first.reasons, first.comment) == (("clear",), "a\ufffd")
    assert abs(first.preference or 0) == 1 and first.workforce == "public"


def test_looking_ahead_at_a_link_makes_no_rater(
    site: TestClient, store: Store, clock: Clock
) -> None:
    way = invitation(store, clock)
    for _ in range(3):
        site.get(way)
    assert people_in(store) == []
    come(site, way)
    other = client(store, clock)  # the same person, on another device
    come(other, way)
    assert len(people_in(store)) == 1


def test_every_write_needs_the_sessions_token(site: TestClient, store: Store, clock: Clock) -> None:
    page = come(site)
    ballot = {**fields(page.text), "preference": "2"}
    other = client(store, clock)
    theirs = fields(come(other).text)["csrf"]
    for csrf in ("", "x", theirs, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")):
        assert site.post("/vote", data={**ballot, "csrf": csrf}).status_code == 403
        assert site.post("/begin", data={"csrf": csrf}).status_code == 403
    assert site.post("/api/next", headers={"X-CSRF-Token": theirs}).status_code == 403
    log_in(site)
    for verb in ("exclude", "include", "invite", "revoke", "logout"):
        assert site.post(f"/admin/{verb}", data={"csrf": theirs, "why": "x"}).status_code == 403
    assert list(people.ratings(store)) == []


def test_sessions_are_signed_and_grow_old(site: TestClient, clock: Clock, store: Store) -> None:
    come(site)
    name = next(name for name in site.cookies if name.startswith("__Host-epigone_rater_"))
    value = site.cookies[name]
    for changed in (value[:-2] + "xx", value[::-1], "", "x.y.z"):
        with TestClient(site.app, base_url=SITE, cookies={name: changed}) as forged:
            assert forged.get("/rate").status_code == 401
    own = {"r": site.cookies[name.replace("rater", "arrival")]}
    with TestClient(site.app, base_url=SITE, cookies={name: own["r"]}) as swapped:
        assert swapped.get("/rate").status_code == 401


def test_cookies_are_out_of_reach_of_scripts_and_of_other_sites(site: TestClient) -> None:
    told = site.get("/in/public", follow_redirects=False).headers["set-cookie"]
    assert told.startswith("__Host-epigone_arrival_")
    assert {"HttpOnly", "Secure", "SameSite=Lax", "Path=/"} <= set(told.split("; "))
    told = site.post("/admin/login", data={"token": ADMIN}, follow_redirects=False).headers
    assert "SameSite=Strict" in told["set-cookie"]
    framed = site.get("/in/mturk?worker=w", follow_redirects=False).headers["set-cookie"]
    assert {"HttpOnly", "Secure", "SameSite=None", "Partitioned"} <= set(framed.split("; "))


def test_only_a_workforce_that_is_framed_may_be_framed(site: TestClient) -> None:
    def policy(path: str) -> str:
        return str(site.get(path).headers["content-security-policy"])

    come(site)
    for path in ("/", "/rate", "/admin", "/nope", "/static/rate.js", "/in/public", "/api/session"):
        assert "frame-ancestors 'none'" in policy(path)
        assert "unsafe" not in policy(path) and "default-src 'none'" in policy(path)
    assert "frame-ancestors https://frames.example" in policy("/in/mturk?worker=w&preview=1")
    come(site, "/in/mturk?worker=w&visit=v1")
    assert "frame-ancestors https://frames.example" in policy("/rate")
    assert "frame-ancestors 'none'" in policy("/admin")
    page = site.get("/rate")
    assert "form-action 'self';" in page.headers["content-security-policy"]
    while page.url.path == "/rate":
        page = site.post("/vote", data={**fields(page.text), "preference": "0"})
    assert "form-action 'self' https://frames.example;" in page.headers["content-security-policy"]
    assert fields(page.text) == {"visit": "v1"}
    refused = site.get("/in/mturk")
    assert refused.status_code == 403 and "No &lt;b&gt;worker" in refused.text


def test_nobody_gets_out_before_the_end(site: TestClient) -> None:
    come(site, "/in/mturk?worker=w")
    assert site.get("/done").url.path == "/rate"


def test_no_page_and_no_header_tells_which_side_is_the_teacher(
    tmp_path: Path, clock: Clock
) -> None:
    """Two sites that differ in who wrote what send the same bytes but for random names."""
    seen = []
    for number, names in enumerate((("zz-teacher", "aa-student"), ("aa-teacher", "zz-student"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        texts = {names[0]: "one text", names[1]: "another text"}
        made = compare(*[outputs(m, [texts[m]]) for m in names[:1]],
                       [outputs(names[1], [texts[names[1]]])])  # fmt: skip
        store = filled(folder, made, checks=False, check_every=0)
        site = client(store, clock)
        page = come(site)
        body = re.sub(r'value="[\w-]{15,}"', 'value=""', page.text)
        first, second = sorted(("one text", "another text"), key=body.index)
        seen.append((body.replace(first, "1").replace(second, "2"), sorted(page.headers)))
        read = URLSafeTimedSerializer("").loads_unsafe
        said = [str(read(value)[1]) for value in site.cookies.values()]
        assert len(said) == 3 and all("'csrf'" in value for value in said)
        for name in (*names, "teacher", "student", "'i0'"):
            assert name not in page.text + str(page.headers) + str(said)
        shown = site.post("/api/next", headers={"X-CSRF-Token": fields(page.text)["csrf"]})
        assert set(shown.json()["task"]) == {"id", "prompt", "left", "right", "training"}
        store.close()
    assert seen[0] == seen[1]


def test_what_cookies_hold_counts_nothing(store: Store, clock: Clock) -> None:
    """Cookies are signed and not encrypted: whoever has one can read it."""
    opaque = {
        "worker": r"[\w-]{24}|[0-9a-f]{64}|A1W", "submission": r"|r-[0-9a-f]{16}|v1",
        "rater": "r-[0-9a-f]{16}", "workforce": "public|private|mturk",
        "from": "testclient", "login": r"[\w-]{20,}",
    }  # fmt: skip
    kinds: dict[str, set[str]] = {}
    for way in ("/in/public", invitation(store, clock), "/in/mturk?worker=A1W&visit=v1"):
        site = client(store, clock)
        assert come(site, way).url.path == "/rate"
        log_in(site)
        for name, value in site.cookies.items():
            held = URLSafeTimedSerializer("").loads_unsafe(value)[1]
            assert set(held) == {"data", "csrf"} and re.fullmatch(r"[\w-]{24}", held["csrf"])
            kinds.setdefault(name.split("_")[3], set()).update(held["data"])
            for key, said in held["data"].items():
                assert re.fullmatch(opaque[key], said), (key, said)
    assert kinds == {
        "rater": {"rater", "submission", "workforce"}, "known": {"worker"},
        "arrival": {"worker", "submission", "workforce"}, "admin": {"from", "login"},
    }  # fmt: skip


def test_tasks_of_others_and_of_nobody_look_the_same(
    site: TestClient, store: Store, clock: Clock
) -> None:
    mine = fields(come(site).text)
    other = client(store, clock)
    theirs = fields(come(other).text)
    answers = {
        (r.status_code, re.sub(r"\s+", " ", r.text))
        for task in (theirs["task"], "x" * 20, "1", "")
        for r in [site.post("/vote", data={**mine, "task": task, "preference": "1"})]
    }
    assert len(answers) == 1 and next(iter(answers))[0] == 409
    ways = {
        (r.status_code, r.text)
        for token in ("x", "eyJ.abc", invitation(store, clock).rpartition("/")[2] + "x")
        for r in [site.get(f"/in/private/{token}")]
    }
    assert len(ways) == 1 and next(iter(ways))[0] == 403


def test_a_revoked_invitation_ends_the_session_too(
    site: TestClient, store: Store, clock: Clock
) -> None:
    way = invitation(store, clock)
    page = come(site, way)
    other = client(store, clock)  # who has opened the link, and did not agree yet
    opened = fields(other.get(invitation(store, clock)).text)
    assert people.revoke(store, "x", clock(), who="me") == 2
    assert other.post("/begin", data=opened).status_code == 403
    assert len(people_in(store)) == 1
    assert people.revoke(store, "1", clock(), who="me") == 0
    assert site.get("/rate").status_code == 403
    assert site.post("/vote", data={**fields(page.text), "preference": "1"}).status_code == 403
    assert site.get(way).status_code == 403
    late = invitation(store, clock, days=2)
    assert come(site, late).url.path == "/rate"
    clock.now += 2 * 86_400 + 1
    assert site.get(late).status_code == site.get("/rate").status_code == 403
    with pytest.raises(UserError, match="no such invitation"):
        people.revoke(store, "nobody", clock(), who="me")


def test_too_much_too_fast_and_too_large_are_refused(
    store: Store, clock: Clock, site: TestClient
) -> None:
    slow = client(store, clock, client=(1.0, 3.0))
    assert [slow.get("/").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    clock.now += 2
    assert [slow.get("/").status_code for _ in range(3)] == [200, 200, 429]
    rater = client(store, clock, session=(1.0, 2.0))
    come(rater)
    told = [rater.get("/api/session").status_code for _ in range(4)]
    assert told[0] == 200 and told[-1] == 429
    come(site)
    assert site.post("/vote", content=b"x" * (MAX_BODY + 1)).status_code == 413

    def parts() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 1000

    head = {"Content-Type": "application/x-www-form-urlencoded"}
    assert site.post("/vote", content=parts(), headers=head).status_code == 413


def test_who_sends_slowly_or_very_much_at_once_stops_nobody(
    site: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "PATIENCE", 0.05)
    monkeypatch.setattr(guard, "AT_ONCE", 1)
    head = [(b"content-type", b"application/x-www-form-urlencoded"), (b"host", b"rate.example")]
    scope = {"type": "http", "method": "POST", "path": "/vote", "query_string": b"",
             "scheme": "https", "http_version": "1.1", "headers": head,
             "client": ("10.0.0.1", 1)}  # fmt: skip

    async def ask(scope: dict[str, Any]) -> int:
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        await site.app(dict(scope), receive, send)
        return int(sent[0]["status"])

    async def together() -> list[int]:
        other = {**scope, "client": ("10.0.0.2", 1)}
        return await asyncio.gather(*(ask(one) for one in (scope, scope, other)))

    assert asyncio.run(together()) == [408, 429, 408]
    assert asyncio.run(together()) == [408, 429, 408]


def test_an_error_of_ours_is_told_and_logged_without_what_people_wrote(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ArithmeticError("my comment")

    site = TestClient(client(store, clock).app, base_url=SITE, raise_server_exceptions=False)
    monkeypatch.setattr(store, "plan", fail)
    told = site.get("/healthz")
    assert told.status_code == 500 and "Something went wrong" in told.text
    assert "default-src 'none'" in told.headers["content-security-policy"]
    assert told.headers["cache-control"] == "no-store" and "my comment" not in told.text
    log = logging.getLogger("test of the log")
    log.addFilter(serving.Mute())
    try:
        fail()
    except ArithmeticError:
        log.exception("Exception in ASGI application\n")
    assert "ArithmeticError at" in caplog.text and "my comment" not in caplog.text


def test_the_administrators_token_cannot_be_guessed_at_speed(
    site: TestClient, store: Store, clock: Clock
) -> None:
    told = [site.post("/admin/login", data={"token": f"g{n}"}).status_code for n in range(30)]
    assert told[0] == 403 and told[-1] == 429
    (line,) = logins.actions(store)  # which hides nothing that was done
    assert (line.who, line.what, line.why) == ("testclient", "login refused", "20 times")
    # Who shares an address with them comes in, by links as well.
    come(site, invitation(store, clock))
    assert [site.get("/in/private/x").status_code for _ in range(21)] == [403] * 20 + [429]
    come(client(store, clock), "/in/public")
    log_in(site)


def test_made_up_names_of_a_platform_that_is_not_asked_take_no_places(
    store: Store, clock: Clock
) -> None:
    site = client(store, clock, guess=(0.1, 2.0))
    told = [come(site, f"/in/mturk?worker=w{n}").status_code for n in range(4)]
    assert told == [200, 200, 429, 429] and len(people_in(store)) == 2
    assert come(site, "/in/mturk?worker=w1").status_code == 200  # who came before


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("10.1.2.3", "10.1.2.3"), ("::ffff:10.1.2.3", "10.1.2.3"), ("testclient", "testclient"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
    ],
)  # fmt: skip
def test_customers_of_ipv6_are_counted_by_their_network(host: str, counted: str) -> None:
    assert address({"client": (host, 1)}) == counted


def test_the_open_link_makes_one_person_of_a_browser(site: TestClient, store: Store) -> None:
    come(site)
    assert site.get("/in/public").url.path == "/rate"
    for name in [n for n in site.cookies if "_known_" not in n]:
        site.cookies.delete(name)  # as the browser does after a week
    assert site.get("/rate").status_code == 401
    assert come(site).url.path == "/rate"
    assert len(people_in(store)) == 1


def test_cookies_of_one_database_are_none_of_anothers(
    site: TestClient, clock: Clock, tmp_path: Path
) -> None:
    come(site)
    other = filled(tmp_path, pairs(1), checks=False)
    assert come(client(other, clock), "/in/mturk?worker=w").url.path == "/rate"  # rater 1, too
    own = client(other, clock)
    for name, value in site.cookies.items():
        own.cookies.set(name, value)
        for kind in ("rater", "arrival"):
            own.cookies.set(f"__Host-epigone_{kind}_{hidden(other)[:8]}", value)
    assert own.get("/rate").status_code == own.get("/welcome").status_code == 401
    other.close()


def test_a_door_that_is_closed_ends_its_sessions(
    site: TestClient, store: Store, clock: Clock
) -> None:
    come(site)
    assert site.get("/rate").status_code == 200
    closed = TestClient(build_app(store, Settings(SECRET, ADMIN, SITE, clock), []), base_url=SITE)
    closed.cookies.update(site.cookies)
    told = closed.get("/rate")
    assert told.status_code == 403 and "This way in is closed" in told.text


def test_what_administrators_do_is_logged(site: TestClient, store: Store) -> None:
    page = come(site)
    site.post("/vote", data={**fields(page.text), "preference": "2"})
    csrf = log_in(site)
    (rating,) = people.ratings(store)
    done = {"csrf": csrf, "rater": rating.rater}
    assert site.post("/admin/exclude", data={**done, "why": ""}).status_code == 422
    site.post("/admin/exclude", data={**done, "why": "<i>spam</i>"})
    overview = site.get("/admin").text
    assert "excluded: &lt;i&gt;spam&lt;/i&gt;" in overview
    assert next(people.ratings(store)).excluded == "<i>spam</i>"
    site.post("/admin/include", data=done)
    assert next(people.ratings(store)).excluded == ""
    made = site.post("/admin/invite", data={"csrf": csrf, "label": "two", "n": "2"})
    (one, _) = re.findall(r"<code>(https://[^<]+/in/private/[^<]+)</code>", made.text)
    assert one not in site.get("/admin").text
    site.post("/admin/revoke", data={"csrf": csrf, "invitation": "1"})
    told = [(a.who, a.what, a.target, a.why) for a in reversed(logins.actions(store))]
    assert told == [
        ("testclient", "login", "", ""),
        ("testclient", "exclude", rating.rater, "<i>spam</i>"),
        ("testclient", "include", rating.rater, ""),
        ("testclient", "invite", "two", ""),
        ("testclient", "invite", "two", ""),
        ("testclient", "revoke", "1 two", ""),
    ]
    assert site.get("/admin").text.count("revoke") >= 1
    people.invite(store, ["y"] * 50, 2e6, who="me")
    logs = [site.get(f"/admin?page={n}").text.partition(">Log</h2>")[2] for n in (1, 2)]
    assert ["&lt;i&gt;spam" in log for log in logs] == [False, True]
    assert ['href="/admin?page=2#log"' in log for log in logs] == [True, False]
    kept = dict(site.cookies)
    site.post("/admin/logout", data={"csrf": csrf})
    assert "Log in" in site.get("/admin").text
    stolen = TestClient(site.app, base_url=SITE, cookies=kept)
    assert "Log in" in stolen.get("/admin").text
    assert stolen.post("/admin/invite", data={"csrf": csrf}).status_code == 401


def test_without_an_administrators_token_there_is_no_such_page(store: Store, clock: Clock) -> None:
    settings = Settings(SECRET, "", SITE, clock)
    site = TestClient(build_app(store, settings, []), base_url=SITE)
    assert site.get("/admin").status_code == 404
    assert site.get("/in/public").status_code == 404


def test_workers_own_names_leave_the_database_in_no_way(site: TestClient, store: Store) -> None:
    page = come(site, "/in/mturk?worker=A1SECRETNAME")
    site.post("/vote", data={**fields(page.text), "preference": "2"})
    log_in(site)
    (rating,) = people.ratings(store)
    assert "SECRETNAME" not in str(rating) + site.get("/admin").text + page.text


def test_a_bucket_forgets_and_fills() -> None:
    clock = Clock()
    bucket = Bucket(0.5, 2, clock)
    assert [bucket.take("a") for _ in range(3)] == [True, True, False]
    assert bucket.take("b")
    clock.now += 2
    assert [bucket.take("a") for _ in range(2)] == [True, False]
    clock.now -= 100  # a clock that is set back gives nothing
    assert not bucket.take("a")


def test_secrets_are_made_for_their_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EPIGONE_TEST_SECRET", raising=False)
    file = tmp_path / "deep" / "s"
    made = secret("EPIGONE_TEST_SECRET", file)
    assert made == secret("EPIGONE_TEST_SECRET", file) and len(made) >= 40
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
    file.chmod(0o644)
    with pytest.raises(UserError, match="others can read the secret"):
        secret("EPIGONE_TEST_SECRET", file)
    with pytest.raises(UserError, match="no secret to sign with"):
        secret("EPIGONE_TEST_SECRET", None)
    monkeypatch.setenv("EPIGONE_TEST_SECRET", "tooshort")
    with pytest.raises(UserError, match="at least 24") as caught:
        secret("EPIGONE_TEST_SECRET", None)
    assert "tooshort" not in str(caught.value)
