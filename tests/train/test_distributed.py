"""What the ranks of a training tell each other."""

from __future__ import annotations

import datetime
import doctest
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from p2p_dist.run import rundir
from p2p_dist.train import capture, distributed
from tests.rank_processes import RanksFailed
from tests.train import on_ranks


def test_examples():
    assert doctest.testmod(distributed).failed == 0


def test_more_processes_than_gpus_share_them_over_gloo():
    """Row 30: more processes than GPUs on a node, or each sees one GPU only.

    Seen: "invalid device ordinal", or two processes on one GPU that NCCL refuses.
    Now: a process takes the GPU of its number on the node; where they are too few they share them, and it is said.
    """
    device, backend, message = distributed.choose_device(3, 4, 2)
    assert (device, backend) == ("cuda:1", "gloo")
    assert "4 processes on a node with 2 GPUs" in message


def test_threads_are_what_the_site_says(ranks):
    assert ranks(1, threads, "3") == [3]
    assert ranks(2, threads, "") == [max(1, len(os.sched_getaffinity(0)) // 2)] * 2


def threads(wanted):
    os.environ["OMP_NUM_THREADS"] = wanted
    place, _ = distributed.start()
    distributed.barrier(place)  # who leaves at once takes the meeting place along
    return torch.get_num_threads()


def addresses():
    """Of all sockets of this process that listen: in hexadecimal figures, as the kernel shows them."""
    own = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            own.add(str(descriptor.readlink()))
        except OSError:  # the one that lists them
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in own:
                found.add(local.partition(":")[0])
    return found


LOOPBACK, SECOND_LOOPBACK, ALL = "0100007F", "0200007F", "00000000"


def listening(environment):
    os.environ.update(environment)
    place, _ = distributed.start()
    dist.all_reduce(torch.ones(1))
    found = addresses()
    distributed.barrier(place)
    return found


def test_on_one_machine_only_its_loopback_device_is_listened_on(ranks):
    """The store of rank 0, and gloo's sockets of both, whatever the environment says of the network."""
    names = [name for _, name in socket.if_nameindex() if name != "lo"]
    environment = {"MASTER_ADDR": socket.gethostname(), "GLOO_SOCKET_IFNAME": names[-1] if names else "lo"}
    assert ranks(2, listening, environment) == [{LOOPBACK}] * 2


def test_between_machines_the_store_listens_on_the_address_that_it_is_called_by(ranks):
    nodes = {"LOCAL_WORLD_SIZE": "1", "GLOO_SOCKET_IFNAME": "lo"}
    assert ranks(2, listening, {**nodes, "MASTER_ADDR": "127.0.0.2"}) == [{SECOND_LOOPBACK, LOOPBACK}, {LOOPBACK}]
    first, second = ranks(2, listening, {**nodes, "MASTER_ADDR": "localhost"})
    assert first == {ALL, LOOPBACK} and second == {LOOPBACK}, "a name that others can't mean as this machine does"


def test_the_name_of_rank_0s_node(monkeypatch):
    def means(*found):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **named: [(0, 0, 0, "", (one, 0)) for one in found])
        return distributed.listening_address("node")

    assert means("127.0.1.1") == "0.0.0.0"
    assert means("203.0.113.7") == "0.0.0.0", "not an address of this machine"
    with monkeypatch.context() as patch:
        patch.setattr(socket, "create_server", lambda *_, **named: socket.socket())
        assert means("::1", "2001:db8::7", "203.0.113.7") == "203.0.113.7"
    monkeypatch.undo()
    with pytest.raises(ConnectionError, match=r"no-such-node\.invalid: cannot resolve the name of rank 0's node"):
        distributed.listening_address("no-such-node.invalid")


def test_agreement_is_known_to_all_one_call_later(ranks):
    assert ranks(3, agree) == [[0, 0, 5, 0]] * 3


def agree():
    place, _ = distributed.start()
    agreement = distributed.Agreement(place)
    found = [agreement.propose(5 if (place.rank, call) == (1, 1) else 0) for call in range(4)]
    distributed.barrier(place)
    return found


def test_ranks_wait_longer_for_each_other_than_collectives_do(ranks):
    """One node has the training data already, another one fetches them."""
    assert ranks(2, late, True) == [True, True]
    with pytest.raises(RanksFailed):
        ranks(2, late, False)


def late(waits):
    distributed.PATIENCE = datetime.timedelta(seconds=1)
    ranks, _ = distributed.start()
    if ranks.rank == 1:
        time.sleep(2.5)
    if waits:
        distributed.wait_for_all(ranks)
    return distributed.is_any(ranks, ranks.rank == 1)


def test_equalise_gives_all_rank_0s_and_sees_a_difference(ranks):
    first, second = ranks(2, equalised, False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RanksFailed, match="weights differ between processes after a broadcast"):
        ranks(2, equalised, True)


def equalised(broken):
    place, _ = distributed.start()
    torch.manual_seed(place.rank)
    module = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(3, 3))
    if broken:
        dist.broadcast = lambda tensor, source: None
    distributed.equalise(module, place)
    return [*module.parameters(), *module.buffers()]


