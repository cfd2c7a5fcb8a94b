"""A wheel that is installed alone, in an empty environment and outside any checkout, runs everything."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

OF_THE_CALLER = {"P2P_RUNS", "MUSDB_PATH", "VIRTUAL_ENV", "PYTHONPATH"}


def call(*command, cwd, seconds=1200):
    environment = {name: value for name, value in os.environ.items() if name not in OF_THE_CALLER}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the committed state."""
    place = tmp_path_factory.mktemp("wheel")
    call("git", "clone", "-q", CHECKOUT, place / "clone", cwd=place)
    call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", place, place / "clone", cwd=place)
    (built,) = place.glob("p2p_dist-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of programs of an environment that holds this wheel and what it asks for."""
    place = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", place, cwd=place)
    command = [place / "bin" / "python", "-m", "pip", "install", "-q", "-c", CHECKOUT / "constraints.txt", f"{wheel}[run]"]
    call(*command, cwd=place)
    return place / "bin"


def test_a_wheel_has_the_batch_scripts_inside_the_package_and_nothing_beside_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tracked = subprocess.run(
        ["git", "ls-files", "hpc", "p2p_dist"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    assert {name if name.startswith("p2p_dist/") else f"p2p_dist/{name}" for name in tracked.split()} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"p2p_dist"}


def test_the_jobs_of_a_cluster_are_rendered(installed, tmp_path):
    shown = call(installed / "p2p-dist", "submit", "--dry-run", "--cluster", "slurm", cwd=tmp_path)
    assert f"exec bash {tmp_path}/runs/drums-demo/code/hpc/job.sh train" in shown and not (tmp_path / "runs").exists()


def test_the_demo_comes_to_its_page(installed, tmp_path):
    shown = call(installed / "p2p-dist", "submit", "--nodes", "2", cwd=tmp_path)
    page = tmp_path / "runs" / "drums-demo" / "page" / "index.html"
    assert shown.splitlines()[-1] == f"page: {page}" and page.is_file()
    code = page.parents[1] / "code"
    assert (code / "hpc" / "job.sh").is_file() and not (code / "p2p_dist" / "hpc").exists()
    again = call(installed / "p2p-dist", "submit", "--nodes", "2", cwd=tmp_path)
    assert "code changed" not in again
    assert "is correct" in call(installed / "p2p-dist", "status", "drums-demo", "--verify", cwd=tmp_path)
