from __future__ import annotations

from pathlib import Path

import pytest

from epigone.errors import UserError
from epigone.models.references import absent
from epigone.runs.resolve import ABSENT, UNRESOLVED, World


@pytest.mark.parametrize("ref", ["data/talk.json", "./talk.json", "~/no/such/talk.json"])
def test_a_path_where_nothing_lies_is_absent(tmp_path: Path, ref: str) -> None:
    path = absent(ref, tmp_path)
    assert path is not None
    assert path.is_absolute()
    assert not path.exists()
    world = World(online=False, folder=tmp_path)
    assert world.reference(ref) == str(path)
    assert world.data_fingerprint(ref) == f"{ABSENT}:{ref}"
    # A base that is not there cannot be planned with, and a run needs its data.
    with pytest.raises(UserError, match="no such file or folder"):
        world.fingerprint(ref)
    with pytest.raises(UserError, match="no such file or folder"):
        World(online=True, folder=tmp_path).data_fingerprint(ref)


@pytest.mark.parametrize(
    "ref", ["hf:a/b", "endpoint:http://h/v1#m", "gguf:./m.gguf", "sharegpt-v3-part", "no-path"]
)
def test_what_is_no_path_is_not_absent(tmp_path: Path, ref: str) -> None:
    assert absent(ref, tmp_path) is None


def test_a_path_where_something_lies_is_not_absent(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "talk.json").write_text("[]")
    assert absent("data/talk.json", tmp_path) is None
    assert absent("./data", tmp_path) is None
    seen = World(online=False, locked={"data/talk.json": "sha256:old"}, folder=tmp_path)
    assert seen.data_fingerprint("data/talk.json").startswith("sha256:")
    assert seen.data_fingerprint("data/talk.json") != "sha256:old"


def test_absent_data_is_known_by_what_an_earlier_run_saw(tmp_path: Path) -> None:
    world = World(online=False, locked={"data/talk.json": "sha256:old"}, folder=tmp_path)
    assert world.data_fingerprint("data/talk.json") == "sha256:old"


def test_what_is_not_known_yet_is_not_the_same() -> None:
    world = World(online=False)
    one, two = (world.fingerprint(f"hf:org/{name}") for name in ("a", "b"))
    assert one != two
    assert one.startswith(UNRESOLVED)
