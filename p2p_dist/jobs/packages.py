"""Check, before anything is queued, that the packages that jobs import are installed where the jobs will run."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from p2p_dist.common import console, files
from p2p_dist.jobs import site
from p2p_dist.run import snapshot
from p2p_dist.settings.config import Resources, Train

PACKAGES = (
    *("torch", "numpy", "scipy", "av", "soxr", "soundfile", "webdataset", "musdb"),
    *("mir_eval", "jinja2", "matplotlib", "safetensors", "pyloudnorm", "mido"),
)
"""Packages that the stages import."""


def extras_of(train: Train) -> dict[str, str]:
    """Map the optional packages that a training needs -> the option that asks for each."""
    found = {"tensorboard": "--train.tensorboard"} if train.tensorboard else {}
    return found if train.tracker == "none" else {**found, train.tracker: f"--train.tracker {train.tracker}"}


def check_packages(extras: dict[str, str] | None = None) -> None:
    """Check that all packages of the stages are installed; jobs run with the same python.

    Args:
        extras: see `extras_of`.

    Raises:
        ValueError: names what is missing, and how to install it.
    """
    if missing := [name for name in PACKAGES if not is_installed(name)]:
        raise ValueError(f"to run with {sys.executable}, these packages are missing: {', '.join(missing)}; {console.INSTALL}")
    for package, option in (extras or {}).items():
        if not is_installed(package):
            raise ValueError(
                f"{option} needs the package {package}, which is missing in {sys.executable}: "
                f"python -m pip install 'p2p_dist[{package}]', or omit {option}"
            )


def check_packages_anywhere(
    resources: Resources, place: site.Site, where: str, extras: dict[str, str] | None = None, *, only_note: bool = False
) -> None:
    """Check that all packages of the stages are installed where they will run: in the jobs' container or environment, or here.

    Args:
        extras: see `extras_of`. only_note: print a note instead of an error if this machine does not belong to the cluster.

    Raises:
        ValueError: names what is missing, and how it gets there.
    """
    if where != "local" and (place.environment or place.image(resources) is not None):
        check_packages_of_jobs(resources, place, extras or {})
        return
    try:
        check_packages(extras)
    except ValueError as error:
        if not only_note or where == "local" or site.has_slurm():
            raise
        console.say(f"# note: {error}")


def check_packages_of_jobs(resources: Resources, place: site.Site, extras: dict[str, str]) -> None:
    """Check the packages in the container and environment of jobs, if this machine can start them.

    Raises:
        ValueError: names what is missing, and how it gets there.
    """
    image, overlay = place.image(resources), resources.overlay
    if image is not None and (shutil.which(place.container_runtime) is None or not image.is_file()):
        return  # not a machine of the cluster; a missing image is reported elsewhere
    tasks: dict[str, str | Path | None] = {"P2P_CONTAINER": image, "P2P_RUNTIME": place.container_runtime}
    tasks["P2P_OVERLAY"] = files.expanded(overlay) if overlay else None
    if place.environment:
        ours = site.HPC / place.environment
        tasks["P2P_ENVIRONMENT"] = ours if ours.is_file() else Path(place.environment).absolute()
    where = image or f"the environment of {place.environment}"
    names = (*PACKAGES, *extras)
    known = tuple((name, str(value)) for name, value in tasks.items() if value)
    missing, wrong = _missing_in(sys.executable if image is None else "python", known, names)
    if wrong:
        check = console.command("check")
        console.say(f"note: the packages in {where} could not be checked here ({wrong}); {check} preflight checks them")
    elif missing:
        raise ValueError(
            f"jobs would run in {where}, where these packages are missing: {', '.join(missing)}; "
            f"containers/build_overlay.sh puts them into a file for --overlay (see {snapshot.where_is('containers/README.md')})"
        )


@functools.cache
def _missing_in(python: str, tasks: tuple[tuple[str, str], ...], names: tuple[str, ...]) -> tuple[list[str], str]:
    """Return the packages missing in a job's process, or why they cannot be checked on this machine.

    Args:
        tasks: variables that hpc/rank.sh reads.
    """
    ask = "import importlib.util, sys; print('missing:', *[n for n in sys.argv[1:] if importlib.util.find_spec(n) is None])"
    command = ["bash", str(site.HPC / "rank.sh"), python, "-P", "-c", ask, *names]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **dict(tasks)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        return [], "no answer within two minutes"
    if (answer := re.search("^missing:(.*)$", done.stdout, re.MULTILINE)) is None:
        # After what went wrong in the environment file, rank.sh says that it did.
        said = done.stderr.splitlines()
        return [], (
            [line for line in said if not line.startswith("error: a command in ")] or said or [f"exit code {done.returncode}"]
        )[-1]
    return answer[1].split(), ""


def is_installed(package: str) -> bool:
    """Whether a package can be found, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
