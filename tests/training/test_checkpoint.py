from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import CheckpointException

from epigone.training import checkpoint
from epigone.training.checkpoint import Position, Saver, restore, save


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"p.a": torch.full((4, 3), value), "m.a": torch.full((4,), value, dtype=torch.bfloat16)}


def found(folder: Path) -> tuple[int, float] | None:
    into = tensors(0.0)
    position = restore(folder, into)
    if position is None:
        return None
    values = {float(t.float().mean()) for t in into.values()}
    assert len(values) == 1, "tensors of two checkpoints"
    return position.update, values.pop()


def test_the_newest_comes_back_and_only_one_older_stays(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    assert found(folder) is None
    for step in (1, 2, 3):
        save(folder, tensors(float(step)), Position(step, ({"loss": 1.5},), {"micro_tokens": 64}))
    assert found(folder) == (3, 3.0)
    assert sorted(p.name for p in folder.iterdir()) == ["2", "3"]


class Killed(BaseException):
    pass


def killed_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die at the `call`th call that changes the folder, deletions half done."""
    count = 0

    def dying(function: Any) -> Any:
        def act(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == call:
                if function is shutil.rmtree:
                    victim = next(Path(arguments[0]).iterdir(), None)
                    if victim is not None:
                        victim.unlink()
                raise Killed
            return function(*arguments, **named)

        return act

    monkeypatch.setattr(checkpoint.shutil, "rmtree", dying(shutil.rmtree))
    monkeypatch.setattr(Path, "rename", dying(Path.rename))
    saver = checkpoint.state_dict_saver
    monkeypatch.setattr(saver, "save", dying(saver.save))
    monkeypatch.setattr(Path, "write_text", dying(Path.write_text))
    monkeypatch.setattr(Path, "mkdir", dying(Path.mkdir))
    monkeypatch.setattr(os, "fsync", dying(os.fsync))


@pytest.mark.parametrize("call", range(1, 12))
def test_a_kill_at_any_change_leaves_a_whole_checkpoint(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    for step in (0, 1):
        save(folder, tensors(float(step)), Position(step, (), {}))
    with monkeypatch.context() as patched:
        killed_at(call, patched)
        try:
            save(folder, tensors(2.0), Position(2, (), {}))
            survived = True
        except (Killed, CheckpointException):
            survived = False
    assert found(folder) in ([(2, 2.0)] if survived else [(1, 1.0), (2, 2.0)])
    # And the next save works over whatever was left.
    save(folder, tensors(3.0), Position(3, (), {}))
    assert found(folder) == (3, 3.0)
    assert len(list(folder.iterdir())) == 2


def spoil(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "cut":
        del data[-1:]
    elif how == "flipped":
        data[len(data) // 2] ^= 1
    else:
        file.unlink()
        return
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_damaged_checkpoint_is_put_away_and_the_one_before_it_used(
    how: str, which: int, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    for step in (1, 2):
        save(folder, tensors(float(step)), Position(step, (), {}))
    files = sorted((folder / "2").rglob("*"))
    assert len(files) == 3
    spoil(files[which], how)
    assert found(folder) == (1, 1.0)
    save(folder, tensors(5.0), Position(5, (), {}))
    assert found(folder) == (5, 5.0)
    for file in folder.rglob("*.distcp"):
        spoil(file, how)
    assert found(folder) is None


def test_a_saver_writes_what_stood_at_its_beginning(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    live = {"p.a": torch.zeros(1_000_000)}
    with Saver(folder, live) as saver:
        for step in range(1, 6):
            saver.wait()
            live["p.a"].fill_(step)
            saver.begin(Position(step, (), {}))
            live["p.a"].sum()
    into = {"p.a": torch.empty(1_000_000)}
    assert restore(folder, into) == Position(5, (), {})
    assert (into["p.a"] == 5).all()


def test_what_goes_wrong_in_writing_is_raised_where_one_waits(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    saver = Saver(tmp_path / "file" / "checkpoint", tensors(1.0))
    saver.begin(Position(1, (), {}))
    with pytest.raises(NotADirectoryError):
        saver.wait()
    with pytest.raises(NotADirectoryError), saver:
        saver.begin(Position(1, (), {}))
    with pytest.raises(KeyError, match="another"), saver:
        raise KeyError("another")
