"""Copy this program into a run, and verify the copy before any of it is executed.

Other users of a shared folder of runs may have changed files in it. Code is executed only from a copy that the user owns, that
nobody else can write to, and that has exactly the files of its record. Slurm jobs check the same in hpc/check_code.sh.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path

from p2p_dist.common import files

CHECKOUT = Path(__file__).resolve().parents[2]
"""The parent folder of the package: a checkout, a run's copy of the code, or site-packages."""

SUMS = "SHA256SUMS"
"""Name of the record in a copy: the output of sha256sum for its files, sorted by name."""


def batch_scripts(root: Path = CHECKOUT) -> Path:
    """Return the folder hpc/: beside the package in a checkout or a run's copy, inside it in a wheel."""
    inside = root / "p2p_dist" / "hpc"
    return inside if inside.is_dir() else root / "hpc"


def where_is(name: str, root: Path = CHECKOUT) -> str:
    """Return how messages name a file outside the package, such as `hpc/sites/slurm.yaml` or `containers/README.md`.

    A wheel contains hpc/ inside the package; a run's copy of the code contains only hpc/. Other files are in the source code.
    """
    inside = root / "p2p_dist" / name
    if inside.is_file():
        return str(inside)
    return name if (root / name).is_file() else f"{name} in the source code of p2p_dist"


def _code(root: Path) -> dict[str, Path]:
    """Map relative path in a copy -> file, for all files of this program that a run needs."""
    package, hpc = root / "p2p_dist", batch_scripts(root)
    found: dict[str, Path] = {}
    for top, where in ((package, Path("p2p_dist")), (hpc, Path("hpc"))):
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if name != "__pycache__" and Path(folder, name) != hpc]
            inside = where / Path(folder).relative_to(top)
            found |= {(inside / name).as_posix(): Path(folder, name) for name in names}
    return {
        name: path
        for name, path in found.items()
        if path.is_file()
        and path.suffix != ".pyc"
        and not path.name.startswith(files.TEMPORARY)
        and not {"\\", "\n"} & set(name)  # sha256sum would escape such a name
    }


def copy_code(target: Path) -> None:
    """Copy this program to `target`, which must not exist, so that a queued or resumed run uses the same code.

    Other users can read the copy but not write to it, whatever the umask is.
    """
    with files.new_folder(target) as temporary:
        for name, path in _code(CHECKOUT).items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / name)
            files.set_mode(temporary / name, 0o755 if os.access(path, os.X_OK) else 0o644)
        (temporary / SUMS).write_text(_sums(_listed(temporary)), encoding="utf-8")
        files.set_mode(temporary / SUMS, 0o644)
        for path in (temporary, *temporary.rglob("*")):
            if path.is_dir():
                files.set_mode(path, 0o755)


def differs(copy: Path) -> bool:
    """Whether this program differs from a run's copy of the code."""
    here, there = _code(CHECKOUT), _code(copy)
    return here.keys() != there.keys() or any(here[name].read_bytes() != there[name].read_bytes() for name in here)


def has_record(code: Path) -> bool:
    """Whether a copy has a record of its files; copies made by earlier versions have none."""
    return (code / SUMS).is_file()


def check(code: Path) -> None:
    """Check that a copy of the code belongs to the user and has exactly the files of its record.

    If it has no record, only check that nobody else could have changed it. Call this right before code is run from there.

    Raises:
        ValueError: it has not. The message names the first wrong file, and what to do.
    """
    cure = f"find out who changed it; to continue with the current code, remove {code} and run the launch command again"
    for path in _tree(code):
        if why := files.not_only_ours(path):
            raise ValueError(
                f"{path} {why}, so another user may have changed it: nothing was run. If nobody did, "
                f"chmod -R go-w {code}; otherwise remove {code}; then run the launch command again"
            )
        if not stat.S_ISDIR(mode := path.lstat().st_mode) and not stat.S_ISREG(mode):
            raise ValueError(f"{path} is neither a file nor a folder: nothing was run; {cure}")
    if not has_record(code):
        return
    recorded = dict(line.split("  ./", 1)[::-1] for line in (code / SUMS).read_text("utf-8").splitlines() if "  ./" in line)
    found = _listed(code)
    for name in sorted(recorded.keys() | found.keys()):
        if recorded.get(name) != found.get(name):
            what = "is no file" if name not in recorded else "is missing" if name not in found else "is not the file"
            raise ValueError(f"{code / name} {what} of the copy of the code that the run started with: nothing was run; {cure}")


def record(code: Path) -> None:
    """Write the record of a copy that an earlier version made, after `check` found that no other user could change it.

    Write permission of a group whose only member is the user is removed.
    """
    _remove_caches(code)
    close(code)
    files.write_text(code / SUMS, _sums(_listed(code)))


def close(code: Path) -> None:
    """Remove the write permission of others from a copy that `check` has accepted."""
    for path in _tree(code):
        if (mode := stat.S_IMODE(path.lstat().st_mode)) & 0o022:
            path.chmod(mode & ~0o022)


def environment(code: Path) -> dict[str, str]:
    """Return the environment for a process that imports a run's own copy of the code, after checking the copy.

    Raises:
        ValueError: see `check`; or it has no record of its files.
    """
    check(code)
    if not has_record(code):
        raise ValueError(f"{code} has no {SUMS}: run the launch command again, which records the files that belong there")
    _remove_caches(code)
    # No .pyc files: they would be extra files in the copy, and would be run instead of the checked ones.
    return {"PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}


def _remove_caches(code: Path) -> None:
    for path in _tree(code):
        if path.name == "__pycache__":
            files.remove_tree(path)


def _tree(code: Path) -> list[Path]:
    """List the folder and everything in it, without following links. The content of __pycache__ is skipped."""
    found = [code]
    for folder, folders, names in os.walk(code):
        found += [Path(folder, name) for name in folders + names]
        if "__pycache__" in folders:
            folders.remove("__pycache__")
    return found


def _listed(code: Path) -> dict[str, str]:
    """Map relative path -> sha256 of the files in a copy, without its record and __pycache__."""
    listed = {}
    for path in _tree(code):
        if stat.S_ISREG(path.lstat().st_mode) and path != code / SUMS:
            listed[path.relative_to(code).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return listed


def _sums(listed: dict[str, str]) -> str:
    return "".join(f"{listed[name]}  ./{name}\n" for name in sorted(listed, key=lambda name: os.fsencode(f"./{name}")))
