"""The ledger: what was written stays, whatever a kill or a disk does to its file."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from epigone.errors import EndpointError, HeldElsewhere
from epigone.models.endpoint import Endpoint
from epigone.teachers import ledger as ledger_module
from epigone.teachers.ledger import Ledger, Row, key_of, ledger_file


def came(key: str, text: str = "hello", cost: str = "0.25") -> Row:
    return Row("came", key, {"request": {}, "response": {"text": text}, "cost": cost})


def sent(key: str, most: str = "1", purpose: str = "") -> Row:
    return ledger_module.sent(key, Decimal(most), 10, purpose)


def test_an_answer_is_there_for_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "a" / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.write([sent("k"), came("k", "schöne 文字"), sent("lost", "0.5"), sent("void", "9")])
    ledger.write([Row("void", "void", {})])
    ledger.close()
    ledger = Ledger(path)
    assert (ledger.spent, ledger.open, len(ledger)) == (Decimal("0.25"), Decimal("0.5"), 1)
    assert "k" in ledger
    assert "lost" not in ledger
    found = ledger.get("k")
    assert found is not None
    assert found["response"] == {"text": "schöne 文字"}
    # Each line is JSON of its own, for whoever reads it with other tools.
    kinds = {json.loads(line)["row"]["kind"] for line in path.open()}
    assert kinds == {"format", "sent", "came", "void"}


rows = st.lists(
    st.tuples(
        st.sampled_from(["sent", "came", "void", "lost", "in", "uploaded", "made", "done"]),
        st.sampled_from("abc"),
        st.text(),
    ),
    max_size=12,
)


def _rows(told: list[tuple[str, str, str]]) -> list[Row]:
    made: dict[str, Any] = {
        "sent": lambda k, t: sent(k),
        "void": lambda k, t: Row("void", k, {}),
        "lost": lambda k, t: Row("lost", k, {"why": t}),
        "in": lambda k, t: ledger_module.sent(k, Decimal(1), 0, "", batch="own"),
        **{
            state: lambda k, t, state=state: Row("batch", "own", {"state": state})
            for state in ("uploaded", "made", "done")
        },
        "came": came,
    }
    return [made[kind](key, text) for kind, key, text in told]


@settings(max_examples=60, deadline=None)
@given(rows, st.floats(0, 1))
@example([("sent", "a", "")], 0.993)
def test_any_cut_keeps_the_whole_lines_before_it(
    told: list[tuple[str, str, str]], share: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        ledger = Ledger(path)
        for row in _rows(told):
            ledger.write([row])
        ledger.close()
        whole = path.read_bytes()
        at = int(share * len(whole))
        path.write_bytes(whole[:at])
        # A line that lacks nothing but its end is whole.
        # The first says how the others are laid out, and is written again where it was cut.
        lines = max(1, whole[: at + 1].count(b"\n"))
        cut, want = Ledger(path), Ledger(Path(folder) / "other.jsonl")
        want.write(_rows(told[: lines - 1]))
        want.close()
        want = Ledger(Path(folder) / "other.jsonl")
        assert (cut.spent, cut.open, cut.damaged) == (want.spent, want.open, 0)
        assert cut.in_batches <= cut.open
        assert [cut.batch_of(k) for k in "abc"] == [want.batch_of(k) for k in "abc"]
        assert [k in cut for k in "abc"] == [k in want for k in "abc"]
        assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:lines])
        # What is written after the repair begins a line of its own.
        cut.write([came("new")])
        cut.close()
        want.close()
        again = Ledger(path)
        assert "new" in again
        again.close()


def test_a_batch_is_open_from_its_upload_until_it_is_done(tmp_path: Path) -> None:
    def reopened() -> Ledger:
        nonlocal ledger
        ledger.close()
        ledger = Ledger(tmp_path / "ledger.jsonl")
        return ledger

    def of(state: str, **told: Any) -> Row:
        return Row("batch", "own", {"state": state, **told})

    ledger = Ledger(tmp_path / "ledger.jsonl")
    asked = {"path": "p", "sample": 0, "request": {"a": 1}}
    for key in "ab":
        ledger.write([ledger_module.sent(key, Decimal(1), 0, "", batch="first", **asked)])
    assert (ledger.open, ledger.batch_of("a")) == (2, "first")
    assert (reopened().open, ledger.batches, ledger.batch_of("a")) == (0, {}, "")
    for key in "ab":
        ledger.write([ledger_module.sent(key, Decimal(1), 0, "", batch="own", **asked)])
    ledger.write([of("uploaded", file="f")])
    assert (reopened().open, ledger.in_batches, ledger.recent) == (2, 2, [])
    assert ledger.batches["own"].name == ""
    ledger.write([of("made", name="batch_1"), came("a")])
    assert (reopened().batch_of("a"), ledger.batch_of("b")) == ("", "own")
    assert ledger.asked("own", "b")["request"] == {"a": 1}
    assert (ledger.batches["own"].name, ledger.in_batches) == ("batch_1", 1)
    # What was paid for and never came stays counted, but is not in the batch any more.
    ledger.write([Row("lost", "b", {"why": ""}), of("done")])
    assert (reopened().open, ledger.in_batches, ledger.batches) == (1, 0, {})
    ledger.close()


def test_a_damaged_line_is_not_counted_and_the_others_are(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.write([came("a"), came("b"), came("c")])
    ledger.close()
    content = bytearray(path.read_bytes())
    content[content.index(b'"key":"b"') + 7] ^= 1
    path.write_bytes(content)
    ledger = Ledger(path)
    assert (ledger.damaged, len(ledger), ledger.spent) == (1, 2, Decimal("0.5"))
    assert "b" not in ledger
    assert ledger.get("c") is not None


def test_one_process_adds_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    with pytest.raises(HeldElsewhere, match="another process is asking"):
        Ledger(path)
    ledger.close()
    Ledger(path).close()


@pytest.mark.parametrize("wrong", [errno.ENOLCK, errno.ENOTSUP])
def test_a_disk_without_locks_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(wrong, os.strerror(wrong))

    monkeypatch.setattr(fcntl, "flock", flock)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(EndpointError, match=os.strerror(wrong)):
        Ledger(tmp_path / "ledger.jsonl")
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_ends_a_wait_for_another_process_leaves_nothing_open(tmp_path: Path) -> None:
    def waits() -> None:
        raise KeyboardInterrupt

    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyboardInterrupt):
        Ledger(path, waits=waits)
    assert set(os.listdir("/proc/self/fd")) == before
    ledger.close()


@pytest.mark.parametrize(("size", "limit"), [(9000, 5000), (1, 150)])
def test_a_full_disk_leaves_what_was_whole(tmp_path: Path, size: int, limit: int) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from epigone.teachers.ledger import Ledger, Row
ledger = Ledger(Path(sys.argv[1]))
row = lambda key, text: Row("came", key, {"response": text, "cost": "1"})
ledger.write([row("a", "x")])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    ledger.write([row("b", "y" * int(sys.argv[2]))])
except OSError:
    print("full", "b" in ledger, ledger.spent)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
ledger.write([row("c", "z")])
print(ledger.get("c")["response"])
"""
    path = tmp_path / f"{size}.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(size), str(limit)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["full", "False", "1", "z"]
    ledger = Ledger(path)
    assert (len(ledger), ledger.damaged) == (2, 0)
    assert "c" in ledger


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EndpointError, match="the ledger cannot be written"):
        Ledger(tmp_path / "file" / "ledger.jsonl")


