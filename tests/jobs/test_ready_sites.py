"""The files of known clusters in hpc/sites, without Slurm; tests/slurm/test_sites.py has Slurm look at their jobs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from p2p_dist.jobs import site
from p2p_dist.jobs.slurm import specs
from p2p_dist.run import rundir
from p2p_dist.settings import config
from p2p_dist.settings.resources import Cluster
from tests.jobs.slurm.fake_slurm import cluster
from tests.jobs.submit_command import launch, place, songs

__all__ = ["cluster", "place"]

NAMES = [name for name in get_args(Cluster) if name not in ("auto", "local", "slurm")]


def script(name, stage="train", **resources):
    """Lines of a job."""
    settings = config.Config(resources=config.Resources(account="abc", **{"time": "2:00:00"} | resources))
    (job,) = specs.jobs(rundir.RunDir(Path("/runs/r")), settings, site.load_site(name), (stage,))
    return job.script().splitlines()


def options(*arguments, **more):
    return {line.removeprefix("#SBATCH ") for line in script(*arguments, **more) if line.startswith("#SBATCH ")}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_names_its_sources_and_has_what_a_training_needs(name):
    found = site.load_site(name)
    assert found.source and found.checked is None, "nobody has tried it on its cluster"
    assert found.architecture and found.scratch and found.tiers and found.gpus_per_node in (4, 8)
    assert found.cores_per_node == found.gpus_per_node * found.cores_per_process
    assert found.cpu_cluster or any(tier.kind == "cpu" for tier in found.tiers)
    assert all(tier.time or tier.qos == "shared" for tier in found.tiers if tier.kind != "test")
    text = (site.HPC / "sites" / f"{name}.yaml").read_text()
    assert ("†" in text) == (name not in ("lumi", "roihu", "daint", "frontier")), "what only third parties say is marked"
    whole = [tier.name for tier in found.tiers if found.is_whole(tier)]
    assert (found.gpu_hours_per_node_hour > 0) == bool(whole)


def test_every_file_is_of_a_known_cluster_or_machine():
    assert {path.stem for path in (site.HPC / "sites").glob("*.yaml")} == {*NAMES, "local", "slurm", "h100_box"}


@pytest.mark.parametrize("name", NAMES)
def test_a_cluster_is_known_by_its_name_in_slurm(name, cluster):
    for spelled in (name, name.upper(), name.replace("_", "-")):
        cluster.call(spelled)
        assert site.resolve_cluster("auto") == name
    for other in ("local", "auto", "(null)", "leonardo2"):
        cluster.call(other)
        assert site.resolve_cluster("auto") == "slurm"


def test_what_each_cluster_needs():
    """One thing of each that a job there is refused or slow without."""
    assert {"--gres=gpu:4", "--mem=494000M", "--cpus-per-task=8"} <= options("leonardo")
    assert {"--qos=boost_qos_lprod"} <= options("leonardo", time="48:00:00")
    assert {"--gres=gpu:gh200:4", "--partition=gpularge"} <= options("roihu", nodes=2)
    assert {"--gres=gpu:gh200:1", "--partition=gpumedium"} <= options("roihu", "page")
    for stage in ("preprocess", "train", "evaluate", "page"):
        there = options("marenostrum5", stage)
        assert not [line for line in there if line.startswith("--mem")] and [
            line for line in there if line.startswith("--qos=")
        ]
        assert "--hint=nomultithread" in options("jean_zay", stage)
    assert {"--account=abc@h100", "--constraint=h100", "--gres=gpu:4", "--qos=qos_gpu_h100-t3"} <= options("jean_zay")
    assert "--account=abc@cpu" in options("jean_zay", "preprocess")
    assert {"--constraint=gpu", "--qos=regular", "--gpu-bind=none", "--cpus-per-task=32"} <= options("perlmutter")
    assert {"--constraint=cpu", "--qos=shared"} <= options("perlmutter", "preprocess")
    assert not [line for line in options("perlmutter") | options("jean_zay") if line.startswith("--partition")]
    for name in ("frontier", "daint"):
        assert "--exclusive" in options(name) and not [line for line in options(name) if line.startswith(("--gpus", "--gres"))]
    assert "export P2P_SRUN=--gpus-per-node=8" in script("frontier") and "export P2P_RENDEZVOUS=ipv4:" in script("frontier")
    assert "export P2P_RENDEZVOUS=ipv4:i" in script("juwels_booster") and "export P2P_RENDEZVOUS=ipv4:" in script("jupiter")
    assert "--threads-per-core=1" in options("juwels_booster") and "--partition=booster" in options("jupiter", "preprocess")
    assert {"--partition=qgpu_big", "--gpus-per-node=8"} <= options("karolina", nodes=17)
    assert {"--partition=gpu_h100", "--gpus-per-node=4", "--cpus-per-task=16"} <= options("snellius", time="120:00:00")
    assert {"--partition=dev-g", "--exclusive"} <= options("lumi", "preflight")
    assert {"--partition=small-g", "--gpus-per-node=1"} <= options("lumi", "generate"), "a whole node would be billed"
    elsewhere = [name for name in NAMES if site.load_site(name).has_other_cpu_nodes]
    assert elsewhere == ["frontier", "roihu", "juwels_booster", "daint"]


def test_what_is_billed_in_the_units_of_the_site():
    """A GPU node for an hour: clusters that count cores, nodes or units of their own."""
    billed = {"leonardo": 32, "roihu": 800, "marenostrum5": 80, "juwels_booster": 48, "jupiter": 288, "snellius": 768}
    billed |= {"perlmutter": 1, "karolina": 1, "daint": 1, "frontier": 1, "jean_zay": 4, "lumi": 4}
    assert billed.keys() == set(NAMES)
    for name, units in billed.items():
        found = site.load_site(name)
        whole = found.takes_whole_nodes("train", config.Resources(time="1:00:00"))
        assert found.gpu_hours(1, 1, found.gpus_per_node, whole=whole) * found.billing_per_gpu_hour == units, name


EVALUATION = {
    # name: (tier, GPUs that are billed for an evaluation, of how many of a node)
    "lumi": ("small-g", 4, 8),
    "perlmutter": ("shared", 2, 4),
    "karolina": ("qgpu", 4, 8),
    "leonardo": ("boost_usr_prod", 2, 4),
    "roihu": ("gpumedium", 2, 4),
    "marenostrum5": ("acc_ehpc", 2, 4),
    "snellius": ("gpu_h100", 2, 4),
    "jean_zay": ("qos_gpu_h100-t3", 2, 4),
    # These give out whole nodes only, so all GPUs evaluate.
    "frontier": ("batch", 8, 8),
    "juwels_booster": ("booster", 4, 4),
    "jupiter": ("booster", 4, 4),
    "daint": ("normal", 4, 4),
}


def test_an_evaluation_asks_for_half_a_node_where_a_site_gives_out_parts():
    assert EVALUATION.keys() == set(NAMES)
    for name, (tier, gpus, of) in EVALUATION.items():
        place, settings = site.load_site(name), config.Config(resources=config.Resources(account="abc", time="2:00:00"))
        evaluate, page = specs.jobs(rundir.RunDir(Path("/runs/r")), settings, place, ("evaluate", "page"))
        assert (evaluate.tier.name, evaluate.gpus, place.gpus_per_node) == (tier, gpus, of), name
        assert evaluate.options["ntasks-per-node"] == gpus and place.is_whole(evaluate.tier) == (gpus == of), name
        assert page.gpus <= 1 and (page.tier.kind == "cpu") == (not place.has_other_cpu_nodes), name
    assert "--mem=240G" in options("lumi", "evaluate"), "more than 64 GB a die would be billed as a further die"
    for named in ("standard-g", None):  # the partition of the training
        assert "--partition=small-g" in options("lumi", "evaluate", partition=named)
    assert "--partition=dev-g" in options("lumi", "evaluate", partition="dev-g")
    assert {"--qos=shared", "--gpus-per-node=1", "--constraint=gpu"} <= options(
        "perlmutter", partition="shared", processes_per_node=1
    )


def test_the_dry_run_shows_where_the_evaluation_runs_and_what_it_is_billed(place):
    lumi = ("--cluster", "lumi", "--container", str(place / "image.sif"), "--account", "abc", "--max-requeues", "0")
    (place / "image.sif").touch()
    done = launch("--data", songs(place / "songs"), *lumi, "--dry-run")
    assert "# evaluate: to do, in small-g (1-4 nodes, at most 3-00:00:00)\n" in done.stdout, done.stderr
    assert "#   evaluate: 24.0 (1 start of 24.0)\n" in done.stdout, "12 hours of half a node"


def test_the_dry_run_of_a_site_that_nobody_has_tried_says_how_to_try_it(place):
    done = launch("--data", songs(place / "songs"), "--cluster", "roihu", "--nodes", "2", "--time", "36:00:00", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert (
        "# note: nobody has tried hpc/sites/roihu.yaml on its cluster yet; its figures are from CSC's user guide" in done.stdout
    )
    assert (
        "#   python launch/check.py preflight --cluster roihu --account PROJECT\n#   sbatch --test-only train.sh" in done.stdout
    )
    assert "log in to a login node with x86_64 processors" in done.stdout
    assert "# train: to do, in gpularge (1-10 nodes, at least 4 GPUs, at most 36:00:00), which is the first" in done.stdout
    assert "not in gpumedium: 1-4 nodes, at most 4 GPUs, at most 36:00:00\n" in done.stdout
    longer = ("--data", str(place / "songs"), "--cluster", "frontier", "--nodes", "2", "--dry-run", "--time")
    assert (
        "# train: to do, in extended (1-64 nodes, at most 24:00:00), which is the first" in launch(*longer, "24:00:00").stdout
    )
    refused = launch(*longer, "25:00:00")
    assert refused.returncode == 2 and "--time asks for 25 hours, extended allows at most 24:00:00" in refused.stderr
    assert "(extended comes nearest; batch: 1-91 nodes, at most 2:00:00; batch: 92-183 nodes" in refused.stderr


def test_a_machine_without_slurm(place):
    file = str(site.HPC / "sites" / "h100_box.yaml")
    assert site.load_site("local", file).processes_per_node(config.Resources()) == 8
    done = launch("--data", songs(place / "songs"), "--cluster", "local", "--site", file, "--dry-run", "--preset", "tiny")
    assert "8 processes" in done.stderr, "on a machine with fewer cores, or a batch of 4"


def test_each_process_on_frontier_has_its_own_cache(tmp_path):
    program = "import os; print(os.environ['MIOPEN_USER_DB_PATH'], os.environ['MIOPEN_CUSTOM_CACHE_DIR'])"
    environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", "SLURM_PROCID": "1"}
    environment |= {"P2P_ENVIRONMENT": str(site.HPC / "env" / "miopen.sh")}
    command = ["bash", str(site.HPC / "rank.sh"), sys.executable, "-c", program]
    said = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout for _ in "ab"]
    first, second = (text.split() for text in said)
    assert first[0] == first[1] and first != second and Path(first[0]).is_dir() and first[0].startswith("/tmp/miopen-7-1-")
    for folder in (first[0], second[0]):
        Path(folder).rmdir()


@pytest.mark.parametrize("name", ["miopen", "lumi"])
def test_a_check_of_packages_outside_a_job_leaves_no_cache(name):
    """Of each launch one would stay in /tmp of the login node."""
    program = "import os; print('MIOPEN_USER_DB_PATH' in os.environ)"
    environment = {"PATH": os.environ["PATH"], "P2P_ENVIRONMENT": str(site.HPC / "env" / f"{name}.sh")}
    command = ["bash", str(site.HPC / "rank.sh"), sys.executable, "-c", program]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "False\n"
