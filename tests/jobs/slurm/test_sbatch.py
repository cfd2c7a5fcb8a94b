"""Jobs as sbatch takes or refuses them."""

import os
import re

import pytest

from tests.jobs.slurm.fake_slurm import cluster, launch, site_file

__all__ = ["cluster", "launch", "site_file"]


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("cpus-per-task=8", "the site's preprocess_cores"),
        ("time=120", "the site's preprocess_time"),
        ("mem=3G", "the site's preprocess_memory"),
        ("partition=thin", "the site's cpu_partition"),
        ("partition=fat", "--partition (or the site's partition)"),
        ("mem=4G", "the site's memory_per_node"),
        ("time=240", "the site's evaluate_time"),
        ("ntasks-per-node=3", "the site's evaluate_processes"),
        ("array=", "--evaluate-array"),
    ],
)
def test_a_refusal_names_the_option_of_that_job(line, ours, cluster, launch, site_file):
    place = site_file("preprocess_memory: 3G\nmemory_per_node: 4G\ncpu_partition: thin\npartition: fat\nevaluate_processes: 3")
    cluster.refuse(f"^#SBATCH --{line}")
    with pytest.raises(ValueError, match=re.escape(f": change {ours}; nothing was queued")):
        launch("--site", place, "--evaluate-array", "2")


def test_nothing_of_another_job_gets_into_a_job(cluster, launch, monkeypatch):
    """Row 40: the launcher is typed inside a job (salloc).

    Seen: that job's variables leak: wrong GPUs, wrong nodes, or another project pays.
    Now: what is not the user's own is taken out before sbatch.
    """
    outside = {"SLURM_CONF": "/etc/slurm.conf", "SBATCH_RESERVATION": "course"}
    leaks = {"SLURM_JOB_ID": "5", "SLURM_GPUS_PER_NODE": "2", "SRUN_CPUS_PER_TASK": "3", "SBATCH_MEM_BIND": "none"}
    leaks |= {"RANK": "1", "P2P_CPU_MASKS": "0xfe"}
    wins = {"SBATCH_ACCOUNT": "theirs", "SBATCH_TIMELIMIT": "5", "SBATCH_OUTPUT": "/dev/null"}
    for name, value in {**outside, **leaks, **wins}.items():
        monkeypatch.setenv(name, value)
    launch("--run", "a", "--account", "mine")
    assert sorted(cluster.environment) == sorted(f"{name}={value}" for name, value in outside.items())
    assert os.environ["SLURM_JOB_ID"] == "5"
    assert "#SBATCH --account=mine" in (cluster.place / "script-101").read_text()


def test_the_account_of_the_environment_is_taken(cluster, launch, monkeypatch, site_file):
    monkeypatch.setenv("SBATCH_ACCOUNT", "theirs")
    launch("--run", "a", "--site", site_file("needs_account: true"))
    assert "#SBATCH --account=theirs" in (cluster.place / "script-100").read_text()
