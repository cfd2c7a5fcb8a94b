"""Every file in hpc/sites by the real Slurm, with the partitions, QoS, features and GPU types of its cluster."""

import dataclasses
import os
from typing import get_args

from clusters import Clusters

from p2p_dist.jobs import site
from p2p_dist.jobs.slurm import sbatch, site_check, specs
from p2p_dist.run import rundir
from p2p_dist.settings import config
from p2p_dist.settings.resources import Cluster

TIERS = {
    # name: (nodes, time, GPUs of a node, tier) of trainings as large and as long as a tier takes
    "lumi": [(1024, "2-00:00:00", 8, "standard-g"), (4, "3-00:00:00", 8, "small-g")],
    "frontier": [
        (91, "2:00:00", 8, "batch"),
        (183, "6:00:00", 8, "batch"),
        (184, "12:00:00", 8, "batch"),
        (64, "24:00:00", 8, "extended"),
    ],
    "leonardo": [
        (64, "24:00:00", 4, "boost_usr_prod"),
        (256, "24:00:00", 4, "boost_qos_bprod"),
        (3, "4-00:00:00", 4, "boost_qos_lprod"),
    ],
    "marenostrum5": [(100, "72:00:00", 4, "acc_ehpc")],
    "juwels_booster": [(256, "24:00:00", 4, "booster")],
    "perlmutter": [(2, "48:00:00", 4, "regular")],
    "karolina": [(16, "48:00:00", 8, "qgpu"), (17, "48:00:00", 8, "qgpu_big")],
    "snellius": [(88, "120:00:00", 4, "gpu_h100")],
    "daint": [(64, "24:00:00", 4, "normal")],
    "jean_zay": [(128, "20:00:00", 4, "qos_gpu_h100-t3"), (16, "100:00:00", 4, "qos_gpu_h100-t4")],
    "roihu": [(1, "36:00:00", 4, "gpumedium"), (4, "36:00:00", 1, "gpumedium"), (10, "36:00:00", 4, "gpularge")],
    "jupiter": [(128, "12:00:00", 4, "booster")],
}
TESTS = {
    # name: (nodes, time, tier) of the longest check
    "lumi": (32, "3:00:00", "dev-g"),
    "leonardo": (2, "0:30:00", "boost_qos_dbg"),
    "marenostrum5": (8, "2:00:00", "acc_debug"),
    "juwels_booster": (2, "2:00:00", "develbooster"),
    "perlmutter": (8, "0:30:00", "debug"),
    "karolina": (8, "1:00:00", "qgpu_exp"),
    "daint": (2, "0:30:00", "debug"),
    "jean_zay": (8, "2:00:00", "qos_gpu_h100-dev"),
    "roihu": (2, "0:15:00", "gputest"),
    "snellius": (1, "0:10:00", "gpu_h100"),
    "jupiter": (1, "0:10:00", "booster"),
    "frontier": (1, "0:30:00", "debug"),
}
SECOND = ("roihu", "jupiter")
NO_LIMIT_IN_SLURM = {("frontier", "2:00:00"), ("frontier", "6:00:00")}
NO_LIMIT_IN_SLURM |= {("snellius", "0:10:00"), ("jupiter", "0:10:00")}
"""Checks and trainings that Slurm would take for longer: the file, or nobody, sets a limit."""

DIFFERENCES = {
    "frontier": [
        "tiers.2 (debug): time is 2:00:00, Slurm allows 0:30:00",
        "tiers.2 (debug): nodes is not in the file, Slurm allows 8",
        "tiers.2 (debug): jobs is 1, Slurm allows 5",
    ]
}
"""Of the files from this Slurm, in which the QoS debug is Perlmutter's."""

WRONG = {
    "frontier": ("{partition: batch", "{partition: batched"),
    "leonardo": ("494000M", "514000M"),
    "roihu": ("gpu:gh200:{gpus}", "gpu:a100:{gpus}"),
    "marenostrum5": ("qos: acc_ehpc", "qos: acc_debug, jobs: 1"),
    "perlmutter": ("constraint: gpu,", "constraint: gpus,"),
    "jean_zay": ("{account}@h100", "{account}@a100"),
    "karolina": ("cores_per_process: 16", "cores_per_process: 17"),
    "daint": ("cores_per_process: 72", "cores_per_process: 73"),
    "lumi": ("gpus_per_node: 8", "gpus_per_node: 9"),
}
"""A change of a file that its cluster must refuse."""


def jobs(place, stages, **resources):
    settings = config.Config(resources=config.Resources(account="abc", **resources))
    return specs.jobs(rundir.find("sites"), settings, place, stages)


def is_refused(job):
    try:
        sbatch.check(job)
    except ValueError:
        return True
    return False


def drive(name, folder):
    """Have Slurm look at each job that the file of a cluster makes; what is wrong, in words."""
    place, wrong = site.load_site(name), []
    asked = [("train", *one) for one in TIERS[name]] + [("preflight", *TESTS[name][:2], None, TESTS[name][2])]
    for stage, nodes, time, per_node, tier in asked:
        (job,) = jobs(place, (stage,), nodes=nodes, time=time, processes_per_node=per_node)
        assert job.tier.name == tier, (name, nodes, time, job.tier.name)
        sbatch.check(job)
        longer = dataclasses.replace(job, options={**job.options, "time": job.options["time"] + 1})
        if is_refused(longer) == ((name, time) in NO_LIMIT_IN_SLURM):
            wrong.append(f"{name}: {tier} for {time} and a minute")
    # `sbatch.check` raises an error that names the option.
    for job in jobs(place, ("evaluate", "page", "generate", *(() if place.has_other_cpu_nodes else ("preprocess",)))):
        sbatch.check(job)
    if (differences := site_check.compare(place)) != DIFFERENCES.get(name, []):
        wrong.append(f"{name}: {differences}")
    if name in WRONG:
        text = (site.HPC / "sites" / f"{name}.yaml").read_text()
        assert WRONG[name][0] in text
        changed = folder / f"{name}.yaml"
        masks = ', "0xff"]' if name == "lumi" else "]"
        changed.write_text(text.replace(*WRONG[name]).replace('"0xfe0000000000"]', f'"0xfe0000000000"{masks}'))
        nodes, time, per_node, _ = TIERS[name][0]
        (job,) = jobs(site.load_site(name, str(changed)), ("train",), nodes=nodes, time=time)
        if not is_refused(job):
            wrong.append(f"{name} with {WRONG[name][1]} was not refused")
    return wrong


def test_slurm_takes_every_job_of_every_site(tmp_path, monkeypatch):
    """Tiers at their limits, checks, CPU jobs, typed GPUs, QoS, features, projects by kind of node.

    If it failed: the first job on a cluster is refused, or waits for ever, and only there.
    """
    assert set(TIERS) == set(TESTS) == set(get_args(Cluster)) - {"auto", "local", "slurm"}
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SLURM_CONF", "")  # put back at the end
    lab = Clusters()
    try:
        lab.up()
        assert (site.name_in_slurm(), site.resolve_cluster("auto")) == ("lab", "slurm")
        wrong = [text for name in TIERS if name not in SECOND for text in drive(name, tmp_path)]
        lab.switch()
        wrong += [text for name in SECOND for text in drive(name, tmp_path)]
        assert wrong == []
    finally:
        lab.down()
