"""Preprocess songs to WebDataset tar shards in parallel. Finished songs are kept, the manifest is written last.

manifest.json                   written last: settings, songs, and of every file its size and sha256
DATASET.md                      what it holds, for people
README.md                       the same for Hugging Face's `datasets`, which finds the splits there
train-3f2a9c1b20de.tar          pairs: KEY.npz (input, target: float16 dB, stored) and KEY.json
index-train-0123456789abcdef.bin    where each pair lies, see columns.py
audio/audio-test-3f2a9c1b20de.tar   held-out songs as sound: KEY.input.flac, KEY.target.flac, KEY.json
parts/                          a record for each finished song, which is not made again, and one for each shard

A worker writes a song to files of its own in parts/. When all songs are there, they are packed into shards of about
`data.shard_size`, each song at a place that follows from its key and size (packing.py), and their own files are removed. A
folder that has the name of its content is never changed once its manifest stands; other songs are another folder, which
takes from it those that both have (reuse.py).
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from p2p_dist.audio import layouts
from p2p_dist.audio.stamps import stamps
from p2p_dist.common import console, files, linux
from p2p_dist.common.workers import each
from p2p_dist.data import earlier_versions, manifest, output_folder, packing, unchanged
from p2p_dist.data.dataset import dataset_name, is_content_name, is_named_after
from p2p_dist.data.manifest import PARTS
from p2p_dist.data.merge import is_merged, merge, remove_others
from p2p_dist.data.song_record import KeyedSong
from p2p_dist.data.worker import Result, make_song
from p2p_dist.settings.config import Data

__all__ = ["Result", "make_song", "merge", "preprocess", "preprocess_all"]


_REQUESTS = (signal.SIGINT, signal.SIGUSR2)

OnSong = Callable[[int, int, Result], None]


def preprocess(root: Path, out: Path, data: Data, workers: int, on_song: OnSong = lambda *_: None) -> list[Result]:
    """Preprocess the songs under `root` to shards in `out`, then write the manifest. Finished songs are kept.

    Args and Raises: see `preprocess_all`, which does the same for several tasks at once.
    """
    return preprocess_all(root, [(out, data)], workers, on_song)


def preprocess_all(
    root: Path,
    wanted: Sequence[tuple[Path, Data]],
    workers: int,
    on_song: OnSong = lambda *_: None,
    part: tuple[int, int] | None = None,
    member: int | None = None,
) -> list[Result]:
    """Preprocess the songs under `root` for several folders, each with its own settings, then write their manifests.

    Args:
        workers: number of processes; each takes one song at a time, decodes it once and writes it into all folders.
        on_song: called after each song with the number of songs done, the number of all songs, and the result.
        part: (i, n) preprocesses every n-th song, from the i-th, and writes no manifest; several parts may run at once. The
            same call without `part` finishes the remaining songs and merges.
        member: number of this call among several that run at once and share the songs: each takes songs that no other one
            works on; the last one finishes the remaining songs and merges. Only for one folder.

    Returns:
        The songs left out, each with its reason: a damaged song does not stop the others.

    Raises:
        ValueError: there is no song, no song can be read, or a folder contains other files or has other settings.
        OSError: for instance the disk is full; incomplete files are removed.
    """
    assert member is None or len(wanted) == 1, "of two folders, each member could be the last one in one"
    (split_by_title,) = {data.split_by_title for _, data in wanted}
    songs = unchanged.look(root, split_by_title)  # before any is read
    if part is None and songs is not None and all(unchanged.is_done(*one, songs) for one in wanted):
        _name_overlooked(root, split_by_title)
        return []
    work = keyed_songs(root, split_by_title)
    for out, data in wanted:
        output_folder.refuse(root, out, data)
    if part is None or part[0] == 0:
        _name_overlooked(root, split_by_title)
        if others := layouts.further_stems(item.source for item in work):
            named = ", ".join(str(path.relative_to(root)) for path in others[:5]) + (" ..." if len(others) > 5 else "")
            console.complain(
                f"warning: not heard in {root}: {console.one_line(named)}: add instruments besides drums, bass and vocals to "
                "other.wav"
            )
    claims: list[int] = []
    with ExitStack() as locks:
        for out, data in sorted(wanted, key=lambda one: one[0]):  # always in the same order, to avoid a deadlock
            out.mkdir(parents=True, exist_ok=True)
            for inside in (PARTS, manifest.AUDIO):
                files.refuse_link(out / inside)  # temporary files are removed there
            shared = part is not None or member is not None
            claims.append(
                locks.enter_context(output_folder.claim(root, out, data, shared=shared, needs_locks=member is not None))
            )
        wanted = [one for one in wanted if not earlier_versions.stays(root, *one, work)]
        stand = {out for out, data in wanted if _stands(root, out, data)}
        if all(out in stand and _is_whole(out) for out, _ in wanted):
            if part is None and member is None:  # only then the folders are locked against all others
                _note_unchanged(root, wanted, songs)
            return []
        if member is not None:
            left_out = _make(_not_finished(work, wanted, stand), len(work), workers, on_song, member)
            if not output_folder.is_last(claims[0]):
                return left_out  # others are still running: the last one merges
        if part is None:
            _remove_garbage(wanted)
        mine = work if part is None else work[part[0] :: part[1]]
        todo = _not_finished(mine, wanted, stand)
        if part is None and not todo and all(is_merged(out, work) and _is_whole(out) for out, _ in wanted):
            for out, _ in wanted:
                remove_others(out, work)
            _note_unchanged(root, wanted, songs)
            return []
        try:
            left_out = _make(todo, len(mine), workers, on_song)
            if part is None:
                for out, data in wanted:
                    # Without the folder, so that the manifest does not depend on it and does not disclose it.
                    reasons = [(r.name, why.replace(f"{root}/", "")) for r in left_out if (why := r.errors.get(out))]
                    merge(out, data, work, reasons, stands=out in stand)
        finally:
            if part is None:  # a worker that was killed, for instance out of memory, leaves temporary files
                _remove_garbage(wanted)
        if part is None and not left_out:
            _note_unchanged(root, wanted, songs)
    return left_out


def _name_overlooked(root: Path, split_by_title: bool) -> None:
    if others := layouts.overlooked(root, split_by_title):
        named = ", ".join(str(path.relative_to(root)) for path in others[:5]) + (" ..." if len(others) > 5 else "")
        console.complain(f"ignored in {root}: songs are expected as {layouts.LAYOUT}: {console.one_line(named)}")


def _note_unchanged(root: Path, wanted: Sequence[tuple[Path, Data]], songs: unchanged.Songs | None) -> None:
    for out, data in wanted:
        unchanged.note(out, data, songs, named=is_content_name(out.name) and out.name == dataset_name(root, data))


def _remove_garbage(wanted: Sequence[tuple[Path, Data]]) -> None:
    for out, _ in wanted:
        for folder in (out, out / PARTS, out / manifest.AUDIO):
            files.remove_garbage(folder)


Unfinished = list[tuple[KeyedSong, list[tuple[Path, Data]]]]
"""Songs that are not finished, each with the folders that lack it."""


def _not_finished(work: list[KeyedSong], wanted: Sequence[tuple[Path, Data]], stand: set[Path]) -> Unfinished:
    """List the songs that are not finished in all folders. stand: the folders of which `_stands` holds."""
    packed = {out: packing.packed(out) for out, _ in wanted}
    stamps([file for item in work for file in item.source.files()])  # at once, which is faster than song by song; it remembers
    found = (
        (item, [one for one in wanted if item.finished(*one, packed[one[0]], stands=one[0] in stand) is None]) for item in work
    )
    return [(item, lacking) for item, lacking in found if lacking]


def _make(todo: Unfinished, total: int, workers: int, on_song: OnSong, member: int | None = None) -> list[Result]:
    """Preprocess songs, in worker processes if there are several. Return those left out, in the order of the songs.

    Args:
        member: see `preprocess_all`; songs that another member works on, or has finished meanwhile, are skipped.
    """
    results: dict[int, Result] = {}
    seconds, size = 0.0, 0
    begun = time.monotonic()
    make: Callable[[KeyedSong, Sequence[tuple[Path, Data]]], Result | None] = (
        make_song if member is None else _make_unless_taken
    )

    def take(number: int, result: Result | None) -> None:
        nonlocal seconds, size
        if result is None:
            return
        results[number] = result
        seconds, size = seconds + result.seconds, size + result.bytes
        wall = max(time.monotonic() - begun, 1e-9)
        speed = f"{seconds / wall:.0f}x real time, " if seconds else ""  # existing pairs have no duration
        note = f"{speed}{size / wall / 1e6:.1f} MB/s, {result.name}"
        on_song(total - len(todo) + len(results), total, replace(result, note=note))

    # The longest first, so that all workers end at about the same time.
    order = sorted(range(len(todo)), key=lambda number: -todo[number][0].source.size())
    if member is not None and todo:  # each member starts with another song, to avoid contention
        order = [*order[member % len(todo) :], *order[: member % len(todo)]]
    if min(workers, len(todo)) <= 1:
        linux.keep_memory()
    jobs = [todo[number] for number in order]
    each(make, jobs, workers, lambda n, result: take(order[n], result), requests=_REQUESTS, begin=linux.keep_memory)
    return [results[number] for number in sorted(results) if results[number].error is not None]


def _make_unless_taken(item: KeyedSong, wanted: Sequence[tuple[Path, Data]]) -> Result | None:
    """Make a song unless another process has claimed or finished it; None if one has.

    If a process is killed, the kernel releases its lock and another one takes the song. Locks work across nodes here:
    `output_folder.claim` refuses a file system where they do not.
    """
    with ExitStack() as locks:
        for out, _ in wanted:
            # `_remove_garbage` removes it, by its name, when no process works in the folder.
            path = out / PARTS / f"{files.TEMPORARY}song-{item.record(out).stem}"
            descriptor = files.open_ours(path, os.O_RDWR)
            locks.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
        # While members share the folder, none packs songs: one that another member has made has files of its own.
        lacking = [one for one in wanted if item.finished(*one, {}) is None]
        return make_song(item, lacking) if lacking else None


def keyed_songs(root: Path, split_by_title: bool) -> list[KeyedSong]:
    """Return the songs under `root`, each with its key.

    Raises:
        ValueError: two songs have one name.
    """
    work: dict[str, KeyedSong] = {}
    for source in layouts.find_songs(root, split_by_title):
        one = KeyedSong(source)
        if (other := work.setdefault(one.key, one)) is not one:
            named = " and ".join(str(path.relative_to(root)) for path in (other.source.path, source.path))
            raise ValueError(f"{root} has two songs called {console.one_line(source.name)} ({named}): rename one")
    return list(work.values())


def _stands(root: Path, out: Path, data: Data) -> bool:
    """Whether a folder has the name of these songs and a manifest. It must not change then, because others may read it."""
    try:
        manifest.read(out)
    except (FileNotFoundError, ValueError):
        return False
    return is_named_after(out.name, root, data)


def _is_whole(out: Path) -> bool:
    """Whether all that the manifest names is there, and no song was left out, which may be readable now."""
    content = manifest.read(out)
    sizes = {path: entry["bytes"] for path, entry in manifest.files_of(out, content).items()}
    return not content["left_out"] and all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())
