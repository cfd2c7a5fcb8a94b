"""Bring a finished dataset from an address into the folder of a run's shards, and send one there."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from p2p_dist.common import files
from p2p_dist.data import manifest, remote
from p2p_dist.run import lock
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import science
from p2p_dist.settings.address import acts_here, of_file
from p2p_dist.settings.config import Data

CARDS = ("DATASET.md", "README.md")

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


def fetch_dataset(
    address: str,
    out: Path,
    data: Data,
    without: Collection[str] = (),
    needed: Collection[str] = ("train",),
    on_file: Callable[[int, int, str], None] = lambda *_: None,
) -> None:
    """Fetch a finished dataset into a folder, its manifest last. What is there already is compared and kept.

    Args:
        data: the settings that it must have been made with. without: splits whose shards are not fetched.
        needed: splits that it must have.
        on_file: called after each file with files done, files in all, and its name.

    Raises:
        ValueError: no dataset there, one of another schema or made with other settings, or a file that differs from it.
        OSError: see `remote.fetch`; or not enough room.
    """
    where = of_file(address, manifest.NAME)
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
        try:
            content = manifest.read(out)  # what it says is not changed once it is there: trainings began with it
        except (FileNotFoundError, files.DamagedError):
            try:
                content = manifest.parse(remote.fetch_manifest(address, manifest.NAME), where, AGAIN)
            except FileNotFoundError as error:
                cure = "--data.shards names the folder of manifest.json, which is uploaded last"
                raise ValueError(f"no dataset there, or not a whole one: {where}: {error.strerror}; {cure}") from error
        check_settings(content, data, where)
        if lacking := [split for split in needed if split not in content["splits"]]:
            cure = "only train with --evaluate never, or" if lacking == ["test"] else "for this run"
            if "valid" in content["splits"] and lacking == ["test"]:
                cure = "evaluate on its validation songs with --evaluate.split valid, " + cure
            raise ValueError(f"{where} has no {lacking[0]} songs: {cure} name another dataset")
        entries = [one for split, part in content["splits"].items() for one in of_part(part, "audio")]
        entries += [one for split, part in content["splits"].items() if split not in without for one in part["shards"]]
        missing = [entry for entry in entries if not is_whole(out / entry["name"], entry)]
        check_room(missing, out, "free some, name another folder of runs with $P2P_RUNS, or use --data.stage node or disk")
        for number, entry in enumerate(missing, 1):
            remote.fetch(address, entry, out / entry["name"])
            on_file(number, len(missing), entry["name"])
        manifest.write(out, content)
    finally:
        os.close(descriptor)


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
    name, value = name.replace("_", "-"), rest.rpartition(" -> ")[0]
    bare = {"True": f"--data.{name}", "False": f"--data.no-{name}"}
    return bare.get(value, f"--data.{name} {shlex.quote(value)}")


def upload(folder: Path, address: str, on_file: Callable[[int, int, str], None] = lambda *_: None) -> None:
    """Send a finished dataset to an address, its manifest last: so what has a manifest there is whole.

    Args:
        on_file: called after each file with files done, files in all, and its name.

    Raises:
        FileNotFoundError, ValueError: the dataset is not finished, or damaged: checked before its manifest is sent.
        OSError: a file could not be sent.
    """
    content = manifest.read(folder)
    parts = content["splits"].values()
    entries = list({one["name"]: one for part in parts for kind in ("shards", "audio") for one in of_part(part, kind)}.values())
    cards = [name for name in CARDS if (folder / name).is_file()]
    names = [*(entry["name"] for entry in entries), *cards, manifest.NAME]
    for entry in entries:
        if not is_whole(folder / entry["name"], entry):
            raise ValueError(f"{folder / entry['name']} is missing or differs from its manifest: preprocess again")
    for number, name in enumerate(names, 1):
        path = folder / name
        with path.open("rb") as source:
            remote.send(address, name, source, path.stat().st_size)
        on_file(number, len(names), name)


def check_room(missing: Collection[dict[str, Any]], place: Path, cure: str) -> None:
    """Check that files have room in a folder, a tenth of which is left free.

    Raises:
        OSError: they have not; says what is needed and there, and what to do.
    """
    needed, free = sum(entry["bytes"] for entry in missing), shutil.disk_usage(place).free
    if needed > 0.9 * free:
        said = f"{needed / 1e9:.2f} GB of files, {free / 1e9:.2f} GB free: {cure}"
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
