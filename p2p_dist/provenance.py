"""What made a run: the command, the commit and the versions it was begun with."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from p2p_dist import __version__
from p2p_dist.snapshot import CHECKOUT

PACKAGES = ("torch", "numpy", "scipy", "webdataset", "av", "soxr", "soundfile", "submitit", "safetensors")


def gather() -> dict[str, Any]:
    """The command, commit and uncommitted changes, versions and machine, for provenance.json."""
    import importlib.metadata  # 25 ms that --help need not wait for

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(CHECKOUT), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout

    inside = git("rev-parse", "--show-toplevel")
    ours = inside is not None and Path(inside.strip()) == CHECKOUT
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "command": sys.argv,
        "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "version": __version__,
        "commit": (git("rev-parse", "HEAD") or "").strip() if ours else None,
        "changes": git("diff", "HEAD") if ours else None,
        "python": platform.python_version(),
        "packages": versions,
        "machine": {"host": socket.gethostname(), "kernel": platform.release(), "processor": platform.machine()},
    }
