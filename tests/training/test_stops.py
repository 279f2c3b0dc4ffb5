from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from epigone.errors import StepFailed, Stopped
from epigone.schema import silent
from epigone.training import blocks, checkpoint, data, loop, memory, model, probe, run
from epigone.training.loss import supervised_loss

from .runs_example import done, every_step_saved, interrupted, settled, students


def test_sigterm_in_mid_step_saves_what_was_done_before_it(
    tiny_base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settled(tiny_base, (1_600,), batch=4)
    monkeypatch.setattr(probe, "CPU_TOKENS", 128)
    facts = done(asked, corpus, tmp_path / "whole")
    broken = tmp_path / "broken"
    broken.mkdir()
    seen = 0
    micro_batches = data.micro_batches

    def second_of_third(*arguments: Any, **named: Any) -> Any:
        nonlocal seen
        seen += 1
        for i, micro in enumerate(micro_batches(*arguments, **named)):
            if (seen, i) == (3, 1):
                os.kill(os.getpid(), signal.SIGTERM)
            yield micro

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        patched.setattr(data, "micro_batches", second_of_third)
        with pytest.raises(Stopped):
            run(asked, {"corpus": corpus}, broken, silent)
    assert signal.getsignal(signal.SIGTERM) is before
    last = run(asked, {"corpus": corpus}, broken, silent)
    assert last["resumed_at_step"] == 2
    assert facts["steps"] > 3
    assert students(broken) == students(tmp_path / "whole")


def test_the_last_checkpoint_may_be_damaged(
    tiny_base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settled(tiny_base, (1_600,))
    whole = done(asked, corpus, tmp_path / "whole")
    broken = tmp_path / "broken"
    broken.mkdir()
    every_step_saved(monkeypatch, loop)
    interrupted(asked, corpus, broken, 4)
    newest = max((broken / ".scratch/checkpoint").glob("[0-9]*"), key=lambda p: int(p.name))
    (newest / "position.json").write_text("{")
    last = run(asked, {"corpus": corpus}, broken, silent)
    assert last["resumed_at_step"] == 3
    assert whole["steps"] > 4
    assert students(broken) == students(tmp_path / "whole")


@pytest.mark.parametrize("what", ["nan", "inf"])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_done(
    what: str, tiny_base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def spoilt(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        loss, parts = supervised_loss(*arguments, **named)
        return (loss + float(what) if calls == 4 else loss), parts

    asked = settled(tiny_base, (1_600,))
    every_step_saved(monkeypatch, loop)
    with monkeypatch.context() as patched:
        patched.setattr(model, "supervised_loss", spoilt)
        with pytest.raises(StepFailed, match=f"the loss is {what} at step 3; nothing was applied"):
            done(asked, corpus, tmp_path)
    assert run(asked, {"corpus": corpus}, tmp_path, silent)["resumed_at_step"] == 3


def test_a_run_that_diverges_is_stopped(tiny_base: Path, corpus: Path, tmp_path: Path) -> None:
    asked = settled(tiny_base, (4_000,), lr=1.0, optimizer="adamw", warmup=0.0, batch=1, block=64)
    with pytest.raises(StepFailed, match="the loss diverges"):
        done(asked, corpus, tmp_path)


def test_a_corpus_in_which_nothing_is_supervised_is_refused(
    tiny_base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = blocks.conversation_tokens

    def masked(tokenizer: Any, messages: Any) -> Any:
        found = tokens(tokenizer, messages)
        return type(found)(found.ids, [False] * len(found.ids))

    monkeypatch.setattr(blocks, "conversation_tokens", masked)
    with pytest.raises(StepFailed, match="no token of the conversations up to amount 800"):
        done(settled(tiny_base, (800,)), corpus, tmp_path)


def test_too_little_memory_is_told_before_the_first_step(
    tiny_base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free", lambda device: 1000.0)
    with pytest.raises(StepFailed, match=r"needs about 0\.0 GB more memory"):
        done(settled(tiny_base, (800,)), corpus, tmp_path)


def test_no_space_ends_the_run_and_the_same_command_goes_on(
    tiny_base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settled(tiny_base, (1_600,))
    done(asked, corpus, tmp_path / "whole")
    every_step_saved(monkeypatch, loop)
    save = checkpoint.state_dict_saver.save
    calls = 0

    def full(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.state_dict_saver, "save", full)
        with pytest.raises(OSError, match="No space left"):
            done(asked, corpus, tmp_path / "full")
    last = run(asked, {"corpus": corpus}, tmp_path / "full", silent)
    assert last["resumed_at_step"] == 2
    assert students(tmp_path / "full") == students(tmp_path / "whole")
