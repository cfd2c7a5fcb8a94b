"""Find the file of shell lines that a site's file names for its jobs, and check that nobody else can change it."""

from __future__ import annotations

import os
from pathlib import Path

from p2p_dist.common import files
from p2p_dist.run import snapshot

HPC = snapshot.batch_scripts()


def find(name: str, site: Path) -> str:
    """Return `name` for a file of this program's own, as `env/lumi.sh`; for another the absolute path.

    Args:
        site: the site's file, which the name is relative to.

    Raises:
        ValueError: there is no such file, or another user could change it.
    """
    if not Path(name).is_absolute() and ".." not in Path(name).parts and (HPC / name).is_file():
        return name
    found = site.absolute().parent / name  # independent of the current folder
    if not found.is_file():
        raise ValueError(f"{site}: environment {name}: there is no such file in {found.parent} or in {HPC}")
    if why := _not_trusted(found):
        raise ValueError(f"{site}: environment {why}, so another user could change what jobs run: copy it to a folder of yours")
    return str(found)


def _not_trusted(file: Path) -> str | None:
    """Explain how somebody else than this user and the system's administrators could change a file of code; None if nobody."""
    real = file.resolve()
    if file.is_symlink() and file.lstat().st_uid not in (os.geteuid(), 0):
        return f"{file} is a link of another user's"
    for path in (real, real.parent, file.parent.resolve()):
        status = path.stat()
        of_the_system = status.st_uid == 0 and not status.st_mode & 0o022
        if not of_the_system and (why := files.not_only_ours(path)):
            return f"{path} {why}"
    return None
