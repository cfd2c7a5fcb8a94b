"""`launch/check.py preflight` and `scaling`, as a user types them on one machine, and how they read what jobs leave."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from p2p_dist.checks.folder import check_folder
from p2p_dist.checks.preflight import preflight
from p2p_dist.checks.preflight.ranks import check_disk, limited
from p2p_dist.checks.report import FAILED, OK, Finding, report
from p2p_dist.checks.scaling import scaling
from p2p_dist.cli import check
from p2p_dist.common import files
from p2p_dist.jobs import site
from p2p_dist.jobs.slurm import specs, squeue
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import config, presets

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """Type a command of launch/check.py; its output."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "it's mine" / "runs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def typed(*arguments, code=0):
        done = subprocess.run(
            [sys.executable, "launch/check.py", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return typed


def test_preflight_on_this_machine(typed, tmp_path):
    (tmp_path / "no songs").mkdir()
    shown = typed("preflight", "--cluster", "local", "--nodes", "2", "--data", str(tmp_path / "no songs"), code=1)
    states = {line[8:].split("  ")[0]: line.split()[0] for line in shown.splitlines() if line[0] in "oF-"}
    bad = [name for name, state in states.items() if state == "FAILED"]
    assert bad == ["data"] and f"does not see {tmp_path / 'no songs'}" in shown
    assert {"torch", "training step", "python path", "disk", "all-reduce", "signals"} <= {
        n for n in states if states[n] == "ok"
    }
    assert "2 processes on cpu: 16 MB in" in shown and "1 of 12 checks failed" in shown


def test_scaling_on_this_machine(typed, tmp_path):
    shown = typed("scaling", "--nodes", "2", "--cluster", "local", "--preset", "tiny", "--steps", "3")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if line.startswith("| ")][2:]
    assert [row[:4] for row in rows] == [["2", "2", "weak", "4"], ["2", "2", "strong", "4"]]
    assert all(float(row[4]) > 0 and row[10].endswith("GB/s") for row in rows) and rows[0][7] == "100%"
    assert float(rows[0][8]) == pytest.approx(float(rows[0][4]), rel=0.01), "the model begins at the smallest size"
    # Three parts of a step each. What a size was measured at is said at once.
    for row in rows:
        lowest, highest = (float(edge) for edge in row[6].split(" to "))
        assert row[5] == "3" and lowest <= float(row[4]) <= highest
    assert shown.index("nodes-2: weak ") < shown.index("| nodes")
    folder = tmp_path / "it's mine" / "runs" / "scaling"
    assert len(json.loads((folder / "scaling.json").read_text())) == 1 and "<svg" in (folder / "scaling.svg").read_text()


def test_a_check_removes_its_own_runs_and_never_a_users(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path))
    (tmp_path / "drill" / "runs" / "stopped-1").mkdir(parents=True)
    (tmp_path / "drill" / "shards" / "made").mkdir(parents=True)
    with check_folder("drill") as root:
        assert root == tmp_path / "drill"
        assert not (root / "runs").exists() and (root / "shards" / "made").exists()
    mine = RunDir(tmp_path / "preflight")
    mine.checkpoints.mkdir(parents=True)
    mine.config.touch()
    with pytest.raises(ValueError, match="is a run of yours"), check_folder("preflight"):
        pass
    assert mine.checkpoints.is_dir()


CHECKS = (
    ("preflight", "p2p_dist.checks.preflight.preflight._here", "--cluster", "local"),
    ("scaling", "p2p_dist.checks.scaling.scaling._here", "--cluster", "local", "--nodes", "1"),
    ("drill", "p2p_dist.checks.drill.here.drill_here"),
)