def test_keys_tell_requests_apart_and_do_not_hang_on_their_order() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5}
    same = dict(reversed(body.items()))
    assert key_of("p", body, 0) == key_of("p", same, 0)
    others = [
        key_of("q", body, 0), key_of("p", body, 1), key_of("p", body, 0, 1),
        key_of("p", {**body, "temperature": 0.6}, 0), key_of("p", {**body, "seed": 1}, 0),
    ]  # fmt: skip
    assert len({key_of("p", body, 0), *others}) == 6


def test_each_model_at_each_endpoint_has_a_ledger_with_a_harmless_name() -> None:
    places = {
        ledger_file(Path("l"), Endpoint(url, model)).name
        for url in ("https://a/v1", "http://a/v1", "https://b/v1")
        for model in ("m", "../../etc/passwd", "M")
    }
    assert len(places) == 9
    assert not any("/" in name or name.startswith(".") for name in places)
    own = ledger_file(Path("l"), Endpoint("https://a/v1/", "m"))
    assert own == ledger_file(Path("l"), Endpoint("https://a/v1", "m"))
    assert os.path.basename(own).startswith("a-v1-m-")


def test_an_answer_ends_the_attempt_that_it_belongs_to(tmp_path: Path) -> None:
    """A request that lies in a batch is asked live all the same, by an older program say."""

    def batched(key: str, most: str) -> Row:
        return ledger_module.sent(key, Decimal(most), 0, "", batch="own")

    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.write([batched("a", "4"), batched("b", "8"), Row("batch", "own", {"state": "made"}),
                  sent("a"), sent("b")])  # fmt: skip
    assert (ledger.open, ledger.in_batches) == (14, 12)
    assert ledger.batch_of("a") == "own"
    ledger.write([came("a")])
    assert (ledger.open, ledger.batch_of("a")) == (13, "own")
    ledger.write([Row("void", "b", {"batch": "own"})])
    assert (ledger.open, ledger.in_batches, ledger.batch_of("b")) == (5, 4, "")
    with pytest.raises(EndpointError, match="in a batch that is open"):
        ledger.check_single("a")
    ledger.check_single("b")
    ledger.write([Row("void", "a", {"batch": "own"}), came("b")])
    assert (ledger.open, ledger.in_batches, ledger.spent) == (0, 0, Decimal("0.5"))
    ledger.close()
