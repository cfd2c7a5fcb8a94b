"""Record the provenance of a run: the command, the commit and the versions that it was created with."""

from __future__ import annotations

import platform
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from p2p_dist import __version__
from p2p_dist.common import records, schemas
from p2p_dist.run.snapshot import CHECKOUT

PACKAGES = ("torch", "numpy", "scipy", "webdataset", "av", "soxr", "soundfile", "submitit", "safetensors")

MASK = "***"

_NAMES = r"(?i:token|passw(?:or)?d|secret|credential|api[-_]?key|access[-_]?key|private[-_]?key)"
_OPTION = re.compile(rf"--?[\w.-]*{_NAMES}[\w.-]*", re.IGNORECASE)
_SECRETS = tuple(
    (re.compile(pattern, re.DOTALL), instead)
    for pattern, instead in (
        # Known formats of keys: Hugging Face, AWS, GitHub, GitLab, Slack, OpenAI; and JSON web tokens.
        (r"\bhf_[A-Za-z0-9]{8,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\bgh[opsur]_\w{16,}|\bgithub_pat_\w{16,}", MASK),
        (r"\bglpat-[\w-]{16,}|\bxox[abprs]-[\w-]{8,}|\bsk-[\w-]{16,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*", MASK),
        (r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", MASK),
        (r"(://)[^/\s@'\"]+@", rf"\1{MASK}@"),
        (r"(\b(?i:Bearer)\s+)[\w.~+/=-]{8,}", rf"\1{MASK}"),
        # NAME=value, name: "value" and --name value, if the name is that of a secret.
        (rf"([\w.-]*{_NAMES}[\w.-]*[\"']?[ \t]*[=:][ \t]*)(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;)\"']+)", rf"\1{MASK}"),
        (rf"(--?[\w.-]*{_NAMES}[\w.-]*[ \t]+)(\"[^\"\n]*\"|'[^'\n]*'|[^\s-][^\s]*)", rf"\1{MASK}"),
    )
)


def mask(text: str) -> str:
    """Mask secrets in a text: keys of known services, credentials in a URL, values with a name such as token."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def mask_command(words: list[str]) -> list[str]:
    """Mask secrets in a command line, including the values of options with a name such as --token."""
    before = ["", *words[:-1]]
    return [
        MASK if _OPTION.fullmatch(last) and not word.startswith("--") else mask(word)
        for last, word in zip(before, words, strict=True)
    ]


def command(path: Path, name: str) -> str:
    """Return how to call a command, for messages: with launch/ of a checkout or with p2p-dist, as when the run was started.

    Messages that are written in a job, in a container or by the run's copy of the code need this.

    Args:
        path: provenance.json of the run, which runs of early versions lack. name: of the command, such as `submit`.
    """
    begun = records.read(path, schemas.PROVENANCE, "remove it")["command"] if path.is_file() else []
    installed = bool(begun) and Path(begun[0]).name == "p2p-dist"
    return f"p2p-dist {name}" if installed else f"python launch/{name}.py"


def gather() -> dict[str, Any]:
    """Return command, commit, uncommitted changes, versions and machine, for provenance.json."""
    import importlib.metadata  # takes 25 ms, which --help does not need

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
    # Readable by all users, because runs are shared.
    return {
        "command": mask_command(sys.argv),
        "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "version": __version__,
        "commit": (git("rev-parse", "HEAD") or "").strip() if ours else None,
        "changes": mask(git("diff", "HEAD") or "") if ours else None,
        "python": platform.python_version(),
        "packages": versions,
        "machine": {"host": socket.gethostname(), "kernel": platform.release(), "processor": platform.machine()},
    }
