"""What GPUs tell of themselves. The vendor's libraries are C; here small ones with the same functions stand in for them."""

import ctypes
import itertools
import math
import os
import shutil
import subprocess
import threading
import time

import pytest
import torch

from p2p_dist.run import energy, metrics_file
from p2p_dist.train import gpu_counters
from p2p_dist.train.distributed import Ranks
from p2p_dist.train.gpu_counters import Counters, Reading
from tests.train import on_ranks

NVML = """
#include <string.h>
typedef struct { unsigned gpu, memory; } rates; typedef struct { unsigned long long total, free, used; } memory;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device)
{ *device = (void *)7; return strcmp(bus, "00000000:1b:00.0"); }
int nvmlDeviceGetUtilizationRates(void *device, rates *out) { out->gpu = 85; out->memory = 30; return device != (void *)7; }
int nvmlDeviceGetMemoryInfo(void *device, memory *out) { out->total = 80; out->free = 50; out->used = 30; return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *out) { *out = 12500; return ENERGY; }
"""
SMI = """
#include <stdint.h>
int rsmi_init(uint64_t flags) { return flags != 0; }
int rsmi_num_monitor_devices(uint32_t *out) { *out = 4; return 0; }
/* domain, partition, bus, device, function: the first three differ from one another in one of the numbers that count */
static const uint64_t places[4][5] = {{0, 0, 0xd6, 2, 0}, {1, 0, 0xd6, 1, 0}, {1, 3, 0xd6, 2, 1}, {0, 0, 0xd1, 0, 0}};
int rsmi_dev_pci_id_get(uint32_t device, uint64_t *out)
{ const uint64_t *p = places[device]; *out = p[0] << 32 | p[1] << 28 | p[2] << 8 | p[3] << 3 | p[4]; return 0; }
int rsmi_dev_busy_percent_get(uint32_t device, uint32_t *out) { *out = 10 + device; return 0; }
int rsmi_dev_memory_usage_get(uint32_t device, int type, uint64_t *out) { *out = type ? 1 : 5000000000; return 0; }
int rsmi_dev_energy_count_get(uint32_t device, uint64_t *out, float *unit, uint64_t *when)
{ *out = 4000000; *unit = 15.25; *when = 1; return ENERGY; }
"""


@pytest.fixture
def library(tmp_path):
    def build(text, energy):
        compiler = shutil.which("cc") or pytest.skip("no compiler")
        (tmp_path / "a.c").write_text(text)
        path = tmp_path / f"{energy}.so"
        command = [compiler, "-shared", "-fPIC", f"-DENERGY={energy}", "-o", str(path), str(tmp_path / "a.c")]
        subprocess.run(command, check=True)
        return ctypes.CDLL(str(path))

    return build


def test_an_nvidia_gpu(library):
    assert gpu_counters.nvidia(library(NVML, 0), b"00000000:1b:00.0")() == Reading(0.85, 30.0, 12.5)
    assert math.isnan(gpu_counters.nvidia(library(NVML, 3), b"00000000:1b:00.0")().joules), "older than Volta"
    with pytest.raises(OSError, match="of the GPU's library"):
        gpu_counters.nvidia(library(NVML, 0), b"00000000:1c:00.0")


def test_an_amd_gpu(library):
    smi = library(SMI, 0)
    for number, place in enumerate([(0, 0xD6, 2), (1, 0xD6, 1), (1, 0xD6, 2), (0, 0xD1, 0)]):
        assert gpu_counters.amd(smi, place)() == pytest.approx((0.1 + 0.01 * number, 5e9, 61.0))
    assert gpu_counters.amd(library(SMI, 2), (0, 0xD1, 0))() == Reading(0.13, 5e9, 0.0), "the other die tells it of both"
    for place in [(1, 0xD1, 0), (0, 0xD2, 0), (0, 0xD1, 1)]:
        with pytest.raises(OSError, match="no GPU with this PCI address"):
            gpu_counters.amd(smi, place)


def wait(done):
    end = time.monotonic() + 10
    while not done() and time.monotonic() < end:
        time.sleep(0.005)
    assert done()


def test_the_mean_since_the_last_line_and_the_energy_since_the_start(monkeypatch):
    monkeypatch.setattr(gpu_counters, "EVERY", 0.0)
    asked, turns = threading.Semaphore(0), iter([(0.5, 1.0, 100.0), (1.0, 2.0, 130.0), (0.2, 3.0, 150.0)])

    def read():
        asked.acquire()
        return Reading(*next(turns))

    counters = Counters(lambda: read)
    asked.release(2)
    wait(lambda: len(counters.busy) == 2)
    assert counters.take() == (0.75, 2.0, 30.0)
    asked.release()
    wait(lambda: counters.busy)
    ranks = Ranks(0, 1, 0, torch.device("cpu"), None)
    row = gpu_counters.numbers(counters, ranks)
    assert row == {"gpu_busy": 0.2, "gpu_memory": 3.0, "gpu_joules": 50.0}
    monkeypatch.setattr(gpu_counters, "STALE", -1.0)
    assert gpu_counters.numbers(counters, ranks) == {}, "it hangs"


def test_a_library_that_is_missing_raises_or_hangs_harms_nothing():
    ranks = Ranks(0, 1, 0, torch.device("cpu"), None)

    def missing():
        return ctypes.CDLL("libnothing-of-the-kind.so.1")

    def broken():
        raise RuntimeError("of somebody else")

    for find in (missing, lambda: broken, threading.Event().wait):
        begun = time.monotonic()
        counters = Counters(find)
        assert gpu_counters.numbers(counters, ranks) == {} and time.monotonic() - begun < 1


def read_by_rank():
    """Of a GPU that rank 0 and rank 1 each have: 40 and 60 % busy, 1 and 3 GB, and 500 J since the start for each."""
    rank, turns = int(os.environ["RANK"]), itertools.count()
    gpu_counters.EVERY = 0.001

    def read():
        return Reading(0.4 + 0.2 * rank, (1 + 2 * rank) * 1e9, 500.0 * (next(turns) > 0))

    gpu_counters.beside = lambda device: Counters(lambda: read)


def read_by_one_rank():
    read_by_rank()
    if os.environ["RANK"] == "1":
        gpu_counters.beside = lambda device: Counters(threading.Event().wait)


def test_a_training_writes_what_the_gpus_of_all_ranks_tell(ranks, new_run):
    run, _ = new_run("told", train={"steps": 6})
    assert ranks(2, on_ranks.train, run.path, None, read_by_rank) == [0, 0]
    last = metrics_file.last(run)
    assert (last["gpu_busy"], last["gpu_memory"], last["gpu_joules"]) == (pytest.approx(0.5), 2e9, 1000.0)
    assert energy.told_by_gpus(run)[-1] == (6, 1000.0)
    run, _ = new_run("not told", train={"steps": 6})
    assert ranks(2, on_ranks.train, run.path, None, read_by_one_rank) == [0, 0]
    assert not [name for row in metrics_file.read(run) for name in row if name.startswith("gpu_")] and not run.energy.exists()
