"""Saving beside the training."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from p2p_dist.run import rundir
from p2p_dist.train import checkpoint, saver
from tests.faults import cuts


def test_the_last_save_is_tried_again(tmp_path, capsys):
    """Row 8: the very last save is refused for some seconds.

    Seen: a finished training without its last checkpoint.
    Now: it is tried for half a minute before the process ends; if that fails too, the run fails and says so.
    """
    honest, calls = checkpoint.save, []

    def refuse(times):
        def save(*arguments):
            calls.append(arguments[1])
            if len(calls) <= times:
                raise OSError(28, "No space left on device")
            honest(*arguments)

        return save

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saver, "PAUSES", (0.0, 0.0))
        for times in (3, 9):
            calls.clear()
            patch.setattr(checkpoint, "save", refuse(times))
            writer = saver.Saver(tmp_path / str(times), 2, lambda step: False)
            writer.save(5, cuts.state_of(5), {}, {"settings": "abc"})
            if times == 3:
                writer.finish()
                assert checkpoint.load_newest(tmp_path / "3")[0] == 5
                assert "No space left on device" in capsys.readouterr().err
            else:
                with pytest.raises(OSError, match="could not be written, the last at step 5"):
                    writer.finish()


def test_an_error_in_the_thread_is_not_lost(tmp_path, monkeypatch):
    def broken(*_):
        raise TypeError("a bug")

    monkeypatch.setattr(checkpoint, "save", broken)
    writer = saver.Saver(tmp_path, 2, lambda step: False)
    writer.save(5, cuts.state_of(5), {}, {})
    with pytest.raises(TypeError, match="a bug"):
        writer.save(10, cuts.state_of(10), {}, {})


def test_what_is_written_is_what_was_when_it_was_saved(tmp_path, monkeypatch):
    """Training changes the weights in place while the thread writes."""
    honest, go = checkpoint.save, threading.Event()

    def slow(*arguments):
        go.wait()
        honest(*arguments)

    monkeypatch.setattr(checkpoint, "save", slow)
    weights = torch.full((100,), 5.0)
    writer = saver.Saver(tmp_path, 2, lambda step: False)
    writer.save(5, {"weights": weights}, {"weights": weights}, {})
    weights.fill_(6.0)
    go.set()
    writer.save(10, {"weights": weights}, {"weights": weights}, {})
    writer.finish()
    for step, expected in ((5, 5.0), (10, 6.0)):
        found = checkpoint.Checkpoint(tmp_path / rundir.step_name(step), step)
        assert torch.load(found.path / "state.pt", weights_only=True)["weights"].eq(expected).all()
        assert checkpoint.load_generator(found)["weights"].eq(expected).all()
    assert len(writer.host) == 1, "one place in memory for a tensor that is named twice, the same at every save"


SETTINGS = {"settings": "abc"}


def test_a_save_that_was_superseded_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed: a training that lost its run prunes the checkpoints of the one that has it now."""
    (tmp_path / "attempts").write_text("start 7.0 0 100 1\nstart 7.1 0 200 1\n")
    monkeypatch.setenv("P2P_ATTEMPTS", str(tmp_path / "attempts"))
    monkeypatch.setenv("P2P_ATTEMPT", "7.0")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    writer = saver.Saver(folder, 2, lambda step: False)
    writer.save(5, cuts.state_of(5), {}, SETTINGS)
    with pytest.raises(rundir.SupersededError):
        writer.finish()
    assert not any(folder.iterdir())


def test_failures_that_are_not_in_a_row_end_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = checkpoint.save

    def save(folder: Path, step: int, *rest: Any) -> None:
        if step in (5, 10, 20, 25):
            raise OSError(errno.ENOSPC, "No space left on device")
        honest(folder, step, *rest)

    monkeypatch.setattr(checkpoint, "save", save)
    monkeypatch.setattr(saver, "PAUSES", ())
    writer = saver.Saver(tmp_path, 2, lambda step: False)
    for step in range(5, 35, 5):
        writer.save(step, cuts.state_of(step), {}, SETTINGS)
    writer.finish()
    assert [found.step for found in checkpoint.find(tmp_path)] == [15, 30]


def test_however_training_ends_the_save_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *arguments: (time.sleep(0.5), honest(*arguments)))
    with pytest.raises(KeyError), saver.Saver(tmp_path, 2, lambda step: False) as writer:
        writer.save(5, cuts.state_of(5), {}, SETTINGS)
        raise KeyError
    assert [found.step for found in checkpoint.find(tmp_path)] == [5]


def test_a_limit_of_file_sizes_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlike a full disk it never goes away."""
    pauses: list[float] = []
    monkeypatch.setattr(saver.time, "sleep", pauses.append)

    def save(*_: Any) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(checkpoint, "save", save)
    writer = saver.Saver(tmp_path, 2, lambda step: False)
    writer.save(5, cuts.state_of(5), {}, {})
    with pytest.raises(OSError, match="step 5"):
        writer.finish()
    assert pauses == [0.0]


def test_a_tensor_and_its_transpose_are_two(tmp_path: Path) -> None:
    weight = torch.arange(4.0).reshape(2, 2)
    writer = saver.Saver(tmp_path, 2, lambda step: False)
    writer.save(5, {"a": weight, "b": weight.t()}, {}, SETTINGS)
    writer.finish()
    state = torch.load(tmp_path / rundir.step_name(5) / "state.pt", weights_only=True)
    assert state["a"].equal(weight) and state["b"].equal(weight.t())
