"""Slurm's commands, on the submit host: what they find in their environment, and what sbatch answers. No job calls this."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHANGES_ANSWERS = re.compile(
    r"(SQUEUE|SCANCEL|SCONTROL|SACCT|SACCTMGR|SINFO|SSTAT|SPRIO|SSHARE)_.*"
    r"|SLURM_(TIME_FORMAT|BITSTR_LEN|JSON|YAML|DEBUG|DEBUG_FLAGS|EXIT_ERROR|EXIT_IMMEDIATE|IMMEDIATE|EXPORT_ENV)"
    r"|SLURM_(LABELIO|STDINMODE|STDOUTMODE|STDERRMODE|THREADS|DISABLE_STATUS|TEST_EXEC|NO_KILL)"
)
"""Variables by which a person's profile changes what these commands do or print, as their manual pages list them: SQUEUE_STATES
hides jobs, SLURM_TIME_FORMAT writes times in another way, SCANCEL_INTERACTIVE asks questions. hpc/slurm.sh has the same."""

OF_THE_PERSON = ("ACCOUNT", "CLUSTERS", "CONSTRAINT", "LICENSES", "NETWORK", "PARTITION", "QOS", "RESERVATION", "WCKEY")
"""sbatch's variables that say where a person's jobs belong. All others, such as SBATCH_WAIT, SBATCH_EXPORT or SBATCH_ARRAY_INX,
change what a script means: sbatch prefers its variables to the script."""


def environment() -> dict[str, str]:
    """The environment of every command of Slurm: this process's, without what changes its answers."""
    return {name: value for name, value in os.environ.items() if not CHANGES_ANSWERS.fullmatch(name)}


def ask(*command: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands.

    Raises:
        OSError: there is no such command here, or it does not answer within two minutes.
    """
    path = shutil.which(command[0])
    if path is None:
        raise FileNotFoundError(2, "no such command; is this a login node of the cluster?", command[0])
    words = [path, *command[1:]]
    try:
        return subprocess.run(words, input=input, capture_output=True, text=True, timeout=120, env=environment())
    except subprocess.TimeoutExpired as error:
        raise OSError(5, "no answer from Slurm; try again later", command[0]) from error


def job_number(said: str) -> str | None:
    """The job's number in what sbatch said, around which a site's wrapper may print lines of its own; None: there is none.

    `Submitted batch job 13`, the same with ` on cluster c`, and of `--parsable` a line `13` or `13;c`.
    """
    found = re.findall(r"Submitted batch job (\d+)", said) or re.findall(r"^\s*(\d+)(?:;\S*)?\s*$", said, re.MULTILINE)
    return found[-1] if found else None


@contextmanager
def submitting(*written: str) -> Iterator[None]:
    """Have submitit call sbatch in an environment in which nothing takes the place of what a script asks for, until the block
    ends, and find the job's number in what it says.

    Left out: what changes the commands' answers, sbatch's own variables but those of `OF_THE_PERSON`, and, inside another job
    (salloc, srun --pty), what Slurm told that one.

    Args:
        written: options of sbatch that the script has, as `account`: their variables are left out, too.
    """
    from submitit import SlurmExecutor

    before, parse = dict(os.environ), SlurmExecutor.__dict__["_get_job_id_from_submission_command"]
    kept = {f"SBATCH_{name}" for name in OF_THE_PERSON} - {"SBATCH_" + name.upper() for name in written}
    for name in before:
        # SLURM_CONF and SLURM_CLUSTERS say which Slurm, not which job.
        told = name.startswith(("SLURM_", "SLURMD_", "SRUN_")) and name not in ("SLURM_CONF", "SLURM_CLUSTERS")
        ours = name.startswith("SBATCH_") and name not in kept
        if ours or (told and "SLURM_JOB_ID" in before) or CHANGES_ANSWERS.fullmatch(name):
            del os.environ[name]
    # Its own takes the first "job N" of whatever a wrapper prints. On the class: for an array it makes an executor of its own.
    SlurmExecutor._get_job_id_from_submission_command = staticmethod(_job_number)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        SlurmExecutor._get_job_id_from_submission_command = parse  # type: ignore[method-assign]
        os.environ.clear()
        os.environ.update(before)


def _job_number(said: Any) -> str:
    """As submitit asks for it.

    Raises:
        OSError: no number in it. The job may be queued all the same: asked again, the launcher finds it by its comment.
    """
    text = said if isinstance(said, str) else said.decode(errors="replace")
    number = job_number(text)
    if number is None:
        lines = text.strip().splitlines()
        raise OSError(
            5, f"no job number in its answer ({lines[-1] if lines else 'empty'}): type the same command again", "sbatch"
        )
    return number
