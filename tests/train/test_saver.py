"""Saving beside the training."""

from __future__ import annotations

import threading

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
