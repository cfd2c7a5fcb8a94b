"""The jobs of a run: what each asks Slurm for, and its script."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_dist.jobs import site
from p2p_dist.jobs.slurm import bill as bill_of
from p2p_dist.jobs.slurm import specs
from p2p_dist.run import rundir
from p2p_dist.settings import config, presets
from tests.jobs.submit_command import place

__all__ = ["place"]


def test_what_a_container_is_shown(tmp_path, monkeypatch):
    """The site's, and the run's folders as jobs see them, behind links; the songs by every name; else nothing of it."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "link" / "runs"))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    image = tmp_path / "image.sif"
    resources = config.Resources(nodes=1, container=str(image), overlay=str(tmp_path / "o.sqsh"))
    data = config.Data(root=str(tmp_path / "songs"))
    settings = config.Config(resources=resources, data=data)
    jobs = {job.stage: job.script() for job in specs.jobs(rundir.find("r"), settings, site.load_site("lumi"))}
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
    assert "P2P_CONTAINER" not in specs.jobs(rundir.find("r"), plain, site.load_site("slurm"))[0].script()
    comma = config.Config(resources=resources, data=config.Data(root="/songs, mine"))
    with pytest.raises(ValueError, match="cannot be bound into a container"):
        specs.jobs(rundir.find("r"), comma, site.load_site("lumi"))
    for name in ("a,b.sqsh", "a:b.sqsh"):
        odd = config.Config(resources=dataclasses.replace(resources, overlay=name), data=data)
        with pytest.raises(ValueError, match=f"{name}: a path with ',' or ':'"):
            specs.jobs(rundir.find("r"), odd, site.load_site("lumi"))


