"""What made a run: its code, of which it keeps a copy, and the versions it was begun with."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from p2p_dist import __version__, files

PACKAGES = ("torch", "numpy", "scipy", "webdataset", "av", "soxr", "soundfile", "submitit", "safetensors")

CHECKOUT = Path(__file__).resolve().parents[1]


def _code(root: Path) -> dict[str, Path]:
    """The files that a run needs of a checkout (or of its own copy): relative path -> file."""
    found = [path for part in ("p2p_dist", "hpc") for path in (root / part).rglob("*")]
    return {
        path.relative_to(root).as_posix(): path
        for path in found
        if path.is_file() and path.suffix != ".pyc" and not path.name.startswith(files.TEMPORARY)
    }


def copy_code(target: Path) -> None:
    """Copy this program, so that a queued or resumed run goes on with the code it began with."""
    if target.exists():
        return
    with files.new_folder(target) as temporary:
        for name, path in _code(CHECKOUT).items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, temporary / name)


def code_differs(copy: Path) -> bool:
    """Whether this program is no longer the one that a run began with and has its copy of."""
    here, there = _code(CHECKOUT), _code(copy)
    return here.keys() != there.keys() or any(here[name].read_bytes() != there[name].read_bytes() for name in here)


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
