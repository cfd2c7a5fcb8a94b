"""Trainings that harm is done to: which there are, and what a test can do with one. They train through paced.py."""

import dataclasses
import os
import shutil
import sys
from pathlib import Path

import pytest
import undisturbed
from lab import wait_until

from p2p_dist.common import files
from p2p_dist.jobs import site
from p2p_dist.jobs.slurm import chains, squeue
from p2p_dist.run import metrics_file, rundir
from p2p_dist.settings import config

LONG = 150
"""Seconds that something may take on a busy machine before a test gives up."""

TRAINING = ("--preset", "tiny", "--train.steps", "24", "--train.keep-every", "1000")

HOLD = 7
"""The step that a training waits at: it has saved step 5, and lost nothing yet of what comes after."""

# Those that are harmed where they are have their nodes for themselves.
ONE, TWO, SHARED = ({"nodes": n, "partition": p} for n, p in ((1, "standard-g"), (2, "standard-g"), (1, "small")))
SETTINGS = {
    "controller away": SHARED,
    "controller away at the start": SHARED,
    "srun killed": SHARED,
    "preempted": {"nodes": 2, "partition": "low"},
    "preempted unsignalled": {"partition": "low"},
    "accounting away": {"partition": "low"},
    "requeued from outside": SHARED,
    "signalled": SHARED,
    "batch shell signalled": SHARED,
    "not requeued": {"site": ("requeue: true", "requeue: false"), **SHARED},
    "crashing": {"max_crash_restarts": 2, **SHARED},
    "stuck": SHARED,
    "evaluation failing": {"site": ("evaluate_processes: 1", "evaluate_processes: 2"), **SHARED},
    "evaluation failing beside": {"evaluate": "during", **SHARED},
    "slurmd lost": ONE,
    "node lost": TWO,
    "time limit lowered": SHARED,
    "suspended": SHARED,
    "cancelled": {"evaluate": "during", **SHARED},
    "out of time": {"time": "00:01:00", **SHARED},
}
"""In the order of their tests, but the last, which takes longest, is begun once no test stops the controller any more."""

SRUN = """#!/bin/sh
while [ -e "$P2P_BEGUN.hold" ]; do touch "$P2P_BEGUN.asked"; sleep 0.1; done
exec {srun} "$@"
"""
"""srun, where a test wants to harm a job before its step: it waits until begun.hold, beside the job's log, is gone."""

PLANS = {
    "out of time": {"hold_starts": 2},
    "crashing": {"crash": True},
    "stuck": {"stuck": True},
    "evaluation failing": {"evaluation": "task 1 fails"},
    "evaluation failing beside": {"evaluation": "task 0 fails"},
}
"""See paced.py."""


class Training:
    """One run that trains through paced.py, queued with the launcher's own code."""

    def __init__(self, lab, name, folder, twins, resources=None, more=()):
        self.lab, self.twins, self.jobs, self.finished = lab, twins, {}, False
        resources = dict(SETTINGS[name] if resources is None else resources)
        if change := resources.pop("site", None):
            path = folder / f"{name}.yaml"
            path.write_text((site.HPC / "sites" / "slurm.yaml").read_text().replace(*change))
            resources["site"] = str(path)
        self.run, wanted = undisturbed.begin(name.replace(" ", "-"), *TRAINING, *more)
        self.settings = dataclasses.replace(wanted, resources=config.Resources(**resources))
        files.write_json(self.run.path / "plan.json", PLANS.get(name, {}))
        self.hold(HOLD)
        self.python = folder / "python"
        if name == "controller away at the start":
            self.begun = self.run.slurm / "train" / "begun"
            files.write_text(self.begun.with_suffix(".hold"), "")
            files.write_text(folder / "bin" / "srun", SRUN.format(srun=shutil.which("srun")))
            (folder / "bin" / "srun").chmod(0o755)

    def queue(self, *others):
        """What the launcher does last, with others for a sweep."""
        all_runs = [self, *others]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "executable", str(self.python))
            if (folder := self.python.parent / "bin").is_dir() and hasattr(self, "begun"):
                patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
            places = [site.load_site("slurm", one.settings.resources.site) for one in all_runs]
            chains.queue([(one.run, one.settings, place) for one, place in zip(all_runs, places, strict=True)], "")
        found = squeue.queued_jobs(self.run)
        self.jobs |= {stage: job.number for stage, job in found.items()}
        for one in others:
            one.jobs |= {stage: job.number for stage, job in squeue.queued_jobs(one.run).items()}
        return found

    @property
    def train(self):
        """The training's job, as Slurm knows it."""
        return self.jobs["train"]

    def hold(self, step):
        """Have it wait at this step instead."""
        files.write_text(self.run.path / "hold", str(step))

    @property
    def step(self):
        """The newest step that is noted."""
        rows = metrics_file.read(self.run)
        return rows[-1]["step"] if rows else 0

    def log(self, part="*_0_log.out"):
        """All that its processes and its batch shells said."""
        return "\n".join(path.read_text() for path in sorted((self.run.slurm / "train").glob(part)))

    def about(self):
        """What to show when something did not happen."""
        return f"{self.run.path.name}: {self.lab.job(self.train)}\n{self.log()}\n{self.attempts()}"

    def signal(self, number, word):
        """Send a signal to all processes of its training in whose command line this word is."""
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                words = path.read_bytes().split(b"\0")
                command = (path.parent / "cmdline").read_bytes()
            except OSError:
                continue
            if f"SLURM_JOB_ID={self.train}".encode() in words and word in command:
                os.kill(int(path.parent.name), number)

    def train_further(self):
        """Let it do some steps after its newest start, and wait."""
        began = int(self.attempts("start", 2)[-1])
        self.hold(began + 3)
        self.until(lambda: self.step >= began + 2)

    def attempts(self, kind="", word=None):
        """The lines of its record that begin so; or one word of each."""
        path = self.run.slurm / "train" / "attempts"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [line if word is None else line[word] for line in lines if line[0].startswith(kind)]

    def until(self, done):
        """Wait until `done()`."""
        wait_until(done, LONG, self.about)

    def until_it_holds(self):
        """Wait until it has saved once and waits."""
        self.until(lambda: self.step >= HOLD - 1 and rundir.find_steps(self.run.checkpoints))

    def until_start(self, number):
        """Wait until the job has begun for the so-manieth time."""
        self.until(lambda: len(self.attempts("start")) >= number)

    def until_end(self, state, stage="train"):
        """Wait until the job of a stage is in this state for good."""
        self.lab.wait_for(self.jobs[stage], LONG, state)

    def finish(self):
        """Let it finish; then nothing may be missing, and nothing twice."""
        self.hold(10**9)
        self.until_end("COMPLETED")
        self.compare()
        self.finished = True

    def be_followed_once(self):
        """What waited for it runs, once."""
        for stage, name in (("evaluate", "evaluated"), ("page", "paged")):
            self.until_end("COMPLETED", stage)
            assert len((self.run.path / name).read_text().split()) == 1, (self.run.path.name, stage)
        assert not list(self.run.path.rglob(".tmp-*"))

    def compare(self):
        """With the training of as many processes to which nothing happened."""
        undisturbed.same(self.run, self.twins[self.settings.resources.nodes].result())
        assert self.attempts("end", 5)[-1] == "done" and len(self.attempts("start")) == len(self.attempts("end"))
        assert not list(self.run.checkpoints.glob(".tmp-*"))
