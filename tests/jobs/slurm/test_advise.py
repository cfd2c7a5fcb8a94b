"""Whether fewer nodes would start sooner, with an sbatch that answers when each number would. A real one: tests/slurm."""

import re
import time

import pytest

from p2p_dist.cli import status as status_command
from p2p_dist.jobs.slurm import advise, reasons
from p2p_dist.run import rundir
from p2p_dist.settings.config import Resources
from tests.jobs.slurm.fake_slurm import cluster, launch, site_file

__all__ = ["cluster", "launch", "site_file"]


@pytest.fixture
def starts(cluster):
    """`starts({nodes: seconds from now})`: what sbatch --test-only answers from now on; no time for others."""
    before = (cluster.place / "sbatch").read_text()

    def answer(found):
        times = {
            nodes: time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + after)) for nodes, after in found.items()
        }
        cases = "".join(
            f"*nodes={nodes}x*) echo 'sbatch: Job 9 to start at {at} using 2 processors' >&2 ;;\n"
            for nodes, at in times.items()
        )
        text = f'case "$(tr "\\n" x < $file)" in\n{cases}esac\nexit 0\n'
        (cluster.place / "sbatch").write_text(
            before.replace('[ "$1" != --test-only ] || exit 0', f'if [ "$1" = --test-only ]; then\n{text}fi')
        )

    return answer


def advice(capsys, name="a"):
    capsys.readouterr()
    assert status_command.main([name, "--advise"]) == 0
    return capsys.readouterr().out.splitlines()


def test_fewer_nodes_are_advised_where_they_start_sooner(cluster, launch, starts, capsys):
    starts({})
    launch("--run", "a", "--nodes", "4")
    starts({1: 0, 2: 30, 4: 7200})
    said = advice(capsys)
    assert said[0] == "a: train waits, job 101: a job before it has not ended; Slurm names no start yet"
    assert said[1:4] == ["a: 4 wanted; by number of nodes, Slurm expects a start", "  on 1: now", "  on 2: now"]
    assert said[4].startswith("  on 4: ") and ", in 2:00:00" in said[4].replace("1:59:59", "2:00:00")
    assert "launch/cancel.py a && " in said[5] and said[5].startswith("fewer nodes start sooner: P2P_RUNS=")
    assert said[5].endswith(" launch/submit.py --run a --nodes 2-4"), "of those that start first, the most"
    starts({1: 0, 2: 61, 4: 7200})
    assert advice(capsys)[5].endswith("--nodes 1-4")
    starts({1: 0, 2: 0, 4: 50})
    assert advice(capsys)[5] == "fewer nodes would not start sooner"
    starts({1: 0, 2: 0})
    assert advice(capsys)[4:] == ["  on 4: not possible: Slurm names no time", "Slurm does not say when 4 would start"]
    cluster.refuse("--nodes=2$")
    starts({1: 0, 4: 3600})
    said = advice(capsys)
    assert said[3] == "  on 2: not possible: no such thing" and said[5].endswith("--nodes 1-4")


def test_the_training_that_waits_delays_no_number_of_its_own(cluster, launch, starts, capsys, monkeypatch):
    """It is among the jobs ahead of what --test-only asks for, for a day here. If it failed: nobody believes the estimates."""
    starts({})
    for nodes, name in (("4", "a"), ("2-4", "b")):
        launch("--run", name, "--nodes", nodes)
    day, soon = 86400, time.time() + 300
    monkeypatch.setattr(status_command.status.reasons, "expected_starts", lambda: {"101": soon, "104": soon})
    starts({1: day, 2: day + 300, 4: day + 300})
    said = advice(capsys)
    assert said[0].endswith("expects it to start " + reasons.when(soon)) and said[2] == "  on 1: now"
    assert said[3].endswith(("in 5:00", "in 4:59")) and said[4].endswith(("in 5:00", "in 4:59")) and "--nodes 1-4" in said[5]
    assert said[6].startswith("(the new job has waited for no time yet, which on many clusters lowers its priority")
    starts({2: day, 4: day + 600})
    said = advice(capsys, "b")
    assert said[2].endswith(("in 5:00", "in 4:59")) and said[3].endswith(("in 15:00", "in 14:59"))


def test_a_range_takes_what_is_free_without_advice(cluster, launch, starts, capsys):
    starts({})
    launch("--run", "a", "--nodes", "2-4")
    starts({2: 0, 4: 7200})
    assert advice(capsys)[-1] == "2 would start sooner, and this training takes what is free: nothing to do"


def test_a_run_that_cannot_be_read_does_not_keep_the_others_from_their_advice(cluster, launch, starts, capsys):
    starts({})
    for name in ("b", "c", "d"):
        launch("--run", name, "--nodes", "2")
    (rundir.find("b").config).write_text("train: [")
    moved = rundir.find("c").config
    moved.write_text(re.sub(r"site: .*", "site: nowhere.yaml", moved.read_text()))
    starts({1: 0, 2: 7200})
    capsys.readouterr()
    assert status_command.main(["--advise"]) == 0
    said = capsys.readouterr()
    assert re.fullmatch(r"b: \S*config\.yaml.*not readable.*\n", said.err), said.err
    assert re.search(r"^c: .*nowhere\.yaml", said.out, re.MULTILINE), said.out
    assert re.search(r"^fewer nodes start sooner: .* --run d --nodes 1-2$", said.out, re.MULTILINE), said.out


def test_what_does_not_wait_is_said(cluster, launch, starts, capsys, monkeypatch):
    starts({})
    launch("--run", "a", "--nodes", "2")
    queue = (cluster.place / "queue").read_text()
    (cluster.place / "queue").write_text(queue.replace("101|PENDING", "101|RUNNING"))
    assert advice(capsys) == ["a: train does not wait: running, job 101"]
    (cluster.place / "queue").write_text("")
    starts({1: 0, 2: 7200})
    assert advice(capsys)[-2].startswith("fewer nodes start sooner: P2P_RUNS=") and "cancel" not in advice(capsys)[-2]
    assert not any("no time yet" in line for line in advice(capsys)), "none of its jobs waits"
    monkeypatch.setattr(advise.launch, "knows_ranges", lambda run: False)
    assert advice(capsys)[-2].endswith("--nodes 1"), "its copy of the code trains on a fixed number"
    for more in ("--json", "--watch", "--verify"):
        with pytest.raises(ValueError, match="--advise prints lines of its own: omit"):
            status_command.main(["a", "--advise", more])
    monkeypatch.setattr(status_command.status.Around, "__init__", lambda self: vars(self).update(jobs=None, unknown=None))
    with pytest.raises(ValueError, match="--advise asks Slurm, and there is none here"):
        status_command.main(["a", "--advise"])


def test_both_ends_and_the_powers_of_two_between_are_asked_for():
    def tried(*sizes):
        return advise.sizes_to_try(Resources(nodes=sizes[-1], least_nodes=sizes[0] if len(sizes) > 1 else None))

    assert tried(1) == [1] and tried(2) == [1, 2] and tried(7) == [1, 2, 4, 7] and tried(8) == [1, 2, 4, 8]
    assert tried(3, 17) == [3, 4, 8, 16, 17] and tried(2, 4) == [2, 4]
