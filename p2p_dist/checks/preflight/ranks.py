"""The checks that every process of a preflight runs, on the node and in the environment of a training."""

from __future__ import annotations

import dataclasses
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from p2p_dist import __version__
from p2p_dist.checks.report import FAILED, NONE, OK, Finding
from p2p_dist.common import console, files, records
from p2p_dist.run import snapshot
from p2p_dist.run.rundir import RunDir
from p2p_dist.train import distributed

LISTENING = 30.0
"""Seconds that each process waits for a signal."""


def preflight(run: RunDir, songs: str | None, heard: list[int]) -> int:
    """All checks of one process; writes its findings.

    Args:
        songs: the folder that a training would read. heard: collects the signals that arrive.

    Returns:
        exit code: 0 nothing failed, 1 something did.
    """
    rank = int(os.environ.get("RANK", "0"))
    started: list[distributed.Ranks] = []
    expected = records.read(run.results / "plan.json", {"gpus": records.COUNT})["gpus"]
    found = [
        limited("python path", 30, lambda: check_python(run)),
        limited("torch", 60, lambda: check_torch(expected)),
        limited("devices", 60, lambda: check_devices(expected)),
        limited("caches", 30, check_caches),
        limited("data", 60, lambda: check_data(run, songs)),
        limited("disk", 120, lambda: check_disk(run)),
        *check_network(run, started),
        check_step(started),
        check_signals(run, rank, heard),
    ]
    files.write_json(run.results / f"rank-{rank}.json", [dataclasses.asdict(one) for one in found])
    return console.FAILED if any(one.state == FAILED for one in found) else console.DONE


