"""The process group of a training: ranks, devices, and communication between ranks.

The only module that reads RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import datetime
import functools
import inspect
import ipaddress
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from p2p_dist.common import files, linux, records
from p2p_dist.run import rundir

PATIENCE = datetime.timedelta(minutes=10)
"""Timeout of a collective operation. It is long because, from the first step on, the watchdog ends a hang earlier, after
`train.hang_after` seconds, and logs the stack traces."""

PORTS = 4
"""Number of consecutive ports that rank 0 tries, starting at MASTER_PORT."""

LOOPBACK = "127.0.0.1"
ALL_ADDRESSES = "0.0.0.0"


@dataclass(frozen=True)
class Ranks:
    """Rank and device of this process. gloo: the process group for flags, on the host; None with a single process."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    gloo: dist.ProcessGroup | None


def choose_device(
    local_rank: int, local_world_size: int, gpus: int, world_size: int = 1, has_metal: bool = False
) -> tuple[str, str, str | None]:
    """Choose device and backend. Return both, and a message unless each process has its own GPU.

    Args:
        has_metal: there is the GPU of a Mac. No backend joins processes on such GPUs, so it serves a single process.

    >>> choose_device(1, 8, 8)
    ('cuda:1', 'nccl', None)
    >>> choose_device(0, 1, 0)
    ('cpu', 'gloo', None)
    """
    if gpus == 0 and has_metal and world_size == 1:
        return (
            "mps",
            "gloo",
            "the GPU of this Mac is used; what it lacks is computed on the CPU, see PYTORCH_ENABLE_MPS_FALLBACK",
        )
    if gpus == 0 and has_metal:
        return "cpu", "gloo", f"{world_size} processes use the CPU: a Mac's GPU serves one process only, so --nodes 1"
    if gpus == 0:
        return "cpu", "gloo", None
    if local_world_size <= gpus:
        return f"cuda:{local_rank}", "nccl", None
    message = (
        f"{local_world_size} processes on a node with {gpus} GPU{'s' if gpus > 1 else ''}: they share "
        f"{'them' if gpus > 1 else 'it'} and use gloo, which is slower than {gpus} process{'es' if gpus > 1 else ''}"
    )
    return f"cuda:{local_rank % gpus}", "gloo", message


