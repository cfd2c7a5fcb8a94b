"""Real images and a real Slurm whose nodes start them."""

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "slurm"))
from lab import Lab
from standins import HERE, TRAINING, Images, Place, call, launch

from p2p_dist.run import rundir


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """The cluster, the images and the site."""
    if os.geteuid() != 0:
        pytest.exit("the container tests build images and start a cluster: run them as root (sudo make test-container)", 1)
    singularity = call("bash", str(HERE / "install.sh")).split()[-1]
    folder = tmp_path_factory.mktemp("container")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setenv("PATH", f"{singularity}:{os.environ['PATH']}:/usr/sbin:/sbin")
        patch.setenv("P2P_RUNS", str(folder / "my place" / "runs"))
        patch.setenv("OMP_NUM_THREADS", "1")  # equal sums need equal threads
        patch.setenv("SINGULARITYENV_PIP_NO_COMPILE", "1")
        patch.setenv("COMPRESSION", "-comp lz4")
        for name in ("SINGULARITYENV_PIP_NO_INDEX", "SINGULARITYENV_PIP_FIND_LINKS", "SLURM_CONF"):
            patch.setenv(name, "")  # put back at the end
        for name in ("MUSDB_PATH", "PYTHONPATH"):
            patch.delenv(name, raising=False)
        lab = Lab(6)
        try:
            images = Images(folder, pool)
            lab.up()
            found = Place(folder, images)
            found.lab = lab
            yield found
        finally:
            lab.down()
            pool.shutdown(cancel_futures=True)
            for name in ("root", "wheels"):  # pytest keeps the folders of three runs
                shutil.rmtree(folder / name, ignore_errors=True)
            for image in (*folder.glob("*.sif"), *folder.glob("*.sqsh")):
                image.unlink()


@pytest.fixture(scope="session")
def calm(place):
    """The training that is to be hurt, undisturbed, without container and cluster."""
    launch("submit", "--cluster", "local", "--run", "calm", *TRAINING)
    return rundir.find("calm")