def limited(check: str, seconds: float, body: Callable[[], Finding]) -> Finding:
    """Run a check with a time limit; any exception is a failure."""
    answer: list[Finding] = []
    host = os.uname().nodename

    def run() -> None:
        try:
            answer.append(body())
        except Exception as error:  # any error: the other checks still run
            text = console.describe(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            answer.append(Finding(check, FAILED, f"{host}: {text.splitlines()[0]}", "see the job's logs"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    late = Finding(check, FAILED, f"{host}: no answer in {seconds:.0f} s", "run this check again on other nodes")
    return answer[0] if answer else late


def check_python(run: RunDir) -> Finding:
    """Check that the program is the run's own copy, and that no package of the host hides one of the image."""
    entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(":") if entry]
    if further := [entry for entry in entries if Path(entry).resolve() != run.code.resolve()]:
        todo = "remove PYTHONPATH from the site's environment file and from what it loads (module load cray-python sets it)"
        return Finding("python path", FAILED, f"PYTHONPATH adds the host's {', '.join(further)} in", todo)
    ours = Path(__file__).resolve()
    if not ours.is_relative_to(run.code.resolve()):
        return Finding("python path", FAILED, f"p2p_dist comes from {ours.parents[3]}", f"it should come from {run.code}")
    return Finding("python path", OK, f"p2p_dist {__version__} from {run.code}")


def _is_standin() -> bool:
    """Whether the image is the one of the tests, without GPUs."""
    labels = Path("/.singularity.d/labels.json")
    return labels.is_file() and records.read(labels, {str: None}).get("p2p.standin") == "1"


def check_torch(expected: int) -> Finding:
    """Check that torch is built for GPUs if the site has them."""
    built = "CPUs only"
    if torch.version.hip or torch.version.cuda:
        built = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    text = f"torch {torch.__version__} for {built}"
    if not expected or built != "CPUs only":
        return Finding("torch", OK, text)
    if _is_standin():
        return Finding("torch", OK, f"{text} (an image for tests, without ROCm)")
    todo = f"build the image from LUMI's, see {snapshot.where_is('containers/README.md')}"
    return Finding("torch", FAILED, f"{text}, and the site's nodes have {expected} GPUs each", todo)


def check_devices(expected: int) -> Finding:
    """Check that there are as many GPUs as the site says."""
    count = torch.cuda.device_count()
    if not torch.version.hip and not torch.version.cuda:
        return Finding("devices", NONE, "this torch runs on the CPU")
    if expected and count != expected:
        todo = "look at the partition, gpus_per_node of the site and ROCR_VISIBLE_DEVICES; another node may have all its GPUs"
        return Finding("devices", FAILED, f"{os.uname().nodename} has {count} of {expected} GPUs", todo)
    if not count:
        return Finding("devices", NONE, "no GPU, and none is expected")
    return Finding("devices", OK, f"{count} x {torch.cuda.get_device_name(0)} a node")


def check_caches() -> Finding:
    """Check that MIOpen's cache is a folder of this process alone."""
    folder = os.environ.get("MIOPEN_USER_DB_PATH")
    if folder is None:
        return Finding("caches", NONE, "no cache of MIOpen is set")
    try:
        probe = Path(folder) / f".probe-{files.writer()}"
        files.write_bytes(probe, b"x")
        probe.unlink()
    except OSError as error:
        todo = "set MIOPEN_USER_DB_PATH to a writable folder on the node's own disk, as hpc/env/lumi.sh does"
        return Finding("caches", FAILED, f"the cache of MIOpen: {error.strerror}: {folder}", todo)
    return Finding("caches", OK, f"the cache of MIOpen is writable: {folder}")


def check_data(run: RunDir, root: str | None) -> Finding:
    """Check that runs, shards and songs are visible on the node, in the container."""
    songs = [Path(root)] if root else []
    for folder in (run.code, run.path.parent.parent / "shards", *songs):
        if not folder.is_dir() or (folder in songs and not any(folder.iterdir())):
            todo = "put it on a file system of all nodes, or add it to container_binds"
            return Finding("data", FAILED, f"{os.uname().nodename} does not see {folder}", todo)
    further = f", and the songs in {songs[0]}" if songs else " (songs: name them with --data)"
    return Finding("data", OK, f"runs and shards are visible{further}")


def check_disk(run: RunDir, size: int = 64 << 20, least: int = 5 << 30) -> Finding:
    """Write `size` bytes and check that `least` are left: only writing shows an exceeded quota."""
    probe = run.results / f"probe-{os.environ.get('RANK', '0')}"
    begun = time.monotonic()
    try:
        files.write_bytes(probe, os.urandom(1 << 20) * (size >> 20))
    finally:
        probe.unlink(missing_ok=True)
    rate = size / (time.monotonic() - begun) / 1e6
    free = os.statvfs(run.path)
    space = free.f_bavail * free.f_frsize
    if space < least or (free.f_files and free.f_ffree < 10_000):
        left = f"{space / 1e9:.1f} GB and {free.f_ffree} files are left at {run.path}"
        return Finding("disk", FAILED, left, "free some space, or name another folder with $P2P_RUNS")
    return Finding("disk", OK, f"{size >> 20} MB written at {rate:.0f} MB/s, {space / 1e9:.0f} GB free, no quota reached")


def check_network(run: RunDir, started: list[distributed.Ranks]) -> list[Finding]:
    """Check an all-reduce over all processes: its speed, and the network plugin that it uses."""
    log = run.results / f"nccl-{os.environ.get('RANK', '0')}.log"
    os.environ |= {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_FILE": str(log), "NCCL_DEBUG_SUBSYS": "INIT,NET"}

    def reduce() -> Finding:
        ranks, message = distributed.start(run.meeting)
        started.append(ranks)
        if ranks.world_size == 1:
            return Finding("all-reduce", NONE, "this check needs at least two processes: run it again with --nodes 2")
        measured = distributed.all_reduce_speed(ranks)
        what = f"{measured.size / 1e6:.0f} MB in {measured.seconds * 1e3:.1f} ms, {measured.bus / 1e9:.2f} GB/s each"
        text = f"{ranks.world_size} processes on {ranks.device.type}: {what}" + (f"; {message}" if message else "")
        return Finding("all-reduce", OK, text)

    reduced = limited("all-reduce", 180, reduce)
    if reduced.state == FAILED:
        todo = "see NCCL_SOCKET_IFNAME and NCCL_NET_GDR_LEVEL in hpc/env/lumi.sh; run this check again on other nodes"
        return [dataclasses.replace(reduced, todo=todo), Finding("network", NONE, "nothing was sent")]
    if reduced.state == NONE or not torch.cuda.is_available():
        return [reduced, Finding("network", NONE, "no plugin: gloo over TCP" if reduced.state == OK else "nothing was sent")]
    if int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) == 1:
        return [reduced, Finding("network", NONE, "not needed on one node: run again with --nodes 2")]
    text = log.read_text(errors="replace") if log.is_file() else ""
    plugin = re.search(r"(NET/OFI|Libfabric|NET/IB)[^\n]*", text, re.IGNORECASE)
    if plugin is None:
        todo = "the image needs aws-ofi-rccl, and the node's libcxi must be bound for its libfabric (container_binds)"
        return [reduced, Finding("network", FAILED, "RCCL found no plugin for the network and uses TCP", todo)]
    return [reduced, Finding("network", OK, plugin.group(0).strip()[:80])]


def check_step(started: list[distributed.Ranks]) -> Finding:
    """Run the first step of a training on all processes together.

    Args:
        started: this process's place among them, where they met.
    """
    if not started:
        return Finding("training step", NONE, "the processes could not connect")

    def step() -> Finding:
        from p2p_dist.checks.preflight.training_step import one_step  # names that torch lacks are a finding like any other

        return Finding("training step", OK, one_step(started[0]))

    found = limited("training step", 300, step)  # MIOpen compiles its kernels at the first
    if found.state == FAILED:
        return dataclasses.replace(found, todo="torch 2.9 or newer is needed, built for these GPUs; see the job's logs")
    return found


def check_signals(run: RunDir, rank: int, heard: list[int]) -> Finding:
    """Check that Slurm's signals reach Python: the launcher sends one when all processes listen."""
    (run.results / f"listening-{rank}").touch()
    end = time.monotonic() + LISTENING
    while not heard and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(1)  # schedulers and container runtimes each send their own
    if not heard:
        todo = "no shell may stay between srun and Python: each script that srun starts must end with exec"
        return Finding("signals", FAILED, f"no signal arrived within {LISTENING:.0f} s", todo)
    return Finding("signals", OK, f"USR2 reaches Python ({len(heard)} times for one signal sent)")
