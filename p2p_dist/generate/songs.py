"""Generate stems for many songs, one after the other, in one process or shared between several."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from p2p_dist.audio import decode, sound_file
from p2p_dist.audio.beats import told_tempo
from p2p_dist.common import console, files, linux
from p2p_dist.generate import request, song
from p2p_dist.generate.model import Model
from p2p_dist.generate.request import Options, Place, Song
from p2p_dist.run import lock

_REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that ask for a stop."""


@dataclass(frozen=True)
class Made:
    """The result for a song. error: why it was skipped. record: of new files; None if they existed or it was skipped."""

    song: Song
    record: dict[str, Any] | None = None
    error: str | None = None


def todo(songs: list[Song], model: Model, options: Options, *, overwrite: bool) -> tuple[list[Song], list[Made]]:
    """Return the songs that are not done, and those that are refused because files of another request exist."""
    left, refused = [], []
    for one in songs:
        try:
            if overwrite or not _is_made(one, model, options):
                left.append(one)
        except ValueError as error:
            refused.append(Made(one, error=str(error)))
    return left, refused


def _is_made(one: Song, model: Model, options: Options) -> bool:
    takes = request.planned(one.place, model.task, options)
    wanted = request.requested(one.source, model.sha256, options, model.drummer_sha256)
    return request.is_made(one.place, wanted, takes)


def seconds(one: Song, options: Options) -> float:
    """Estimate the seconds of audio to generate, from the file's header; 0 if unknown."""
    with contextlib.suppress(ValueError, OSError):
        told = decode.look(one.source).told
        end = told if options.end is None else min(options.end, told)
        return max(end - options.begin, 0) * options.takes
    return 0.0


def make(
    songs: list[Song],
    model: Model,
    options: Options,
    *,
    overwrite: bool,
    page: Callable[[Song, dict[str, Any]], object],
    on_song: Callable[[Made], None],
    on_progress: Callable[[Song, float], None] = lambda *_: None,
    is_over: Callable[[Song], bool] = lambda _: False,
    shared: int | None = None,
) -> list[Made]:
    """Generate the stems of songs, one after the other. A song that fails does not stop the others.

    Args:
        page: see `song.make`. on_song: called after each song. on_progress: called with the seconds of audio generated since
            the last call.
        is_over: whether a song needs no work any more. It is called while this process holds the lock of the song.
        shared: number of this process if several share the songs. It skips songs that another process has locked.

    Returns:
        the songs that were skipped because of an error.

    Raises:
        OSError: a file can't be written, for instance because the disk is full. No partial files are left behind.
    """
    generator = model.generator(device())
    left_out = []
    first = 0 if shared is None or not songs else shared % len(songs)  # start at different songs
    with _requests_to_stop() as stop_if_asked:

        def told(one: Song, more: float) -> None:
            stop_if_asked()
            on_progress(one, more)

        for one in [*songs[first:], *songs[:first]]:
            stop_if_asked()
            with _alone(one.place, request.stem_name(model.task)) as ours:
                if not ours:
                    if shared is None:
                        console.say(f"{one.place.folder} is being made by another process: skipped")
                    continue
                if is_over(one):
                    continue
                try:
                    # Another process may have made it meanwhile.
                    record = (
                        None
                        if not overwrite and _is_made(one, model, options)
                        else song.make(one, model, generator, options, page, partial(told, one))
                    )
                    made = Made(one, record)
                except ValueError as error:
                    made = Made(one, error=str(error))
                    left_out.append(made)
                except OSError as error:
                    files.add_name(error, one.place.folder)
                    raise
                on_song(made)
    return left_out


@contextmanager
def _requests_to_stop() -> Iterator[Callable[[], None]]:
    """Yield a function that raises KeyboardInterrupt if this process was asked to stop.

    The signal handlers raise it, too, but an exception that is raised in a callback of a C library, such as libsndfile, is
    printed and lost.
    """
    asked = False

    def noting(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
        def note(number: int, frame: FrameType | None) -> None:
            nonlocal asked
            asked = True
            handler(number, frame)

        return note

    def stop_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt

    before, noted = {}, {}
    for number in _REQUESTS:
        if callable(handler := signal.getsignal(number)):
            before[number], noted[number] = handler, noting(handler)
            signal.signal(number, noted[number])
    try:
        yield stop_if_asked
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is noted[number]:  # otherwise the handler was replaced meanwhile
                signal.signal(number, handler)


def lines(made: Made) -> list[str]:
    """Return the message for a finished song: its files, page, tempo and notes."""
    assert made.record is not None
    content, names = made.record, [one["name"] for take in made.record["takes"] for one in take["files"].values()]
    folder = made.song.place.folder
    found = [f"{folder}: {', '.join(names)}", f"  listening page: {folder / request.PAGE}"]
    if content["tempo"] is not None:
        found.append(f"  tempo: {told_tempo(content['tempo'])}")
    return [console.one_line(line) for line in (*found, *(f"  note: {note}" for note in content["notes"]))]


def device() -> torch.device:
    """Return the GPU of this process, a Mac's as well, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


@contextmanager
def _alone(place: Place, stem: str) -> Iterator[bool]:
    """Lock a song; yield whether this process has the lock. Temporary files of a killed process are removed.

    In the same folder another process may make another song, of whose name this one's is a part. stem: name of the stem.

    The kernel releases the lock of a killed process. On a file system without locks several processes may make the same
    song; each writes complete files, and none removes the temporary files of another.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    path = place.folder / f"{files.TEMPORARY}{place.name}"
    descriptor: int | None = None
    ours = False
    try:
        descriptor = files.open_ours(path, os.O_RDWR)
        locked = _lock(descriptor, path)
        ours = locked is not False
        if not ours:
            yield False
            return
        kinds = "|".join([*sound_file.FORMATS, "mid"])
        written = rf"(-({re.escape(stem)}|mix)(-[0-9]+)?\.({kinds})|-[0-9]+\.raw|\.json)"
        temporary = re.compile(rf"{re.escape(files.TEMPORARY)}.*-[0-9a-f]{{16}}-{re.escape(place.name)}{written}", re.DOTALL)
        for left in place.folder.glob(f"{files.TEMPORARY}*") if locked else ():
            if temporary.fullmatch(left.name):
                left.unlink(missing_ok=True)
        yield True
    finally:  # also where a request to stop came before the file was open, or locked
        with linux.blocked(_REQUESTS):
            descriptor = files.open_ours(path, os.O_RDWR) if descriptor is None else descriptor
            if ours or _lock(descriptor, path) is not False:
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # empty if the song failed
                    place.folder.rmdir()
            os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool | None:
    """Lock an open file, unless another process has; return whether this one has the lock, None where there are no locks.

    A file that another process has removed since it was opened locks nothing: a third one may have the file that is there now.
    """
    locked: bool | None = True
    try:
        try:
            lock.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in lock.NO_LOCKS:
                raise
            locked = None
        return locked if os.path.samestat(os.fstat(descriptor), path.lstat()) else False
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):  # ESTALE: NFS, if another node has removed it
            return False
        raise OSError(error.errno, error.strerror, str(path)) from error
