"""Linux calls: die with the parent process, allocator settings, available cores and what they compute in."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def die_with_parent(number: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Ask the kernel to send this process the signal `number` when its parent ends, even by SIGKILL. Call it first in a child.

    Args:
        parent: process id of the parent, to detect that it has ended already.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


def keep_memory() -> None:
    """Keep freed memory in this process for reuse instead of returning it to the kernel.

    Otherwise the kernel clears the pages of every large array again, which takes a quarter of the time for a song.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc's
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def usable_cores() -> int:
    """The number of cores that this process may use, which a Slurm job or a container may limit."""
    return len(os.sched_getaffinity(0))


def computes_in_bf16(cpuinfo: str) -> bool:
    """Whether a CPU has units for bf16, from the text of /proc/cpuinfo: AVX512-BF16 or AMX of x86, BF16 of Arm.

    >>> computes_in_bf16("flags : fpu avx512f avx512_bf16"), computes_in_bf16("flags : fpu avx512f avx2")
    (True, False)
    """
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(cpuinfo.split())
