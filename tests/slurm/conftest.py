"""One cluster of 16 nodes for all tests in this folder, and what they do to it."""

import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import undisturbed
from harmed import SETTINGS, TRAINING, Training
from lab import Lab

CHECKOUT = Path(__file__).resolve().parents[2]

AHEAD = 3
"""So many trainings start before their test comes. Not all at once: two cores import torch for all of them."""


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """The cluster, and a folder for runs; what is preprocessed once is shared by all runs in it."""
    if os.geteuid() != 0:
        pytest.exit(
            "the Slurm tests start daemons and namespaces of their own, and so must run as root: sudo make test-slurm", 1
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
        patch.setenv("P2P_RUNS", str(tmp_path_factory.mktemp("slurm") / "my place" / "runs"))
        # Equal sums need equal threads, and a node of the cluster claims more cores than there are.
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("P2P_WATCH_EVERY", "2")  # seconds, for hpc/watch_training.sh
        for name in ("MUSDB_PATH", "PYTHONPATH"):
            patch.delenv(name, raising=False)
        patch.setenv("SLURM_CONF", "")  # put back at the end
        lab = Lab(16)
        try:
            lab.up()
            yield lab
        finally:
            lab.down()


@pytest.fixture(scope="session")
def launch(lab):
    """Type a command of launch/; its output, which an unexpected exit code shows. The nodes have GPUs, trainings need none."""

    def launch(command, *arguments, code=0, yes=True):
        if command == "submit" and yes:
            arguments = (*arguments, "--yes")
        done = subprocess.run(
            [sys.executable, f"launch/{command}.py", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return launch


@pytest.fixture(scope="session")
def twins(lab):
    """Nodes -> the training on so many that nothing happens to; they are made on this machine while others begin."""
    runs = {nodes: undisturbed.begin(f"undisturbed-{nodes}", "--nodes", str(nodes), *TRAINING)[0] for nodes in (2, 1)}
    undisturbed.preprocess_here(runs[1])
    with ThreadPoolExecutor(1) as pool:
        yield {nodes: pool.submit(undisturbed.train, run) for nodes, run in runs.items()}


@pytest.fixture(scope="session")
def start(lab, twins, tmp_path_factory):
    """`start(name)`: that training, and in advance those that the next tests need."""
    folder = tmp_path_factory.mktemp("paced")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).parent / "paced.py"}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    running, over = {}, threading.Event()

    def skip_the_two_minutes():
        while not over.wait(0.5):
            waiting = lab.ask("squeue", "--noheader", "--states=PENDING", "--format=%i %r", check=False)
            for line in waiting.splitlines():  # most reasons are one word, some a sentence in brackets
                if line.endswith(" BeginTime"):
                    lab.release(line.split()[0])

    def start(name):
        names = list(SETTINGS)
        ahead = names[names.index(name) :][: AHEAD + 1]
        if name not in ("controller away", "controller away at the start", "srun killed"):
            # Its time must not end while nobody can queue it again.
            ahead = ["out of time", *ahead]
        for one in ahead:
            if one not in running:
                running[one] = Training(lab, one, folder, twins)
                running[one].queue()
        return running[name]

    with ThreadPoolExecutor(1) as pool:
        skipping = pool.submit(skip_the_two_minutes)
        start.running, start.folder = running, folder
        yield start
        over.set()
    skipping.result()
