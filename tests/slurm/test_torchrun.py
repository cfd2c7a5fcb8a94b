"""A training on several machines without Slurm, started by torchrun: two network namespaces stand for two hosts."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import undisturbed
from lab import wait_until

from p2p_dist.run import metrics_file, rundir, starts

CHECKOUT = Path(__file__).resolve().parents[2]
STEPS = 80


@pytest.fixture
def hosts():
    """Two hosts, each with an address of its own, joined by one cable: name of the namespace -> (address, interface)."""
    made = {
        f"p2p-{os.getpid()}-{place}": (f"10.77.{os.getpid() % 250}.{place}", f"p2p{os.getpid()}-{place}") for place in (1, 2)
    }
    (one, (_, cable)), (two, (_, other)) = made.items()
    try:
        for name in made:
            ip("netns", "add", name)
        ip("link", "add", cable, "netns", one, "type", "veth", "peer", "name", other, "netns", two)
        for name, (address, interface) in made.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", interface)
            ip("-n", name, "link", "set", interface, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield made
    finally:
        for name in made:
            ip("netns", "delete", name, check=False)


def ip(*words, check=True):
    subprocess.run(["/usr/sbin/ip", *words], check=check, capture_output=True)


def submit(*arguments):
    done = subprocess.run(
        [sys.executable, "launch/submit.py", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=200
    )
    return done.returncode, done.stdout + done.stderr


def test_two_hosts_train_stop_and_go_on(hosts, tmp_path, monkeypatch):
    """The command that the launcher prints, on each host. A stop on one host stops both; typed again it goes on exactly."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    typed = (
        "--preset",
        "tiny",
        "--train.steps",
        str(STEPS),
        "--train.keep-every",
        "1000",
        "--nodes",
        "2",
        "--cluster",
        "local",
    )
    code, said = submit(*typed, "--run", "two", "--torchrun")
    assert code == 0, said
    run = rundir.find("two")
    assert not rundir.find_steps(run.checkpoints), "nothing is trained by the launcher"
    command = re.search(r"^    (torchrun .*)$", said, re.MULTILINE).group(1)
    first = next(iter(hosts.values()))[0]

    def start():
        """Run the command on both hosts: the processes of torchrun, and their logs."""
        began = []
        for name, (address, interface) in hosts.items():
            words = command.replace("HOST", first).split()
            words[0] = str(Path(sys.executable).with_name("torchrun"))
            # Namespaces share the machine's name, by which torchrun would otherwise know addresses and the first host.
            words[1:1] = ["--local-addr", address, "--rdzv-conf", f"is_host={int(address == first)}"]
            log = (tmp_path / f"{address}.log").open("a")
            began.append(
                subprocess.Popen(
                    ["/usr/sbin/ip", "netns", "exec", name, *words],
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "GLOO_SOCKET_IFNAME": interface},
                    start_new_session=True,
                )
            )
        return began

    def step():
        return (metrics_file.last(run) or {"step": 0})["step"]

    began = start()
    try:
        wait_until(lambda: step() >= 8, 120, "the training to begin")
        with pytest.raises(ValueError, match="the run two is running already"):
            rundir.lock_run(run)
        began[1].send_signal(signal.SIGTERM)
        assert all(process.wait(60) != 0 for process in began)
        stopped = step()
        assert 8 <= stopped < STEPS and run.read_outcome("train")["outcome"] == "stopped"
        assert rundir.find_steps(run.checkpoints)[-1][0] == stopped, "nothing is lost"
        began = start()
        assert [process.wait(120) for process in began] == [0, 0], [path.read_text() for path in tmp_path.glob("*.log")]
    finally:
        for process in began:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert [(one.nodes, one.why) for one in starts.list_starts(run.attempts("train"))] == [(2, "stopped"), (2, "done")]
    other, _ = undisturbed.begin("one", *typed)
    undisturbed.same(run, undisturbed.train(other))
    code, said = submit(*typed, "--run", "two", "--torchrun", "--evaluate", "never")
    assert code == 0 and f"train: already done ({STEPS} steps)" in said
