"""One cluster of 16 nodes for all tests in this folder, and what they do to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from lab import Lab

CHECKOUT = Path(__file__).resolve().parents[2]


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
        patch.setenv("P2P_WATCH_EVERY", "2")  # seconds, for hpc/watch.sh
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
    """Type a command of launch/; its output, which an unexpected exit code shows."""

    def launch(command, *arguments, code=0):
        done = subprocess.run(
            [sys.executable, f"launch/{command}.py", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return launch
