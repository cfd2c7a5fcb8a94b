"""Bring a finished dataset from an address into the folder of a run's shards."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from p2p_dist.common import console, files, records, schemas
from p2p_dist.common.files import DamagedError
from p2p_dist.data import dataset as datasets
from p2p_dist.data import manifest, remote
from p2p_dist.run import lock
from p2p_dist.run.rundir import RunDir, check_still_ours, find_steps
from p2p_dist.settings import science
from p2p_dist.settings.address import acts_here, of_file, scheme
from p2p_dist.settings.config import Data

CURE = (
    "restore the earlier dataset there, or start a new run with --run NAME. A run without a checkpoint uses the new dataset "
    "when the launch command is run again"
)

AGAIN = "make it with this version, upload it again, or name another address"


def address_of(run: RunDir, data: Data) -> str | None:
    """Return the address of a run's finished dataset; None if its shards are made of songs here.

    Raises:
        ValueError: it is a command, or contains variables, and another user may have written it.
    """
    if data.shards is not None and acts_here(data.shards) and (why := files.not_only_ours(run.config)):
        raise ValueError(
            f"{run.config} {why}, and its data.shards is a command or contains variables of the environment, so it is not "
            "used: start a run of your own"
        )
    return data.shards


def check_folder(address: str) -> None:
    """Check that a folder has a dataset. Other addresses are not checked: the machine that submits may not reach them.

    Raises:
        FileNotFoundError: there is none; says what an address names. OSError, ValueError: see `fetch_for`.
    """
    if scheme(address) is None:
        _manifest_at(address, ())


def fetch_for(
    run: RunDir,
    data: Data,
    needed: Collection[str] = ("train",),
    on_file: Callable[[int, int, str], None] = lambda *_: None,
) -> None:
    """Fetch the dataset of a run and note which it is. What is there already is kept.

    A run with a checkpoint goes on with the dataset that it began with. Before, it begins with what its address has now: one
    request tells whether that is still the one which was fetched.

    Args:
        needed: splits that it must have. on_file: called after each file with files done, files in all, and its name.

    Raises:
        ValueError: no dataset there, one of another schema or made with other settings, or a file that differs from it.
        OSError: see `remote.fetch`; or not enough room.
    """
    address = address_of(run, data)
    assert address is not None
    if not find_steps(run.checkpoints):
        note(run, fetch_newest(address, run.shards, data, needed, on_file))
        return
    known, content = run.dataset_record()["manifest"], _manifest_in(run.shards)
    if content is None:
        content = _manifest_at(address)
        if known not in (None, manifest.identity(content)):
            raise DamagedError(f"{_changed(address)}, and {run.shards / manifest.NAME} is missing or damaged: {CURE}")
    fetch_files(address, run.shards, content, data, needed, on_file)


def fetch_newest(
    address: str, here: Path, data: Data, needed: Collection[str], on_file: Callable[[int, int, str], None]
) -> Path:
    """Fetch what an address has now, and return its folder, beside `here`.

    A dataset that was uploaded again gets a folder of its own, since runs may have been trained on the earlier one.

    Args:
        here: the folder of what was fetched from there before; without a manifest if there is none.
    """
    before = _manifest_in(here)
    is_there = before is not None and _has_sizes(here, before, data)
    try:
        content = _manifest_at(address, remote.PAUSES[:1] if is_there else remote.PAUSES)
    except OSError as error:
        if before is None or not is_there:
            raise
        console.complain(
            f"warning: {console.describe(error)}; the dataset could not be checked for changes: using the copy in {here}, "
            "which was fetched earlier"
        )
        content = before
    if before is not None and manifest.identity(content) == manifest.identity(before):
        folder, content = here, before
    else:
        folder = here.parent / datasets.name_of_fetched(here.parent, address, manifest.identity(content))
        if before is not None:
            console.say(f"note: {_changed(address)} to {here}, which is kept")
    if folder != here or not is_there:
        fetch_files(address, folder, content, data, needed, on_file)
    else:
        check_usable(content, data, needed, of_file(address, manifest.NAME))
    datasets.note_newest(folder, address)
    return folder


def settle(run: RunDir, address: str) -> None:
    """Record which dataset a run uses, if the job of another run with the same address fetched it."""
    if run.dataset_record()["manifest"] is not None:
        return
    shelf = run.shards.parent
    folder = run.shards if find_steps(run.checkpoints) else shelf / datasets.newest_of_address(shelf, address)
    if _manifest_in(folder) is not None:
        note(run, folder)


def note(run: RunDir, folder: Path) -> None:
    """Note the folder of a run's dataset, and which dataset is there."""
    record, identity = run.dataset_record(), manifest.identity(manifest.read(folder))
    if (record["name"], record["manifest"]) != (folder.name, identity):
        check_still_ours()
        records.write(run.dataset, schemas.DATASET, {**record, "name": folder.name, "manifest": identity})