def start(note: Path | None = None) -> tuple[Ranks, str | None]:
    """Join the other processes of this training.

    Args:
        note: see `meet`.

    Returns:
        the rank and device of this process, and a message for the log or None.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    name, backend, message = choose_device(local_rank, local_world_size, gpus, world_size, torch.backends.mps.is_available())
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        wanted = os.environ.get("OMP_NUM_THREADS", "")  # set by the site or the user
        torch.set_num_threads(int(wanted) if wanted.isdigit() else max(1, linux.usable_cores() // local_world_size))
    gloo = None
    if world_size > 1:
        address = os.environ["MASTER_ADDR"]
        if local_world_size == world_size:
            # With a single node, bind to loopback only: store, gloo and NCCL must not be reachable from other machines.
            address = LOOPBACK
            os.environ["GLOO_SOCKET_IFNAME"] = linux.loopback()
            os.environ.setdefault("NCCL_SOCKET_IFNAME", linux.loopback())
        store = None  # torchrun has one already, which torch finds by itself
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            store = meet(rank, address, int(os.environ["MASTER_PORT"]), note)
        try:
            dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=PATIENCE)
            gloo = dist.new_group(backend="gloo", timeout=PATIENCE)
        except dist.DistError as error:
            raise ConnectionError(
                f"rank {rank} of {world_size}: not all processes connected within {PATIENCE}: see the logs of the others "
                f"for errors; if there are none, check that {backend} can reach the other nodes ({str(error).splitlines()[0]})"
            ) from error
    return Ranks(rank, world_size, local_rank, device, gloo), message


def meet(rank: int, address: str, port: int, note: Path | None) -> Any:
    """Create the store through which the ranks find each other (rank 0), or connect to it (other ranks).

    Rank 0 listens on `port`, or on the next free of `PORTS` ports if another program uses it. It writes the port and the
    attempt to the file `note`, so no rank connects to another program or to a store of an earlier attempt.

    It listens on one address only, see `listening_address`, because torch's store has no authentication and no encryption.

    Args:
        address: name or IP address of rank 0's node.
        note: a file on storage that all ranks share; None if `port` is known to be free.

    Raises:
        ConnectionError: no port is free, or rank 0 was not found in time.
    """
    name = os.environ.get("P2P_ATTEMPT") or (rundir.attempt() if "SLURM_JOB_ID" in os.environ else f"port {port}")
    reason = "rank 0 has not written its port"
    if rank == 0:
        at = listening_address(address)
        reached = LOOPBACK if at == ALL_ADDRESSES else at
        for number in range(port, port + (PORTS if note else 1)):
            try:
                listener = socket.create_server((at, number), family=socket.AF_INET6 if ":" in at else socket.AF_INET)
            except OSError as error:
                reason = str(error)
                continue
            store = TCPStore(
                reached, number, is_master=True, timeout=PATIENCE, wait_for_workers=False, master_listen_fd=listener.detach()
            )
            if note:
                files.patiently(functools.partial(files.write_json, note, {"attempt": name, "port": number}))
            return PrefixStore(name, store)
        raise ConnectionError(f"ports {port} to {number} of {address} are all in use: {reason}")
    end = time.monotonic() + PATIENCE.total_seconds()
    while time.monotonic() < end:
        found: dict[str, Any] = {"attempt": None if note else name, "port": port}
        if note and note.is_file():
            found = records.read(note, {"attempt": str, "port": range(1, 1 << 16)})
        if found["attempt"] != name:
            time.sleep(0.02)
            continue
        try:
            store = TCPStore(address, found["port"], is_master=False, timeout=datetime.timedelta(seconds=30))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            continue
        store.set_timeout(PATIENCE)
        return PrefixStore(name, store)
    raise ConnectionError(f"rank 0 was not found at {address} within {PATIENCE}: {reason}")


def listening_address(address: str) -> str:
    """Return the address that rank 0 listens on: the one through which the other ranks reach its node.

    Return 0.0.0.0 (all addresses) if that address is not known: on the node itself its name may resolve to loopback
    (127.0.1.1 in Debian's /etc/hosts), or to an address that does not belong to it.

    >>> listening_address("127.0.0.1"), listening_address("localhost")
    ('127.0.0.1', '0.0.0.0')

    Raises:
        ConnectionError: the name can't be resolved.
    """
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        pass  # a host name
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectionError(f"MASTER_ADDR {address}: cannot resolve the name of rank 0's node: {error}") from error
    for one in sorted((str(info[4][0]) for info in found), key=lambda one: ":" in one):  # IPv4 first
        if not ipaddress.ip_address(one).is_loopback:
            try:
                socket.create_server((one, 0), family=socket.AF_INET6 if ":" in one else socket.AF_INET).close()
            except OSError:
                continue
            return one
    return ALL_ADDRESSES


def wrap(module: nn.Module, ranks: Ranks, gradient_precision: str = "fp32") -> nn.Module:
    """Wrap a module in DistributedDataParallel if there are several processes. Buffers are not broadcast at every step.

    Buffers (spectral norm's vectors) stay equal on all ranks without it. A broadcast in a forward that runs twice per step
    breaks the backward on GPUs (pytorch issue 175024). torch 2.13 renamed the argument.
    """
    if ranks.world_size == 1:
        return module
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    devices = [ranks.device.index] if ranks.device.type == "cuda" else None
    parallel = DistributedDataParallel(module, device_ids=devices, gradient_as_bucket_view=True, **{name: False})  # type: ignore[arg-type]
    if gradient_precision == "bf16":
        parallel.register_comm_hook(None, average_in_bf16)
    return parallel


def average_in_bf16(state, bucket):  # type: ignore[no-untyped-def]  # DDP refuses annotations that are strings
    """Average a bucket of gradients over the ranks in bf16: half the traffic, 8 bits of precision.

    torch's bf16_compress_hook works with NCCL only; this one also works with gloo.
    """
    travelling = (bucket.buffer() / dist.get_world_size()).to(torch.bfloat16)
    arrived = dist.all_reduce(travelling, async_op=True).get_future()

    def unpack(future):  # type: ignore[no-untyped-def]
        return bucket.buffer().copy_(future.value()[0])

    return arrived.then(unpack)


def equalise(module: nn.Module, ranks: Ranks) -> None:
    """Broadcast the weights and buffers of rank 0 to all ranks, then compare their checksums.

    Raises:
        RuntimeError: they still differ, so communication between the processes is broken.
    """
    if ranks.world_size == 1:
        return
    tensors = [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        whole = torch.cat([tensor.reshape(-1) for tensor in alike])  # one broadcast instead of many small ones
        dist.broadcast(whole, 0)
        for tensor, values in zip(alike, whole.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.copy_(values.view(tensor.shape))
    sums = torch.stack([tensor.double().abs().sum() for tensor in tensors]).sum().cpu()
    everyone = [torch.zeros_like(sums) for _ in range(ranks.world_size)]
    dist.all_gather(everyone, sums, group=ranks.gloo)
    if any(not torch.equal(other, sums) for other in everyone):
        raise RuntimeError(f"weights differ between processes after a broadcast: {[float(other) for other in everyone]}")


def barrier(ranks: Ranks) -> None:
    """Wait for all ranks."""
    if ranks.gloo is not None:
        dist.barrier(group=ranks.gloo)


def wait_for_all(ranks: Ranks) -> None:
    """Wait until all ranks call this once, however long that takes: collectives give up after `PATIENCE`.

    If a rank ends, whoever started the ranks ends the others, or the connection to the store is lost.
    """
    if ranks.world_size == 1:
        return
    store = dist.distributed_c10d._get_default_store()
    name = f"p2p_dist-ready-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    store.add(name, 1)
    while store.add(name, 0) < ranks.world_size:
        time.sleep(0.2)


def is_any(ranks: Ranks, value: bool) -> bool:
    """Whether the value is true in any rank. Waits for all."""
    flag = torch.tensor([int(value)])
    if ranks.gloo is not None:
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=ranks.gloo)
    return bool(flag)


class Agreement:
    """A value that all ranks agree on without waiting: proposed in one step, known to all ranks in the next.

    The asynchronous all-reduce (MAX) over gloo runs while the step is computed.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.gloo = ranks.gloo
        self.flag = torch.zeros(1, dtype=torch.int32)
        self.work: dist.Work | None = None

    def propose(self, value: int) -> int:
        """Propose this rank's value. Return the largest value that any rank proposed in the previous call (at first 0)."""
        if self.gloo is None:
            before = int(self.flag)
            self.flag.fill_(value)
            return before
        if self.work is not None:
            self.work.wait()
        before = int(self.flag)
        self.flag = torch.tensor([value], dtype=torch.int32)
        self.work = dist.all_reduce(self.flag, op=dist.ReduceOp.MAX, group=self.gloo, async_op=True)
        return before


@dataclass(frozen=True)
class AllReduce:
    """Time of one all-reduce: `size` in bytes, `seconds`, and `bus`, the bytes per second each process sent and received."""

    size: int
    seconds: float
    bus: float


def all_reduce_speed(ranks: Ranks) -> AllReduce:
    """Time an all-reduce as large as the gradients of the default generator (218 MB; 16 MB on a CPU), best of five.

    In a ring each process sends and receives 2 (n - 1) / n times `size`: the "bus bandwidth" of nccl-tests.

    Raises:
        RuntimeError: the sum was wrong.
    """
    size = 218_000_000 if ranks.device.type == "cuda" else 16_000_000
    best = float("inf")
    for turn in range(6):  # the first one sets up the connections and is not counted
        values = torch.full((size // 4,), float(ranks.rank + 1), device=ranks.device)
        if ranks.device.type == "cuda":
            torch.cuda.synchronize(ranks.device)
        dist.barrier(group=ranks.gloo)
        begun = time.monotonic()
        dist.all_reduce(values)
        if ranks.device.type == "cuda":
            torch.cuda.synchronize(ranks.device)
        seconds = time.monotonic() - begun
        if turn > 0:
            best = min(best, seconds)
        expected = ranks.world_size * (ranks.world_size + 1) / 2
        if float(values.min()) != expected or float(values.max()) != expected:
            raise RuntimeError(f"the sum over {ranks.world_size} processes was {float(values.min())}, not {expected}")
    return AllReduce(size, best, 2 * (ranks.world_size - 1) / ranks.world_size * size / best)