def test_all_stop_at_the_same_step_when_one_is_told(ranks, new_run):
    """And go on to what an undisturbed training ends in."""
    stopped, _ = new_run("stopped", train={"steps": 10})
    undisturbed, _ = new_run("undisturbed", train={"steps": 10})
    assert ranks(2, stop_rank_1, stopped.path, 6) == [75, 75]
    assert [step for step, _ in rundir.find_steps(stopped.checkpoints)][-1] == 7, "asked in step 6, known to all one later"
    assert ranks(2, on_ranks.train, stopped.path) == [0, 0]
    assert ranks(2, on_ranks.train, undisturbed.path) == [0, 0]
    assert on_ranks.equal(on_ranks.state(stopped.path, 10), on_ranks.state(undisturbed.path, 10))


def stop_rank_1(folder, at):
    honest, done = capture.train_step, [0]

    def signalled(*arguments):
        done[0] += 1
        if done[0] == at and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGUSR2)
        return honest(*arguments)

    capture.train_step = signalled
    return on_ranks.train(folder)


def test_drop_out_differs_over_ranks_and_steps(ranks, new_run):
    run, _ = new_run(train={"steps": 3})
    first, second = ranks(2, drop_out_seeds, run.path)
    assert len({*first, *second}) == 6


def drop_out_seeds(folder):
    honest, seeds = capture.train_step, []
    capture.train_step = lambda *arguments: (seeds.append(arguments[5]), honest(*arguments))[1]
    on_ranks.train(folder)
    return seeds


def test_a_rank_that_fails_is_shown_with_its_traceback(ranks):
    with pytest.raises(RanksFailed, match="rank 1 does not want") as failure:
        ranks(2, refuse)
    assert set(failure.value.codes) == {1}


def refuse():
    if os.environ["RANK"] == "1":
        raise RuntimeError("rank 1 does not want")


def test_ranks_that_take_too_long_are_killed(ranks):
    with pytest.raises(RanksFailed, match="took too long"):
        ranks(1, signal.pause, seconds=1)


@pytest.mark.parametrize(("processes", "device"), [(1, "mps"), (2, "cpu")])
def test_the_gpu_of_a_mac_serves_one_process(processes, device):
    found, backend, message = distributed.choose_device(0, processes, 0, processes, has_metal=True)
    assert (found, backend) == (device, "gloo")
    said = {1: "what it lacks is computed on the CPU", 2: "2 processes use the CPU: a Mac's GPU serves one process only"}
    assert said[processes] in message
    assert distributed.choose_device(0, 1, 0, 2, has_metal=True)[0] == "cpu", "one process on each of two Macs"
    assert distributed.choose_device(0, processes, 0, processes)[::2] == ("cpu", None)
