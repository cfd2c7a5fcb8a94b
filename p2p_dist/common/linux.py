"""Linux calls, each with a fallback for other systems: reading in place, dying with the parent process, the allocator, and
what this machine has. Windows runs Linux programs in WSL."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

PROC = Path("/proc")
"""What the kernel tells of processes and of the machine, proc(5). Only Linux has it."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def die_with_parent(number: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Ask the kernel to send this process the signal `number` when its parent ends, even by SIGKILL. Call it first in a child.

    Where the kernel can't, a thread looks every second whether the parent has ended.

    Args:
        parent: process id of the parent, to detect that it has ended already.
    """
    if prctl := getattr(ctypes.CDLL(None, use_errno=True), "prctl", None):
        if prctl(_PR_SET_PDEATHSIG, number) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    else:
        threading.Thread(target=_die_after, args=(os.getppid(), number), name="parent", daemon=True).start()
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


def _die_after(parent: int, number: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), number)


@contextlib.contextmanager
def blocked(numbers: Iterable[int]) -> Iterator[None]:
    """Block signals for this thread until the end of the block, however it ends. A process that starts in it inherits this.

    In the main thread their handlers wait, too: another thread, such as one of a library, may receive the signal, and Python
    then calls the handler here.
    """
    numbers, noted = tuple(numbers), list[tuple[int, FrameType | None]]()
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                if callable(handler := signal.getsignal(number)):
                    handlers[number] = handler
                    signal.signal(number, lambda *one: noted.append(one))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, frame in noted[:1]:
            handlers[number](number, frame)


def read_at(descriptor: int, views: Sequence[memoryview], offset: int) -> int:
    """Fill the views, one after another, with the bytes of a file at `offset`: preadv(2). Return how many there were."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, views, offset)
    got = 0
    for view in views:
        part = os.pread(descriptor, len(view), offset + got)
        view[: len(part)] = part
        got += len(part)
        if len(part) < len(view):
            break
    return got


def forget(descriptor: int) -> None:
    """Drop a file from the page cache, if the system can, so that the next read comes from the disk."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def allow_open_files(wanted: int) -> int:
    """Return how many of `wanted` files this process may keep open at once: at most a quarter of what the system allows.

    The usual limit of 1024 is raised if it is too low for that. Other files and connections need the rest.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return max(1, wanted)
    if soft < 4 * wanted:
        soft = 4 * wanted if hard == resource.RLIM_INFINITY else max(soft, min(4 * wanted, hard))
        with contextlib.suppress(ValueError, OSError):  # a Mac allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(wanted, soft // 4))


def loopback() -> str:
    """Return the name of the network interface to this machine itself: `lo`, on a Mac `lo0`."""
    return next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), "lo")


def keep_memory() -> None:
    """Keep freed memory in this process for reuse instead of returning it to the kernel.

    Otherwise the kernel clears the pages of every large array again, which takes a quarter of the time for a song.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc's
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def usable_cores() -> int:
    """The number of cores that this process may use, which a Slurm job or a container may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int:
    """Return the free memory of this machine in bytes; where the system does not tell it, all of its memory."""
    try:
        lines = dict(line.split(":", 1) for line in (PROC / "meminfo").read_text().splitlines())
    except FileNotFoundError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(lines["MemAvailable"].split()[0]) * 1024


def cpuinfo() -> str:
    """Return what the kernel tells of the processors; empty where it tells nothing."""
    try:
        return (PROC / "cpuinfo").read_text()
    except FileNotFoundError:
        return ""


def computes_in_bf16(cpuinfo: str) -> bool:
    """Whether a CPU has units for bf16, from the text of /proc/cpuinfo: AVX512-BF16 or AMX of x86, BF16 of Arm.

    >>> computes_in_bf16("flags : fpu avx512f avx512_bf16"), computes_in_bf16("flags : fpu avx512f avx2")
    (True, False)
    """
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(cpuinfo.split())
