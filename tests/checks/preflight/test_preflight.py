"""The preflight on one machine, and how it reports what its processes found."""

import dataclasses
import os
import time
from dataclasses import asdict

import pytest

from p2p_dist.checks.preflight import preflight
from p2p_dist.checks.preflight.ranks import check_disk, limited
from p2p_dist.checks.report import FAILED, OK, Finding, report
from p2p_dist.common import files
from p2p_dist.jobs import site
from p2p_dist.jobs.slurm import specs
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import config, presets


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
    with pytest.raises(ValueError, match=r"no image \S+containers/p2p_dist.sif: build it \(see containers/README.md\)"):
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
    with pytest.raises(ValueError, match="must be an absolute path"):
        site.load("slurm", str(file))
