"""Checkpoints are whole or not there, checked when read, and readable by any torch."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import sys

import pytest
import torch

from p2p_dist.common import files
from p2p_dist.run import rundir
from p2p_dist.train import checkpoint


def write(folder, step, value=None):
    weights = {"weight": torch.full((4, 3), float(step if value is None else value))}
    checkpoint.save(folder, step, {"step": step, "networks": weights}, weights, {"settings": "abc"})


def flip_a_byte(path, at=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


def test_save_and_load(tmp_path):
    write(tmp_path, 5)
    write(tmp_path, 10)
    step, state = checkpoint.load_newest(tmp_path)
    assert step == 10 and state["networks"]["weight"].eq(10).all()
    newest = checkpoint.find(tmp_path)[-1]
    assert checkpoint.load_generator(newest)["weight"].eq(10).all()
    assert newest.meta()["step"] == 10 and newest.meta()["settings"] == "abc"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_weights_are_read_where_nothing_can_be_written(tmp_path, monkeypatch, number):
    """From a run of another user, of an archive, or on a full disk: without a lease."""
    write(tmp_path, 5)

    def refusing(path, _):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(checkpoint.files, "open_ours", refusing)
    assert checkpoint.load_generator(checkpoint.find(tmp_path)[-1])["weight"].eq(5).all()


def test_nothing_to_go_on_from(tmp_path):
    assert checkpoint.load_newest(tmp_path / "absent") is None
    (tmp_path / ".tmp-1-step-00000005").mkdir()
    assert checkpoint.load_newest(tmp_path) is None


def test_a_checkpoint_is_never_replaced(tmp_path):
    write(tmp_path, 5)
    write(tmp_path, 5, value=7)
    assert checkpoint.load_newest(tmp_path)[1]["networks"]["weight"].eq(5).all()


def test_flipped_byte_is_set_aside(tmp_path, capsys):
    """A flipped bit in tensor data loads without any error in torch: only the sha256 sees it."""
    for step in (5, 10):
        write(tmp_path, step)
    flip_a_byte(checkpoint.find(tmp_path)[-1].path / checkpoint.STATE)
    step, _ = checkpoint.load_newest(tmp_path)
    assert step == 5
    assert "damaged" in capsys.readouterr().err
    assert (tmp_path / "damaged-step-00000010").is_dir()


@pytest.mark.parametrize("harm", ["flip", "cut", "no record", "no state"])
def test_all_damaged_is_an_error_not_a_new_beginning(tmp_path, harm):
    write(tmp_path, 5)
    path = checkpoint.find(tmp_path)[0].path
    if harm == "flip":
        flip_a_byte(path / checkpoint.STATE)
    elif harm == "cut":
        (path / checkpoint.STATE).write_bytes((path / checkpoint.STATE).read_bytes()[:-10])
    elif harm == "no record":
        (path / checkpoint.META).unlink()
    else:
        (path / checkpoint.STATE).unlink()
        with pytest.raises(ValueError, match=r"has its training state \(state\.pt\) any more"):
            checkpoint.load_newest(tmp_path)
        return
    for _ in range(2):  # also when it was set aside by an earlier start
        with pytest.raises(ValueError, match="all are damaged"):
            checkpoint.load_newest(tmp_path)


@pytest.mark.parametrize(
    "harm",
    [
        *("meta []", "meta {}", "files null", "of another step", "only meta", "empty", "state cut", "generator flipped"),
        *("pickle", "no archive", "another state"),
    ],
)
def test_what_is_not_whole_is_set_aside_and_the_one_before_is_used(tmp_path, capsys, harm):
    """And rewritten when training comes there again."""
    for step in (5, 10):
        write(tmp_path, step)
    path = checkpoint.find(tmp_path)[-1].path
    meta = json.loads((path / checkpoint.META).read_text())
    state = path / checkpoint.STATE
    if harm in ("meta []", "meta {}"):
        (path / checkpoint.META).write_text(harm[-2:])
    elif harm == "files null":
        (path / checkpoint.META).write_text(json.dumps({**meta, "files": None}))
    elif harm == "of another step":
        shutil.rmtree(path)
        shutil.copytree(checkpoint.find(tmp_path)[0].path, path)
    elif harm in ("only meta", "empty"):
        for name in (checkpoint.STATE, checkpoint.GENERATOR, *([checkpoint.META] if harm == "empty" else [])):
            (path / name).unlink()
    elif harm == "state cut":
        state.write_bytes(state.read_bytes()[:-1])
    elif harm == "generator flipped":
        flip_a_byte(path / checkpoint.GENERATOR)
    else:  # with a record that fits
        other = {"pickle": pickle.dumps(pytest.raises, 2), "no archive": b"PK\x03\x04" + b"x" * 500}.get(harm)
        if other is None:
            torch.save({"step": 5}, state)
        else:
            state.write_bytes(other)
        meta["files"][checkpoint.STATE] = {"bytes": state.stat().st_size, "sha256": files.sha256_file(state)}
        (path / checkpoint.META).write_text(json.dumps(meta))
    step, state = checkpoint.load_newest(tmp_path, ("networks",))
    assert step == 5 and state["networks"]["weight"].eq(5).all()
    assert "warning: " in (said := capsys.readouterr().err) and "step-00000010" in said
    assert (tmp_path / "damaged-step-00000010").is_dir()
    write(tmp_path, 10)
    assert checkpoint.load_newest(tmp_path)[0] == 10


def test_where_the_training_states_are_gone_nothing_begins_again(tmp_path, capsys):
    """Somebody made room, or a file system removed what was not read for months: the generators are kept by their readers."""
    for step in (5, 10, 15):
        write(tmp_path, step)
    (tmp_path / rundir.step_name(5) / checkpoint.STATE).unlink()  # as `prune` leaves it
    assert checkpoint.load_newest(tmp_path)[0] == 15 and not capsys.readouterr().err
    (tmp_path / rundir.step_name(15) / checkpoint.STATE).unlink()
    assert checkpoint.load_newest(tmp_path)[0] == 10
    assert "step 15 (state.pt) was removed: the training continues from step 10" in capsys.readouterr().err
    write(tmp_path, 15, value=7)
    assert checkpoint.load_newest(tmp_path)[1]["networks"]["weight"].eq(7).all(), "it is whole again"
    for path in tmp_path.glob(f"*/{checkpoint.STATE}"):
        path.unlink()
    with pytest.raises(ValueError, match=r"has its training state \(state\.pt\) any more"):
        checkpoint.load_newest(tmp_path)


def test_damaged_generator_is_named(tmp_path):
    write(tmp_path, 5)
    found = checkpoint.find(tmp_path)[0]
    flip_a_byte(found.path / checkpoint.GENERATOR, -1)
    with pytest.raises(ValueError, match=r"generator\.safetensors is damaged"):
        checkpoint.load_generator(found)


def test_prune(tmp_path):
    for step in (5, 10, 15, 20, 25):
        write(tmp_path, step)
    checkpoint.prune(tmp_path, 2, lambda step: step == 10)
    assert [found.step for found in checkpoint.find(tmp_path)] == [10, 20, 25]
    assert [found.is_whole for found in checkpoint.find(tmp_path)] == [False, True, True]
    assert checkpoint.load_generator(checkpoint.find(tmp_path)[0])["weight"].eq(10).all()


def test_read_in_a_fresh_process(ranks, new_run):
    """Row 21: a checkpoint holds more than tensors and numbers.

    Seen: weights_only refuses it, at resume, when it is needed.
    Now: only plain tensors and numbers: a process that knows nothing of this package reads a real checkpoint.
    """
    from tests.train import on_ranks

    run, _ = new_run(train={"steps": 5})
    ranks(1, on_ranks.train, run.path)
    path = run.checkpoints / rundir.step_name(5) / checkpoint.STATE
    assert ranks(1, read_as_others, path) == [(5, [])]


def read_as_others(path):
    """The step of a checkpoint, and what of it is no tensor or number; as read where this package is not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "p2p_dist"]:
        del sys.modules[name]
    sys.modules["p2p_dist"] = None  # whoever imports it fails
    unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return torch.load(path, weights_only=True)["step"], unsafe


def test_a_state_of_another_step_is_set_aside(tmp_path, capsys):
    checkpoint.save(tmp_path, 5, {"step": 5}, {}, {"settings": "abc"})
    checkpoint.save(tmp_path, 10, {"step": 5}, {}, {"settings": "abc"})
    assert checkpoint.load_newest(tmp_path)[0] == 5 and "contains step 5" in capsys.readouterr().err