def test_a_container_is_shown_the_dataset_and_what_songs_are_made_from(tmp_path, monkeypatch):
    """If it failed: a training whose dataset is elsewhere, and songs to play to, are not there inside the container."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    resources = config.Resources(nodes=1, container=str(tmp_path / "image.sif"))
    settings = config.Config(resources=resources, data=config.Data(shards=str(tmp_path / "mine")))
    asked = ("preprocess", "train", "evaluate", "generate")
    for job in specs.jobs(rundir.find("r"), settings, site.load_site("lumi"), asked, [tmp_path / "reached"]):
        (binds,) = [line for line in job.script().splitlines() if line.startswith("export P2P_BINDS=")]
        shown = binds.removeprefix("export P2P_BINDS=").split(",")
        assert (str(tmp_path / "mine") in shown) == (job.stage in ("preprocess", "train")), job.stage
        assert str(tmp_path / "reached") in shown


def bill(**resources):
    """stage -> the most GPU-hours on LUMI."""
    settings = config.Config(resources=config.Resources(**{"nodes": 2, "time": "10:00:00", "max_requeues": 4} | resources))
    place = site.load_site("lumi")
    found = bill_of.of_jobs(specs.jobs(rundir.find("r"), settings, place), settings.resources, place)
    return {stage: most for stage, (most, _) in found.items()}


def test_gpu_hours_are_what_the_site_bills():
    """LUMI: 4 GPU-hours a node-hour where nodes are given out whole, else half of one for each of the 8 dies asked for."""
    assert bill() == {"train": 2 * 4 * 10 * 5, "evaluate": 4 * 0.5 * 12 * 5}
    assert bill(evaluate_array=3)["evaluate"] == 4 * 0.5 * 12 * 5 * 3
    assert bill(partition="small-g") == {"train": 2 * 8 * 0.5 * 10 * 5, "evaluate": 4 * 0.5 * 12 * 5}
    assert bill(partition="small-g", processes_per_node=1)["train"] == 2 * 1 * 0.5 * 10 * 5
    assert bill(max_gpu_hours=100.0)["train"] == 100 + 2 * 4 * 10, "the last start begins below and may take all of its time"
    assert bill(max_gpu_hours=1000.0)["train"] == 2 * 4 * 10 * 5


def test_a_range_is_billed_as_its_most_nodes_and_limited_by_what_was_used():
    """If it failed: a bill larger than the one that was shown; or a limit that is reached at a quarter of it on one node."""
    assert bill(nodes=4, least_nodes=1)["train"] == bill(nodes=4)["train"] == 4 * 4 * 10 * 5
    assert bill(nodes=4, least_nodes=1, max_gpu_hours=100.0)["train"] == 100 + 4 * 4 * 10
    resources = config.Resources(nodes=4, least_nodes=1, max_gpu_hours=8.0)
    (job,) = specs.jobs(rundir.find("r"), config.Config(resources=resources), site.load_site("lumi"), ("train",))
    assert "export P2P_MAX_NODE_SECONDS=7200" in job.setup, "2 hours of one node, 4 GPU-hours each"
    assert "export P2P_RATE=4.000000" in job.setup, "of one node"
    assert "export P2P_NODES=1-4" in job.setup and job.sizes == (1, 4)
    # Slurm keeps the tasks of an earlier start, so the job has none; cores for all of them.
    assert "#SBATCH --nodes=1-4\n#SBATCH --" in job.script() and "ntasks" not in job.script().split("\n\n")[0]
    assert "#SBATCH --cpus-per-task=56\n" in job.script()
    assert "export P2P_SRUN='--ntasks-per-node=8 --cpus-per-task=7'" in job.setup
    by_task = dataclasses.replace(site.load_site("lumi"), sbatch={"gpu": {"gpus-per-task": "1"}})
    with pytest.raises(ValueError, match=r"\(sbatch: gpus-per-task\) requests resources by task.*one number with --nodes"):
        specs.jobs(rundir.find("r"), config.Config(resources=resources), by_task, ("train",))
    least = config.Config(resources=dataclasses.replace(resources, max_gpu_hours=1e-6))
    (job,) = specs.jobs(rundir.find("r"), least, site.load_site("lumi"), ("train",))
    assert "export P2P_MAX_NODE_SECONDS=1" in job.setup, "0 would be no limit"
    fixed = config.Resources(nodes=4, max_gpu_hours=8.0)
    for stage, of in (("train", fixed), ("preflight", resources)):
        (job,) = specs.jobs(rundir.find("r"), config.Config(resources=of), site.load_site("lumi"), (stage,))
        assert job.sizes == (4,) and "#SBATCH --nodes=4\n" in job.script()
        assert not [line for line in job.setup if "P2P_NODES" in line or "NODE_SECONDS" in line]
        assert ("export P2P_MAX_SECONDS=1800" in job.setup) == (stage == "train"), "2 hours of one node are 30 minutes of 4"


def test_where_nodes_are_shared_only_what_processes_use_is_asked_for():
    """LUMI bills each die asked for, and a further one for each 64 GB."""
    found = {}
    for partition in ("small-g", "standard-g"):
        resources = config.Resources(partition=partition, processes_per_node=1)
        asked = config.Config(resources=resources)
        found[partition] = specs.jobs(rundir.find("r"), asked, site.load_site("lumi"), ("train", "evaluate"))
    shared, whole = found["small-g"][0].script(), found["standard-g"][0].script()
    assert "--gpus-per-node=1\n" in shared and "--mem=60G\n" in shared
    assert "--gpus-per-node=8\n" in whole and "--mem=480G\n" in whole and "--exclusive" in whole
    shared, beside_whole = found["small-g"][1].script(), found["standard-g"][1].script()
    assert "--gpus-per-node=1\n" in shared and "--mem=60G\n" in shared and "--ntasks-per-node=1\n" in shared
    half = ("--partition=small-g\n", "--gpus-per-node=4\n", "--mem=240G\n", "--ntasks-per-node=4\n")
    assert all(option in beside_whole for option in half) and "--exclusive" not in beside_whole


def test_masks_leave_the_systems_cores_alone_and_share_none():
    """LUMI-G: the first core of every group of 8 is not for jobs; each process has the 7 others next to its die."""
    masks = [int(mask, 16) for mask in site.load_site("lumi").cpu_masks]
    assert len(masks) == 8
    cores = [[bit for bit in range(64) if mask >> bit & 1] for mask in masks]
    assert all(len(own) == 7 and len({core // 8 for core in own}) == 1 for own in cores)
    assert not {core for own in cores for core in own} & set(range(0, 64, 8))
    assert sum(masks) == int("fe" * 8, 16), "no core twice"


def test_only_on_whole_nodes_are_processes_bound_by_masks(place):
    for partition, bound in (("standard-g", True), ("small-g", False), (None, True)):
        resources = config.Resources(partition=partition, processes_per_node=2)
        jobs = specs.jobs(rundir.find("r"), config.Config(resources=resources), site.load_site("lumi"), ("train", "preflight"))
        assert ["P2P_CPU_MASKS" in job.script() for job in jobs] == [bound, bound]


def test_each_process_on_lumi_has_its_own_cache(tmp_path):
    """Rows 28, 29: MIOpen's database on a shared disk, or shared by processes; a variable that hangs the network.

    Seen: "database is locked"; or the first collective between nodes never ends (NCCL_NET_GDR_LEVEL, on images of 2026).
    Now: a folder made inside each task, on the node's own disk; the variable is left as it is found, unset.
    """
    environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", "P2P_ENVIRONMENT": str(site.HPC / "env" / "lumi.sh")}
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    found = []
    for rank in ("0", "1"):
        command = ["bash", str(site.HPC / "rank.sh"), sys.executable, "-c", program]
        done = subprocess.run(command, env={**environment, "SLURM_PROCID": rank}, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    folders = [each["MIOPEN_USER_DB_PATH"] for each in found]
    assert len(set(folders)) == 2 and all(folder.startswith("/tmp/") and Path(folder).is_dir() for folder in folders)
    for folder in folders:
        Path(folder).rmdir()
    assert found[0]["NCCL_SOCKET_IFNAME"] == "hsn0,hsn1,hsn2,hsn3" and "NCCL_NET_GDR_LEVEL" not in found[0]


IN_SCRIPTS = [
    ("account", lambda value: ({"account": value}, {})),
    ("$SBATCH_ACCOUNT", lambda value: os.environ.update(SBATCH_ACCOUNT=value) or ({}, {})),
    ("partition", lambda value: ({"partition": value}, {})),
    ("--container", lambda value: ({"container": f"/x{value}"}, {})),
    ("--overlay", lambda value: ({"container": "/x", "overlay": f"/x{value}"}, {})),
    ("path of the run", lambda value: rundir.RunDir(Path(f"/x{value}/r"))),
    *(
        (name, lambda value, name=name: ({}, {name: value}))
        for name in ("partition", "cpu_partition", "container", "environment")
    ),
    ("site's file", lambda value: ({"container": "/x"}, {"container_binds": [f"/x{value}"]})),
]


@pytest.mark.parametrize(("source", "use"), IN_SCRIPTS)
@pytest.mark.parametrize("character", ["\n", "\r", "\x1b", "\x85", "\u2028"])
def test_no_control_character_gets_into_a_job_script(character, source, use, monkeypatch):
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    found = use(f"a{character}touch /tmp/pwned")
    run, (resources, place) = (found, ({}, {})) if isinstance(found, rundir.RunDir) else (rundir.RunDir(Path("/x/r")), found)
    settings = config.Config(resources=config.Resources(**resources))
    with pytest.raises(ValueError, match=r"(has a|without) control character") as refused:
        specs.jobs(run, settings, dataclasses.replace(site.load_site("slurm"), **place))
    assert character not in str(refused.value)
    assert source in str(refused.value) or source in place