@pytest.mark.parametrize(("name", "body", "options"), [(name, body, options) for name, body, *options in CHECKS])
def test_a_check_typed_again_leaves_the_first_alone(name, body, options, tmp_path, monkeypatch):
    """While it works, and behind a launcher that is gone: its jobs may wait for days, and still read its folder."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "a place" / "runs"))
    root = tmp_path / "a place" / "runs" / name
    told = []

    def typed_again(*_):
        (root / "runs" / "first").mkdir(parents=True)
        with pytest.raises(ValueError) as refused:
            check.main([name, *options])
        told.append(str(refused.value))
        raise LookupError

    monkeypatch.setattr(body, typed_again)
    with pytest.raises(LookupError):
        check.main([name, *options])
    assert f"the check {name} is running already: process {os.getpid()} on " in told[0] and (root / "runs" / "first").is_dir()

    (root / "runs" / "first" / "slurm").mkdir()
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\necho '12|PENDING|Priority|p2p_dist {name} {root}/runs/first'\necho '13|RUNNING|None|mine'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ValueError, match=rf"{name} is queued or running already \(job 12, pending\).*scancel 12, then type"):
        check.main([name, *options])
    assert (root / "runs" / "first").is_dir()
    squeue.write_text("#!/bin/sh\n")  # it has ended
    with pytest.raises(LookupError):
        check.main([name, *options])
    assert len(told) == 2


def test_what_scaling_refuses(typed):
    with pytest.raises(ValueError, match="write numbers of nodes as in"):
        check.main(["scaling", "--nodes", "two"])
    with pytest.raises(ValueError, match="at least one node"):
        check.main(["scaling", "--nodes", "0,1"])


def measured(processes, images_per_second, bus):
    """A size as checks/scaling/ranks.py leaves it: 4 images a process, 100 MB of gradients."""
    reduced = None if bus is None else {"bus": bus}
    weak = {"batch": 4 * processes, "images_per_second": images_per_second, "measured": [images_per_second] * 3}
    return {"processes": processes, "all_reduce": reduced, "gradient_bytes": 100_000_000, "weak": weak}


def test_the_model_adds_what_does_not_hide():
    """One process: 4 images in 0.1 s. Gradients over 8 processes: 175 MB at 1 GB/s is 0.175 s, of which 0.016 hide."""
    one = measured(1, 40, None)
    assert scaling.predict(one, one, 4) == pytest.approx(40)
    eight = measured(8, 100, 1e9)
    assert scaling.predict(eight, one, 4) == pytest.approx(8 * 4 / (0.1 + 0.175 - 0.016))
    assert scaling.predict(measured(8, 100, 1e12), one, 4) == pytest.approx(8 * 40), "a fast network costs nothing"
    assert scaling.predict(eight, one, 1) == pytest.approx(8 / (0.025 + 0.175 - 0.004)), "a smaller share computes less"
    slow = scaling.predict(measured(16, 1, 1e9), measured(8, 8 * 4 / 0.259, 1e9), 4)
    assert slow == pytest.approx(16 * 4 / (0.1 + 0.1875 - 0.016)), "measured with eight, the computing is found again"


def test_a_table_whose_smallest_size_can_not_share_the_batch(tmp_path, capsys):
    """Efficiency is against the smallest size that was measured, each way for itself."""
    about = {"device": "d", "precision": "p", "flops_per_image": 1e9}
    runs = []
    for nodes, processes, strong in ((1, 3, None), (2, 6, 60), (4, 12, 90)):
        one = measured(processes, 10 * processes, 1e9) | about | {"nodes": nodes}
        one["weak"]["data_wait"] = 0.0
        one["strong"] = strong and {"batch": 12, "images_per_second": strong, "measured": [strong], "data_wait": 0.0}
        runs.append(RunDir(tmp_path / str(nodes)))
        files.write_json(runs[-1].path / "scaling.json", one)
    assert scaling.report(tmp_path, runs) == 0
    rows = json.loads((tmp_path / "scaling.json").read_text())
    assert [row["weak"]["efficiency"] for row in rows] == [1, 1, 1]
    assert [row["strong"] and row["strong"]["efficiency"] for row in rows] == [None, 1, 0.75]
    assert "does not divide" in capsys.readouterr().out


def sizes(tmp_path, **measured_at):
    """Runs of one and two nodes as the ranks leave them; weak_1=[...] and so on: images a second of each part."""
    about = {"device": "d", "precision": "p", "flops_per_image": 1e9, "all_reduce": None, "gradient_bytes": 1_000_000}
    runs = []
    for nodes in (1, 2):
        one = about | {"nodes": nodes, "processes": nodes}
        for way in scaling.WAYS:
            rates = measured_at.get(f"{way}_{nodes}", [10.0 * nodes] * 5)
            one[way] = {"batch": 4, "images_per_second": sorted(rates)[2], "measured": rates, "data_wait": 0.0}
        runs.append(RunDir(tmp_path / str(nodes)))
        files.write_json(runs[-1].path / "scaling.json", one)
    return runs


def test_scaling_says_nothing_of_measurements_that_agree(tmp_path, capsys):
    assert scaling.report(tmp_path, sizes(tmp_path, strong_2=[12, 12.5, 13, 13.5, 14])) == 0
    shown = capsys.readouterr().out
    assert "12 to 14" in shown and "65%" in shown
    assert "warning" not in shown and "note" not in shown


@pytest.mark.parametrize(
    ("measured_at", "said"),
    [
        (
            {"weak_1": [1, 1, 1, 1, 1]},
            "note: 2 nodes, weak: over 100 %: the smallest size had other work beside it all the time",
        ),
        ({"strong_2": [30.0] * 5}, "note: 2 nodes, strong: over 100 %: the smaller share of a process fits its caches better"),
        (
            {"weak_1": [1, 1, 2, 10, 11]},
            "note: 2 nodes, weak: over 100 %: the measurements of this size and of the smallest overlap",
        ),
        ({"weak_1": [1, 1, 2, 10, 11]}, "warning: 1 nodes, weak: measurements scatter (1 to 11 images/s)"),
    ],
)
def test_scaling_explains_scatter_and_more_than_100_percent(tmp_path, capsys, measured_at, said):
    assert scaling.report(tmp_path, sizes(tmp_path, **measured_at)) == 0
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "scaling.md").read_text()


def test_scaling_measures_every_size_twice_and_says_when_the_machine_is_busy(tmp_path, capsys, monkeypatch):
    """Upwards, then downwards: a load that comes or goes meets the smallest size and the largest alike."""
    begun = []
    monkeypatch.setattr(scaling, "_run_here", lambda stage, run, number: begun.append((stage, run.path.name)))
    monkeypatch.setattr(scaling.os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    runs = sizes(tmp_path)
    scaling._here(runs)
    assert "busy" not in capsys.readouterr().err
    monkeypatch.setattr(scaling.os, "getloadavg", lambda: (900.0, 0.1, 0.1))
    scaling._here(runs)
    assert "warning: this machine is busy (load 900.0" in capsys.readouterr().err
    assert begun[:5] == [("preprocess", "1"), *(("scaling", name) for name in ("1", "2", "2", "1"))]


def test_slurm_is_asked_seldom_while_jobs_wait():
    now = time.monotonic()
    assert squeue.patience(["pending (Priority)"], now) < 1, "it may begin at once"
    assert squeue.patience(["pending (Priority)"], now - 11) == 5
    assert squeue.patience(["running"], now - 11) < 1 and squeue.patience(["pending", "running"], now - 11) == 1


def test_a_check_that_hangs_or_raises_is_a_finding():
    begun = time.monotonic()
    late = limited("slow", 0.2, lambda: time.sleep(60))
    assert (late.state, late.check) == (FAILED, "slow") and "no answer in" in late.found and time.monotonic() - begun < 10

    def full():
        raise OSError(122, os.strerror(122), "/scratch")

    assert "the quota is used up" in limited("disk", 5, full).found


def test_a_disk_that_is_nearly_full(tmp_path):
    run = RunDir(tmp_path)
    run.results.mkdir()
    assert check_disk(run, size=1 << 20, least=1).state == OK
    assert check_disk(run, size=1 << 20, least=1 << 60).state == FAILED
    assert not list(run.results.iterdir())


def left(run, *findings):
    """What processes found, as they leave it."""
    for rank, found in enumerate(findings):
        files.write_json(run.results / f"rank-{rank}.json", [asdict(one) for one in found])


def test_the_first_process_that_failed_speaks_for_all(tmp_path, capsys):
    run = RunDir(tmp_path)
    good, bad = Finding("devices", OK, "8 x MI250X"), Finding("devices", FAILED, "nid2 has 7 of 8 GPUs", "another node")
    left(run, [good], [bad], [good])
    (found,) = preflight.merge(run, 3, "")
    assert report([found]) == 1
    shown = capsys.readouterr().out
    assert "nid2 has 7 of 8 GPUs (1 of 3 processes)" in shown and "-> another node" in shown


@pytest.mark.parametrize(
    ("log", "name", "said"),
    [
        ("error: nid1: bind: there is no /flash on this node", "binds", "2 of 3 processes: nid1: there is no /flash"),
        ("error: nid1: runtime: there is no command singularity on this node", "runtime", "no command singularity"),
        ("INFO: x\nFATAL:   image format not recognized", "image", "not recognized"),
        ("Traceback\nImportError: libamdhip64.so.6: no such file", "start", "libamdhip64.so.6"),
        ("", "start", "nothing in their logs"),
    ],
)
def test_processes_that_did_not_start(log, name, said, tmp_path):
    run = RunDir(tmp_path)
    left(run, [Finding("torch", OK, "")])
    first, _ = preflight.merge(run, 3, log)
    assert (first.check, first.state) == (name, FAILED) and said in first.found


def test_what_a_container_is_shown(tmp_path, monkeypatch):
    """The site's, and the run's folders as jobs see them, behind links; the songs by every name; else nothing of it."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "link" / "runs"))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    image = tmp_path / "image.sif"
    resources = config.Resources(nodes=1, container=str(image), overlay=str(tmp_path / "o.sqsh"))
    data = config.Data(root=str(tmp_path / "songs"))
    settings = config.Config(resources=resources, data=data)
    jobs = {job.stage: job.script() for job in specs.jobs(rundir.find("r"), settings, site.load("lumi"))}
    for stage, script in jobs.items():
        (binds,) = [line for line in script.splitlines() if line.startswith("export P2P_BINDS=")]
        shown = binds.removeprefix("export P2P_BINDS=").split(",")
        for folder in ("real/runs", "real/shards"):
            assert str(tmp_path / folder) in shown
        assert {"/pfs", "/var/spool/slurmd"} <= set(shown)
        assert (str(tmp_path / "songs") in shown) == (stage == "preprocess")
        assert f"export P2P_CONTAINER={image}" in script and f"P2P_OVERLAY={tmp_path / 'o.sqsh'}" in script
        assert "export P2P_PYTHON=python\n" in script
    plain = presets.preset("tiny")
    assert "P2P_CONTAINER" not in specs.jobs(rundir.find("r"), plain, site.load("slurm"))[0].script()
    comma = config.Config(resources=resources, data=config.Data(root="/songs, mine"))
    with pytest.raises(ValueError, match="can't be bound into a container"):
        specs.jobs(rundir.find("r"), comma, site.load("lumi"))
    for name in ("a,b.sqsh", "a:b.sqsh"):
        odd = config.Config(resources=dataclasses.replace(resources, overlay=name), data=data)
        with pytest.raises(ValueError, match=f"{name}: what has ',' or ':'"):
            specs.jobs(rundir.find("r"), odd, site.load("lumi"))


def test_images_that_are_not_there_are_named_before_anything_is_queued(tmp_path):
    place = site.load("lumi")
    with pytest.raises(ValueError, match=r"no image \S+containers/p2p_dist.sif: build it \(containers/README.md\)"):
        place.check_images(config.Resources())
    (tmp_path / "i.sif").touch()
    mine = config.Resources(container=str(tmp_path / "i.sif"))
    place.check_images(mine)
    with pytest.raises(ValueError, match=r"no image /nowhere\.sqsh.*--overlay"):
        place.check_images(config.Resources(container=str(tmp_path / "i.sif"), overlay="/nowhere.sqsh"))
    with pytest.raises(ValueError, match="needs an image"):
        site.load("slurm").check_images(config.Resources(overlay=str(tmp_path / "i.sif")))
    file = tmp_path / "mine.yaml"
    file.write_text("container_binds: [scratch]\n")
    with pytest.raises(ValueError, match="write an absolute path"):
        site.load("slurm", str(file))
