"""Read from a GPU how busy it is, the memory in use, and the energy that it has used.

The vendor's library is read in a thread of its own, because it may be missing, raise, or hang, and none of this may harm a
training: a value that it does not tell in time is left out. NVIDIA: NVML (docs.nvidia.com/deploy/nvml-api), part of the driver.
AMD: ROCm SMI (rocm.docs.amd.com/projects/rocm_smi_lib), part of ROCm; of an MI250X only one of its two dies tells the energy,
that of both, so a die that tells none counts as 0.
"""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from p2p_dist.train.distributed import Ranks

EVERY = 1.0
"""Seconds between two readings."""

STALE = 10.0
"""Seconds after which a reading is no longer reported: the library hangs."""


class Reading(NamedTuple):
    """One reading of one GPU: the fraction of time that it was busy, memory in use (bytes), energy since some time (J)."""

    busy: float
    memory: float
    joules: float


def nvidia(library: ctypes.CDLL, bus: bytes) -> Callable[[], Reading]:
    """Return a function that reads the NVIDIA GPU at a PCI address, such as b"00000000:1b:00.0".

    Raises:
        OSError: NVML answers with an error; so may the function.
    """
    device = ctypes.c_void_p()
    _check(library.nvmlInit_v2())
    _check(library.nvmlDeviceGetHandleByPciBusId_v2(bus, ctypes.byref(device)))

    def read() -> Reading:
        rates, memory = (ctypes.c_uint * 2)(), (ctypes.c_ulonglong * 3)()  # GPU, memory in %; total, free, used
        energy = ctypes.c_ulonglong()  # mJ since the driver was loaded
        _check(library.nvmlDeviceGetUtilizationRates(device, rates))
        _check(library.nvmlDeviceGetMemoryInfo(device, memory))
        told = library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(energy)) == 0  # from Volta on
        return Reading(rates[0] / 100, float(memory[2]), energy.value / 1000 if told else math.nan)

    return read


def amd(library: ctypes.CDLL, place: tuple[int, int, int]) -> Callable[[], Reading]:
    """Return a function that reads the AMD GPU at a PCI address: the numbers of its domain, bus and device.

    Raises:
        OSError: ROCm SMI answers with an error, or has no such GPU; so may the function.
    """
    _check(library.rsmi_init(ctypes.c_uint64(0)))
    count, address = ctypes.c_uint32(), ctypes.c_uint64()
    _check(library.rsmi_num_monitor_devices(ctypes.byref(count)))
    for number in range(count.value):
        _check(library.rsmi_dev_pci_id_get(ctypes.c_uint32(number), ctypes.byref(address)))
        told = address.value  # bits 63 to 32: domain; 15 to 8: bus; 7 to 3: device
        if (told >> 32, told >> 8 & 0xFF, told >> 3 & 0x1F) == place:
            device = ctypes.c_uint32(number)
            break
    else:
        raise OSError(19, "no GPU with this PCI address")

    def read() -> Reading:
        busy, memory = ctypes.c_uint32(), ctypes.c_uint64()
        counter, unit, when = ctypes.c_uint64(), ctypes.c_float(), ctypes.c_uint64()  # in units of so many microjoules
        _check(library.rsmi_dev_busy_percent_get(device, ctypes.byref(busy)))
        _check(library.rsmi_dev_memory_usage_get(device, ctypes.c_int(0), ctypes.byref(memory)))  # 0: the GPU's own memory
        told = library.rsmi_dev_energy_count_get(device, ctypes.byref(counter), ctypes.byref(unit), ctypes.byref(when)) == 0
        return Reading(busy.value / 100, float(memory.value), counter.value * unit.value / 1e6 if told else 0.0)

    return read


def _check(code: int) -> None:
    if code:
        raise OSError(5, f"error {code} of the GPU's library")


def find(device: torch.device) -> Callable[[], Reading]:
    """Return the function that reads a device of torch.

    Raises:
        OSError, AttributeError: there is no library for it, or it is another one.
    """
    about: Any = torch.cuda.get_device_properties(device)
    place = about.pci_domain_id, about.pci_bus_id, about.pci_device_id
    if torch.version.hip is not None:
        return amd(ctypes.CDLL("librocm_smi64.so"), place)
    return nvidia(ctypes.CDLL("libnvidia-ml.so.1"), b"%08x:%02x:%02x.0" % place)


class Counters:
    """Reads a GPU beside a training.

    Args:
        find: returns the function that reads it. It is called in the thread, too.
    """

    def __init__(self, find: Callable[[], Callable[[], Reading]]) -> None:
        self.busy: list[float] = []  # since the last `take`
        self.first: Reading | None = None
        self.last: Reading | None = None
        self.when = -math.inf  # of the last reading, time.monotonic()
        threading.Thread(target=self._read, args=(find,), name="gpu counters", daemon=True).start()

    def _read(self, find: Callable[[], Callable[[], Reading]]) -> None:
        try:
            read = find()
            while True:
                self.last = read()
                self.first = self.first or self.last
                self.busy.append(self.last.busy)
                self.when = time.monotonic()
                time.sleep(EVERY)
        except Exception:  # of somebody else's library: what is not told is left out
            self.when = -math.inf

    def take(self) -> Reading:
        """Return the mean of `busy` since the last call, the memory, and the energy since the start; NaN: not told."""
        busy, self.busy = self.busy, []
        if self.last is None or self.first is None or time.monotonic() - self.when > STALE:
            return Reading(math.nan, math.nan, math.nan)
        mean = sum(busy) / len(busy) if busy else self.last.busy
        return Reading(mean, self.last.memory, self.last.joules - self.first.joules)


def beside(device: torch.device) -> Counters | None:
    """Start to read the GPU of a training; None on a CPU."""
    return Counters(lambda: find(device)) if device.type == "cuda" else None


def numbers(counters: Counters, ranks: Ranks) -> dict[str, float]:
    """Return the values for a line of metrics.jsonl, over the GPUs of all ranks, which call this together.

    gpu_busy and gpu_memory: mean of all GPUs; gpu_joules: sum, since this start. What one GPU does not tell is left out.
    """
    values = torch.tensor(counters.take(), dtype=torch.float64)
    if ranks.gloo is not None:
        dist.all_reduce(values, group=ranks.gloo)
    busy, memory, joules = values.tolist()
    joules = joules or math.nan  # no GPU tells it
    row = {"gpu_busy": busy / ranks.world_size, "gpu_memory": memory / ranks.world_size, "gpu_joules": joules}
    return {name: value for name, value in row.items() if math.isfinite(value)}