def fetch_files(
    address: str,
    out: Path,
    content: dict[str, Any],
    data: Data,
    needed: Collection[str] = ("train",),
    on_file: Callable[[int, int, str], None] = lambda *_: None,
) -> None:
    """Fetch the files of a dataset into a folder, its manifest last. What is there already is compared and kept.

    Args:
        content: its manifest. data: the settings that it must have been made with; say which splits are not fetched.

    Raises:
        ValueError, OSError: see `fetch_for`.
    """
    check_usable(content, data, needed, of_file(address, manifest.NAME))
    out.mkdir(parents=True, exist_ok=True)
    files.refuse_link(out / manifest.AUDIO)  # temporary files are removed there
    descriptor = files.open_ours(out / ".lock", os.O_WRONLY)
    try:
        try:
            lock.flock(descriptor, fcntl.LOCK_EX)
            for folder in (out, out / manifest.AUDIO):
                files.remove_garbage(folder)
        except OSError as error:
            if error.errno not in lock.NO_LOCKS:  # without, two would fetch the same files, and each takes its name whole
                raise
        missing = [entry for entry in _wanted(content, data) if not is_whole(out / entry["name"], entry)]
        check_room(missing, out, "free some space, name another folder with $P2P_RUNS, or use --data.stage node or disk")
        for number, entry in enumerate(missing, 1):
            fetch_file(address, entry, out / entry["name"], content)
            on_file(number, len(missing), entry["name"])
        if _manifest_in(out) != content:
            manifest.write(out, content)
    finally:
        os.close(descriptor)


def fetch_file(address: str, entry: dict[str, Any], target: Path, content: dict[str, Any]) -> None:
    """Fetch a file of the dataset with the manifest `content`.

    Raises:
        DamagedError, OSError: see `remote.fetch`; says so if the whole dataset is another one now.
    """
    try:
        remote.fetch(address, entry, target)
    except (DamagedError, OSError) as error:
        if isinstance(error, OSError) and error.errno in files.FULL:
            raise
        try:
            changed = manifest.identity(_manifest_at(address, ())) != manifest.identity(content)
        except (OSError, ValueError):
            changed = False
        if changed:
            raise DamagedError(f"{_changed(address)} ({entry['name']} is gone or another): {CURE}") from error
        if isinstance(error, FileNotFoundError):
            said = f"{error.strerror}, but the manifest there names it: {remote.make_again(address)}"
            raise FileNotFoundError(errno.ENOENT, said, error.filename) from error
        raise


def _changed(address: str) -> str:
    return f"the dataset at {address} has changed since its manifest was fetched"


