"""Call Slurm's commands on the submit host: with a clean environment, and parse the answer of sbatch. No job calls this."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection

CHANGES_ANSWERS = re.compile(
    r"(SQUEUE|SCANCEL|SCONTROL|SACCT|SACCTMGR|SINFO|SSTAT|SPRIO|SSHARE)_.*"
    r"|SLURM_(TIME_FORMAT|BITSTR_LEN|JSON|YAML|DEBUG|DEBUG_FLAGS|EXIT_ERROR|EXIT_IMMEDIATE|IMMEDIATE|EXPORT_ENV)"
    r"|SLURM_(LABELIO|STDINMODE|STDOUTMODE|STDERRMODE|THREADS|DISABLE_STATUS|TEST_EXEC|NO_KILL)"
    r"|SRUN_(EXPORT_ENV|LABELIO|INPUT|OUTPUT|ERROR|DEBUG)"
)
"""Variables that change what these commands do or print, according to their manual pages: SQUEUE_STATES hides jobs,
SLURM_TIME_FORMAT changes times, SCANCEL_INTERACTIVE asks for confirmation. hpc/slurm.sh has the same list."""

USERS_OWN = ("ACCOUNT", "CLUSTERS", "CONSTRAINT", "LICENSES", "NETWORK", "PARTITION", "QOS", "RESERVATION", "WCKEY")
"""sbatch's variables for the user's account, partition and the like. All others (SBATCH_WAIT, SBATCH_EXPORT, ...)
change the meaning of a script, because sbatch prefers its variables to the options in the script."""


OF_A_JOB = tuple(
    "P2P_" + name
    for name in (
        *("CONTAINER", "OVERLAY", "BINDS", "RUNTIME", "RUNTIME_OPTIONS", "CPU_MASKS", "SRUN", "RENDEZVOUS", "ENVIRONMENT"),
        *("MAX_SECONDS", "MAX_NODE_SECONDS", "RATE", "NODES", "EVALUATE"),
        *("CLAIMS", "ATTEMPT", "ATTEMPTS", "JOB", "BEGUN", "SUCCESSOR_OF", "OUT_OF_MEMORY"),
    )
)
"""Variables that hpc/job.sh reads. Those that a job script does not set must be unset."""


def environment() -> dict[str, str]:
    """Return the environment for Slurm's commands: this process's, without variables that change their output."""
    return {name: value for name, value in os.environ.items() if not CHANGES_ANSWERS.fullmatch(name)}


def environment_of_sbatch(options: Collection[str]) -> dict[str, str]:
    """Return the environment for sbatch, without variables that override the options in a script.

    submitit removes the variables of the surrounding job (salloc, srun --pty), of sbatch, torch and this program. Kept
    are those in `USERS_OWN` and, outside of a job, the user's own variables for Slurm.

    Args:
        options: sbatch options in the script, such as `account`, whose variables are removed, too.
    """
    from submitit.helpers import clean_env

    kept = {f"SBATCH_{name}" for name in USERS_OWN} - {"SBATCH_" + name.upper() for name in options}
    kept |= {"SLURM_CONF", "SLURM_CLUSTERS"}  # these select the cluster, not a job
    outside = "SLURM_JOB_ID" not in os.environ
    before = environment()
    with clean_env(extra_names=OF_A_JOB):
        cleaned = environment()
    return cleaned | {
        name: value
        for name, value in before.items()
        if name in kept or (outside and name.startswith(("SLURM_", "SLURMD_", "SRUN_")))
    }


def ask(*command: str, input: str | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands.

    Args:
        env: its environment; None for `environment()`.

    Raises:
        OSError: the command does not exist, or does not finish within two minutes.
    """
    name = command[0]
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(2, "no such command; is this a login node of the cluster?", name)
    try:
        return subprocess.run(
            [path, *command[1:]],
            input=input,
            capture_output=True,
            # As names of files: other jobs may have comments in any encoding, and a path in one is found again to the byte.
            encoding=sys.getfilesystemencoding(),
            errors="surrogateescape",
            timeout=120,
            env=env or environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(5, "Slurm does not answer; try again later", name) from error


def job_number(said: str) -> str | None:
    """Return the job number in sbatch's output; None if there is none. A site's wrapper may add lines to the output.

    Formats: `Submitted batch job 13`, the same with ` on cluster c`, and with `--parsable` a line `13` or `13;c`.
    """
    found = re.findall(r"Submitted batch job (\d+)", said) or re.findall(r"^\s*(\d+)(?:;\S*)?\s*$", said, re.MULTILINE)
    return found[-1] if found else None
