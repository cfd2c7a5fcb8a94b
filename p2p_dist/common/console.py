"""Messages, progress, error reports and exit codes."""

from __future__ import annotations

import difflib
import errno
import io
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TextIO

from p2p_dist.common import files, records, schemas

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

DONE, FAILED, USAGE, CRASHED, STOPPED, INTERRUPTED = 0, 1, 2, 70, 75, 130
"""Exit codes: done; failed, do not requeue; wrong usage; an external error, such as a lost peer or a hang, which may be
retried; stopped cleanly, can be resumed; second Ctrl-C."""

_NARROWEST, _USUAL = 30, 80  # columns of a terminal

INSTALL = (
    "in a checkout, 'make install' creates an environment with all of them; elsewhere: python -m pip install 'p2p_dist[run]'"
)
"""Advice for a missing package."""


def say(text: str) -> None:
    """Print one message and flush it, also into a pipe or a batch log."""
    _print(_visible(text), sys.stdout)


def complain(text: str) -> None:
    """Print one error or warning to standard error."""
    _print(_visible(text), sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    """Print a line. A full disk of the log ends no training; see `refuse_lost` for output that is a result."""
    global _lost
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        if error.errno not in files.FULL:
            raise
        _lost = error


_lost: OSError | None = None  # of the last line that could not be printed


def refuse_lost() -> None:
    """Check that all lines so far could be printed.

    Raises:
        OSError: the disk of the file that the output goes to is full.
    """
    if _lost is not None:
        raise OSError(_lost.errno, _lost.strerror, "the output of this command")


def one_line(text: str) -> str:
    """Escape the control characters of a title, which file names may contain."""
    return _visible(text).replace("\n", "\\n").replace("\t", "\\t")


def cell(text: str) -> Text:
    """Like `one_line`, for a table of rich, which would interpret [red] as markup."""
    from rich.text import Text

    return Text(_visible(text).replace("\t", "\\t"))


def wide() -> Console:
    """Return a console of rich for tables. A width too small for a table ($COLUMNS is 0 in some containers) is ignored."""
    from rich.console import Console

    found = Console()
    return found if found.width >= _NARROWEST else Console(width=_USUAL)


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return `; did you mean NAME?` for the known name that is most like a word; an empty text if none is."""
    close = difflib.get_close_matches(word, known, 1, cutoff)
    return f"; did you mean {close[0]}?" if close else ""


def control_character(text: str) -> str | None:
    """The first control character or line separator in a text, escaped; None if there is none."""
    found = re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", text)
    return found[0].encode("unicode_escape").decode() if found else None


def _visible(text: str) -> str:
    """Escape control characters, characters that change the direction of writing, which can disguise a text, and bytes of a
    file name that are not UTF-8.
    """
    unseen = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
    return re.sub(unseen, lambda found: found[0].encode("unicode_escape").decode(), text)


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its code. A user's mistake is reported as a message, not as a traceback.

    ValueError means wrong input or settings (exit 2), OSError an error of the operating system (exit 1).
    """
    show_any_text()
    try:
        code = main()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of the pipe has closed it before the end of the output
        os._exit(STOPPED)
    except ValueError as error:
        complain(f"error: {error}")
        code = USAGE
    except OSError as error:
        complain(f"error: {describe(error)}")
        code = FAILED
    except RuntimeError as error:  # of Path.resolve before Python 3.13
        if not str(error).startswith("Symlink loop"):
            raise
        complain(f"error: {error}: remove this link, or name another path")
        code = USAGE
    sys.exit(code)


def open_standard_streams() -> None:
    """Open /dev/null in place of standard input, output and error that the caller has closed (`>&-`).

    Otherwise Python has no such stream, and the next file that is opened gets its number: messages of C libraries would be
    written into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            # It gets this number, the lowest that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 for the whole process


STOPS = (signal.SIGTERM, signal.SIGHUP)
"""Requests to stop besides Ctrl-C: of kill(1), timeout(1) and systemd, and of a terminal that was closed."""


def stop_as_ctrl_c() -> None:
    """Treat the first of `STOPS` as a Ctrl-C, unless it is ignored, as under nohup(1)."""
    for number in STOPS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _as_ctrl_c)


def _as_ctrl_c(number: int, _: FrameType | None) -> None:
    """Raise KeyboardInterrupt, and ignore all further stop signals."""
    for one in STOPS:
        signal.signal(one, signal.SIG_IGN)
    if number == signal.SIGHUP:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            if os.isatty(stream):  # it is gone, and writing to it is an error
                os.dup2(nowhere, stream)
    raise KeyboardInterrupt


def show_any_text() -> None:
    """Make printing safe in any locale: characters that it cannot encode are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def has_bar(stream: TextIO) -> bool:
    """Whether progress is shown as a bar: only on a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def describe(error: OSError) -> str:
    """Describe an error of the operating system in one line: what failed, where, and for common errors what to do."""
    text = str(error)
    if error.errno is not None:
        # Of a copy the second name is what is written; the first may be a file of this program, which is not to blame.
        names = [error.filename, error.filename2] if error.filename2 else [error.filename] if error.filename else []
        text = ": ".join([f"{error.strerror}", *([" -> ".join(map(str, names))] if names else [])])
        if not str(error.strerror).startswith(os.strerror(error.errno)):  # ours, which says what to do
            return text
    elsewhere = "or name another folder with $P2P_RUNS (runs and their shards) or --out"
    if error.errno == errno.ENOSPC:
        text += f" (the disk is full: free some space and run the same command again, {elsewhere})"
    elif error.errno == errno.EDQUOT:
        text += f" (the quota is used up: free some space or files and run the same command again, {elsewhere})"
    elif error.errno == errno.EFBIG:
        text += f" (larger than a file may be here, see ulimit -f: raise this limit, {elsewhere})"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        text += f" (permission denied: ask for access, {elsewhere})"
    return text


def size(number: int) -> str:
    """Return a number of bytes in words: 2.9 GB, 60 MB, 413 kB."""
    if number >= 10**8:
        return f"{number / 1e9:.1f} GB"
    return f"{number / 1e6:.0f} MB" if number >= 10**6 else f"{number / 1e3:.0f} kB"


def command(name: str) -> str:
    """Return how to call another command, in the style of this one: `python launch/submit.py` or `p2p-dist submit`."""
    if Path(sys.argv[0]).name == "p2p-dist":
        return f"p2p-dist {name}".rstrip()
    return f"python launch/{name}.py"


def again(name: str, arguments: list[str]) -> str:
    """Return the command line that resumes the work, to be pasted into the same shell.

    Args:
        name: of the command, such as `submit`. It is called in the same way as the current one: launch/ or p2p-dist.
    """
    typed, here = Path(sys.argv[0]), Path.cwd()
    if typed.name == "p2p-dist":
        words = ["p2p-dist" if _is_on_path(typed) else _from(here, typed), name]
    else:
        door = typed.with_name(f"{name}.py").as_posix() if typed.parent.name == "launch" else f"launch/{name}.py"
        words = [_from(here, Path(sys.executable)), door]
    places = [f"{place}={shlex.quote(os.environ[place])}" for place in ("P2P_RUNS", "MUSDB_PATH") if os.environ.get(place)]
    return " ".join([*places, shlex.join([*words, *arguments])])


def _is_on_path(program: Path) -> bool:
    found = shutil.which(program.name)
    return found is not None and program.exists() and program.samefile(found)


def _from(here: Path, program: Path) -> str:
    return os.path.relpath(program) if program.absolute().is_relative_to(here) else str(program)


def duration(seconds: float) -> str:
    """Format seconds: `75` -> `1:15`, `3725` -> `1:02:05`."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Shows how far a long job is: a rich bar on a terminal, plain lines anywhere else, and optionally a status file.

    A plain line comes with the first and last update and at most every `every` seconds between; it names step, total,
    rate and time left. The file (JSON: what, done, total, rate, seconds_left, note) is replaced at most every second,
    so that another process can follow the progress.

    start: the number done before, which is not counted in the rate. None: one less than the number of the first update.
        total: may be changed before an update.
    """

    def __init__(
        self,
        what: str,
        total: int,
        *,
        start: int | None = 0,
        every: float = 10.0,
        status: Path | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self.what, self.total, self.start, self.every, self.status = what, total, start, every, status
        self.stream = stream if stream is not None else sys.stdout
        self.begun = time.monotonic()
        self.shown = self.stated = float("-inf")
        self.refused = False
        self.bar = _bar(self.stream) if has_bar(self.stream) else None
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task(what, total=total or None, completed=start or 0, note="")

    def update(self, done: int, note: str = "") -> None:
        """Report that `done` of the total are done. `note`: current values to show."""
        now = time.monotonic()
        note = one_line(note)
        if self.start is None:
            self.start = done - 1
        rate = (done - self.start) / max(now - self.begun, 1e-9)
        left = (self.total - done) / rate if rate > 0 else None
        last = done >= self.total
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=self.total, note=note)
        elif last or now - self.shown >= self.every:
            self.shown = now
            ahead = f", {duration(left)} left" if left is not None and not last else ""
            notes = f", {note}" if note else ""
            _print(f"{self.what}: {done}/{self.total}, {rate:.3g}/s{ahead}{notes}", self.stream)
        if self.status is not None and (last or now - self.stated >= 1):
            self.stated = now
            numbers = {"what": self.what, "done": done, "total": self.total, "rate": rate, "seconds_left": left, "note": note}
            try:
                records.write(self.status, schemas.STATUS, numbers)
            except OSError as error:  # the status file is not essential
                if not self.refused:
                    complain(f"warning: {describe(error)}; {self.what} continues")
                self.refused = True

    def follow(self, done: int, total: int, note: str) -> None:
        """Show the progress that another process reported."""
        assert self.bar is not None
        self.bar.update(self.task, completed=done, total=total, note=one_line(note))

    def above(self, text: str) -> None:
        """Print a line above the bar."""
        assert self.bar is not None
        self.bar.console.print(_visible(text), markup=False, highlight=False)

    def close(self) -> None:
        """Remove the bar and restore the terminal."""
        if self.bar is not None:
            self.bar.stop()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bar(stream: TextIO):  # type: ignore[no-untyped-def]
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(file=stream),
    )