def _manifest_in(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of what was fetched; None if there is none, or a damaged one."""
    try:
        return manifest.read(folder)
    except (FileNotFoundError, DamagedError):
        return None


def _manifest_at(address: str, pauses: Sequence[float] | None = None) -> dict[str, Any]:
    """Fetch and check a manifest.

    Raises:
        FileNotFoundError: there is none; says what an address names. OSError, ValueError: see `fetch_for`.
    """
    where = of_file(address, manifest.NAME)
    try:
        return manifest.parse(remote.fetch_manifest(address, manifest.NAME, pauses), where, AGAIN)
    except FileNotFoundError as error:
        cure = "--data.shards names the folder of manifest.json, which is uploaded last, and --data songs"
        said = f"no dataset there, or not a whole one: {error.strerror}; {cure}"
        raise FileNotFoundError(errno.ENOENT, said, where) from error


def _wanted(content: dict[str, Any], data: Data) -> list[dict[str, Any]]:
    """The files of a dataset that belong into the folder of a run's shards."""
    parts = content["splits"].items()
    entries = [one for split, part in parts for one in of_part(part, "audio")]
    return entries + [one for split, part in parts if split not in data.elsewhere for one in part["shards"]]


def _has_sizes(folder: Path, content: dict[str, Any], data: Data) -> bool:
    """Whether all of a dataset is there that belongs there, by name and size; each sha256 was compared when it was fetched."""
    found = ((folder / entry["name"], entry["bytes"]) for entry in _wanted(content, data))
    return all(path.is_file() and path.stat().st_size == size for path, size in found)


def check_usable(content: dict[str, Any], data: Data, needed: Collection[str], where: str) -> None:
    """Check that a dataset was made with these settings of data, and has these splits.

    Raises:
        ValueError: it was not, or has not.
    """
    check_settings(content, data, where)
    if lacking := [split for split in needed if split not in content["splits"]]:
        cure = "only train with --evaluate never, or" if lacking == ["test"] else "for this run"
        if "valid" in content["splits"] and lacking == ["test"]:
            cure = "evaluate on its validation songs with --evaluate.split valid, " + cure
        raise ValueError(f"{where} has no {lacking[0]} songs: {cure} name another dataset")


def check_settings(content: dict[str, Any], data: Data, where: str) -> None:
    """Check that a dataset was made with these settings of data.

    Raises:
        ValueError: it was not; says which flags a run with it needs.
    """
    if changed := science.differences(content["settings"], data):
        flags = " ".join(_flag(line) for line in changed if not line.endswith(" -> unknown to this version"))
        cure = f"for this dataset start a run with {flags}" if flags else "use the version that made it"
        raise ValueError(f"{where} was made with other settings than the run has ({', '.join(changed)}): {cure}")


def _flag(difference: str) -> str:
    """The flag that gives a setting the value that it has in a dataset; difference: `mels: 32 -> 64`."""
    name, _, rest = difference.partition(": ")
    value = rest.rpartition(" -> ")[0]
    bare = {"True": f"--data.{name}", "False": f"--data.no-{name}"}
    return bare.get(value, f"--data.{name} {shlex.quote(value)}")


def check_room(missing: Collection[dict[str, Any]], place: Path, cure: str) -> None:
    """Check that files have room in a folder, a tenth of which is left free.

    Raises:
        OSError: they have not; says what is needed and there, and what to do.
    """
    needed, free = sum(entry["bytes"] for entry in missing), shutil.disk_usage(place).free
    if needed > 0.9 * free:
        said = f"{console.size(needed)} of files, {console.size(free)} free, of which a tenth stays free: {cure}"
        raise OSError(errno.ENOSPC, said, str(place))


def of_part(part: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The files of a split of one kind, `shards` or `audio`, and its index, which is small and needed with both.

    Their names are the paths in the dataset.
    """
    return [{**entry, "name": path} for path, entry in manifest.files_of_part(part, kind, "index").items()]


def is_whole(path: Path, entry: dict[str, Any]) -> bool:
    """Whether a file is there as its manifest says."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != entry["bytes"]:
        return False
    return files.sha256_file(path) == entry["sha256"]
