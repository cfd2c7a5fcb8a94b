"""Record the provenance of a run: the command, the commit and the versions that it was created with."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from p2p_dist import __version__
from p2p_dist.common import records, schemas
from p2p_dist.common.secrets import mask, mask_command
from p2p_dist.run.snapshot import CHECKOUT

PACKAGES = ("torch", "numpy", "scipy", "webdataset", "av", "soxr", "soundfile", "submitit", "safetensors")


def command(path: Path, name: str) -> str:
    """Return how to call a command, for messages: with launch/ of a checkout or with p2p-dist, as when the run was started.

    Messages that are written in a job, in a container or by the run's copy of the code need this.

    Args:
        path: provenance.json of the run, which runs of early versions lack. name: of the command, such as `submit`.
    """
    begun = records.read(path, schemas.PROVENANCE, "remove it")["command"] if path.is_file() else []
    installed = bool(begun) and Path(begun[0]).name == "p2p-dist"
    return f"p2p-dist {name}" if installed else f"python launch/{name}.py"


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Return the versions of packages; None for one that is not installed."""
    import importlib.metadata  # takes 25 ms, which --help does not need

    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def gather() -> dict[str, Any]:
    """Return command, commit, uncommitted changes, versions and machine, for provenance.json."""

    def git(*arguments: str, errors: str = "surrogateescape") -> str | None:
        command = ["git", "-C", str(CHECKOUT), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, encoding="utf-8", errors=errors, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout

    inside = git("rev-parse", "--show-toplevel")
    ours = inside is not None and Path(inside.strip()) == CHECKOUT
    # Readable by all users, because runs are shared.
    return {
        "command": mask_command(sys.argv),
        "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "version": __version__,
        "commit": (git("rev-parse", "HEAD") or "").strip() if ours else None,
        "changes": mask(git("diff", "HEAD", errors="backslashreplace") or "") if ours else None,
        "python": platform.python_version(),
        "packages": versions(PACKAGES),
        "machine": {"host": socket.gethostname(), "kernel": platform.release(), "processor": platform.machine()},
    }
