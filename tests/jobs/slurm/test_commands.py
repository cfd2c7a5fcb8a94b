"""Slurm's commands, called whatever a site or a user changed in them."""

import os
import subprocess

import pytest

from p2p_dist.cli import cancel
from p2p_dist.jobs import site
from p2p_dist.jobs.slurm import commands
from tests.jobs.slurm.fake_slurm import cluster, launch

__all__ = ["cluster", "launch"]


def test_a_profile_that_changes_what_slurms_commands_print_changes_nothing(cluster, launch, monkeypatch, capsys):
    """SQUEUE_STATES and its like. If it failed: what is queued is not seen, and queued once more; cancel finds nothing; sbatch
    waits for the job, or makes an array of it."""
    squeue = (cluster.place / "squeue").read_text()
    (cluster.place / "squeue").write_text(squeue.replace("case", 'env | grep -qE "^(SQUEUE|SLURM_TIME)_" && exit 0\ncase', 1))
    (cluster.place / "scancel").write_text(f'#!/bin/sh\nenv | grep ^SCANCEL || echo "$@" >> {cluster.place}/cancelled\n')
    for name in (
        "SQUEUE_STATES",
        "SQUEUE_PARTITION",
        "SLURM_TIME_FORMAT",
        "SCANCEL_INTERACTIVE",
        "SBATCH_WAIT",
        "SBATCH_EXPORT",
    ):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SBATCH_NO_REQUEUE", "1")
    for _ in range(2):
        launch("--run", "a")
    assert len(cluster.queued()) == 4 and cluster.environment == []
    assert os.environ["SQUEUE_STATES"] == "x"
    cancel.main(["a"])
    assert (cluster.place / "cancelled").read_text().split() == ["103", "102", "101", "100"]


def test_answers_in_any_encoding_are_read(cluster, launch, monkeypatch, capsys):
    """A comment of another job of this person, or what a site's wrapper of sbatch says. If it failed: no command works; what
    sbatch has queued is not known, and queued once more."""
    for name in ("squeue", "sbatch"):
        program = (cluster.place / name).read_text()
        said = "printf '9|RUNNING|None|f\\374r mich\\n'" if name == "squeue" else "printf 'Gr\\374sse\\n'"
        (cluster.place / name).write_text(program.replace("\n", f"\n{said}\n", 1))
    for _ in range(2):
        launch("--run", "a")
    assert len(cluster.queued()) == 4
    assert commands.ask("squeue").stdout.encode(errors="surrogateescape").startswith(b"9|RUNNING|None|f\xfcr mich")


def test_the_launcher_and_the_jobs_drop_the_same_variables(monkeypatch):
    """SRUN_EXPORT_ENV=NONE, for one, would take its variables from every process of a job."""
    dropped = ("SQUEUE_FORMAT", "SACCT_FORMAT", "SLURM_TIME_FORMAT", "SLURM_EXPORT_ENV", "SRUN_EXPORT_ENV", "SRUN_ERROR")
    kept = ("SLURM_CONF", "SLURM_CPU_BIND", "SRUN_CPUS_PER_TASK", "SLURM_JOB_ID")
    for name in (*dropped, *kept):
        monkeypatch.setenv(name, "x")
    shell = subprocess.run(["bash", "-c", f'. "{site.HPC}/slurm.sh"; compgen -e'], capture_output=True, text=True, check=True)
    for left in (shell.stdout.split(), commands.environment()):
        assert not {*left} & {*dropped} and {*left} >= {*kept}


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("Submitted batch job 13", "13"),
        ("Submitted batch job 13 on cluster c3", "13"),
        ("Welcome! This is job 7 of your quota of 20\nsbatch: INFO Submitted batch job 13.\nBalance: 500", "13"),
        ("Balance: 500 hours\n13;c3\n", "13"),
        (" 13 \nYour project has 2 jobs", "13"),
        ("taken", None),
        ("", None),
    ],
)
def test_the_number_is_found_whatever_a_sites_sbatch_says_around_it(said, number):
    """In the launcher as in a job (hpc/slurm.sh). If it failed: jobs that wait for another's number, or a successor that is not
    known for one, so that limits on restarts are reset, for ever."""
    assert commands.job_number(said) == number
    script = f'. "{site.HPC}/slurm.sh"; job_number'
    shell = subprocess.run(["bash", "-c", script], input=said, capture_output=True, text=True, check=True).stdout
    assert shell.strip() == (number or "")
