"""Trainings to which nothing happens, and what it means that another came back exactly."""

import ctypes
import os
import struct
import subprocess
import sys

import torch

from p2p_dist.cli import submit
from p2p_dist.data import dataset as datasets
from p2p_dist.jobs import begin_run, example_song
from p2p_dist.run import metrics_file, rundir
from p2p_dist.train import checkpoint

PYTHON = sys.executable  # a test may put another in its place


def begin(name, *arguments):
    """A run of the example song, as typed: its folder and its settings."""
    command, run = submit.parse([*arguments, "--run", name])
    return run, begin_run.begin(run, command.settings, dataset(command.settings))


def dataset(settings):
    """Name of the example song's shards."""
    songs = example_song.example_folder()
    example_song.lay_out_example(songs)
    return datasets.dataset_name(songs, settings.data)


def preprocess_here(run):
    """Make a run's shards on this machine, or see that they are there."""
    _here(run, "stage_process", "preprocess")


def sketch_here(run):
    """Sketch the training songs of a run on this machine."""
    _here(run, "stage_process", "pattern")


def train(run):
    """The training alone, of a run whose shards are there."""
    _here(run, "forked_ranks", "train")
    return run


def _here(run, module, stage):
    run.logs.mkdir(exist_ok=True)
    program = [PYTHON, "-P", "-m", f"p2p_dist.jobs.{module}", stage, str(run.path)]
    environment = {**os.environ, "PYTHONPATH": str(run.code), "P2P_ATTEMPT": "here"}
    with (run.logs / f"{stage}.log").open("w") as log:
        code = subprocess.run(program, stdout=log, stderr=log, env=environment, start_new_session=True).returncode
    assert code == 0, (run.logs / f"{stage}.log").read_text()


def digests(run):
    """What identifies the batches of every step, in order; each once."""
    rows = metrics_file.read(run)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1)), f"{run.path.name}: every step once, in order"
    return [row["digests"] for row in rows]


def same(run, other):
    """The same batches and the same weights, optimisers' moments included, to the last bit."""
    assert digests(run) == digests(other), f"{run.path.name} and {other.path.name}: other batches"
    (step, ours), (step_of_other, theirs) = (checkpoint.load_newest(one.checkpoints) for one in (run, other))
    assert step == step_of_other == len(digests(run))
    ours, theirs = (list(checkpoint.tensors(state["networks"])) for state in (ours, theirs))
    assert len(ours) == len(theirs) > 0
    assert all(map(_same_bits, ours, theirs)), f"{run.path.name} and {other.path.name}: other weights at step {step}"


def _same_bits(one, other):
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)


class Evaluations:
    """Counts the evaluations of a run from now on: the kernel (inotify) tells of each that is put in its place by a rename."""

    MOVED_FROM, MOVED_TO, HEAD = 0x40, 0x80, struct.Struct("iIII")

    def __init__(self, run):
        self.run, self.libc = run, ctypes.CDLL(None, use_errno=True)
        run.evaluations.mkdir(parents=True, exist_ok=True)
        self.descriptor = self.libc.inotify_init1(os.O_NONBLOCK)
        # Both sides of a rename: of two equal events in a row the kernel would tell only one.
        asked = self.libc.inotify_add_watch(self.descriptor, os.fsencode(run.evaluations), self.MOVED_FROM | self.MOVED_TO)
        assert asked >= 0, os.strerror(ctypes.get_errno())

    def each_once(self):
        """Every checkpoint that stays has one, and nobody has made one a second time. Returns their steps."""
        told, made = os.read(self.descriptor, 2**20), []
        os.close(self.descriptor)
        while told:
            _, what, _, length = self.HEAD.unpack_from(told)
            name, told = told[self.HEAD.size :][:length].rstrip(b"\0").decode(), told[self.HEAD.size + length :]
            if what & self.MOVED_TO and name.startswith("step-"):
                made.append(name)
        steps = [step for step, path in rundir.find_steps(self.run.checkpoints) if (path / checkpoint.GENERATOR).is_file()]
        assert [step for step, _ in rundir.find_steps(self.run.evaluations)] == steps
        assert sorted(made) == [rundir.step_name(step) for step in steps], f"{self.run.path.name}: {sorted(made)}"
        return steps
