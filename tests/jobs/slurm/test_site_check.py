"""A site's file beside what Slurm says on the spot."""

import pytest

from p2p_dist.common import console
from p2p_dist.jobs import site
from p2p_dist.jobs.slurm import site_check
from tests.jobs import submit_command
from tests.jobs.slurm.fake_slurm import cluster, site_file
from tests.jobs.submit_command import place

__all__ = ["cluster", "place", "site_file"]

PARTITIONS = """
PartitionName=long AllowQos=ALL MaxNodes=64 MaxTime=2-00:00:00 MinNodes=0 DefaultTime=01:00:00 State=UP
PartitionName=batch MaxNodes=UNLIMITED MaxTime=12:00:00 MinNodes=1 DefaultTime=NONE
PartitionName=large MaxNodes=256 MaxTime=UNLIMITED MinNodes=65 DefaultTime=NONE
PartitionName=thin MaxNodes=4 MaxTime=5-00:00:00 MinNodes=0 DefaultTime=NONE QoS=slow
"""
QOS = """normal||||
slow|3-00:00:00|||
short|00:30:00|gres/gpu=8,node=2||5|3
big|1-00:00:00|node=256|cpu=1,node=65|"""
GPUS = """long gpu:a100:4(S:0-1)
long (null)
batch gpu:8
large gpu:a100:4,nvme:1
thin (null)"""

GOOD = """
tiers:
  - {partition: long, time: "2-00:00:00", default_time: "1:00:00", nodes: 64}
  - {kind: test, partition: long, qos: short, time: "0:30:00", nodes: 2, gpus: 8, jobs: 5, running: 3}
  - {partition: large, qos: big, time: "24:00:00", least_nodes: 65, nodes: 256}
  - {kind: cpu, partition: thin, time: "3-00:00:00", nodes: 4}
gpus_per_node: 4
"""


@pytest.fixture
def slurm(cluster):
    for name, text in (("scontrol", PARTITIONS), ("sacctmgr", QOS), ("sinfo", GPUS)):
        (cluster.place / f"{name}.said").write_text(text)
        (cluster.place / name).write_text(f"#!/bin/sh\ncat {cluster.place}/{name}.said\n")
        (cluster.place / name).chmod(0o755)
    return cluster


def differences(site_file, *change, text=GOOD):
    assert not change or change[0] in text
    return site_check.compare(site.load_site("slurm", site_file(text.replace(*change) if change else text)))


def test_a_file_that_agrees(slurm, site_file):
    assert differences(site_file) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        *(
            (
                'long, time: "2-00',
                f'long, time: "{days}-00',
                f"tiers.1 (long): time is {days}-00:00:00, Slurm allows 2-00:00:00",
            )
            for days in (1, 3)
        ),
        ("nodes: 64}", "nodes: 65}", "tiers.1 (long): nodes is 65, Slurm allows 64"),
        (", nodes: 64}", "}", "tiers.1 (long): nodes is not in the file, Slurm allows 64"),
        ('default_time: "1:00:00"', 'default_time: "2:00:00"', "tiers.1 (long): default_time is 2:00:00, Slurm's is 1:00:00"),
        ("gpus: 8, ", "gpus: 9, ", "tiers.2 (short): gpus is 9, Slurm allows 8"),
        ("jobs: 5", "jobs: 4", "tiers.2 (short): jobs is 4, Slurm allows 5"),
        ("running: 3", "running: 4", "tiers.2 (short): running is 4, Slurm allows 3"),
        (", running: 3", "", "tiers.2 (short): running is not in the file, Slurm allows 3"),
        ('time: "0:30:00"', 'time: "0:31:00"', "tiers.2 (short): time is 0:31:00, Slurm allows 0:30:00"),
        ("least_nodes: 65", "least_nodes: 64", "tiers.3 (big): least_nodes is 64, Slurm wants at least 65"),
        ("qos: big", "qos: huge", "tiers.3 (huge): there is no QoS huge; there are big, normal, short, slow"),
        ("partition: thin", "partition: fat", "tiers.4 (fat): there is no partition fat; there are batch, large, long, thin"),
    ],
)
def test_each_difference_is_named(old, new, said, slurm, site_file):
    assert differences(site_file, old, new) == [said]


def test_gpus_of_a_node_are_compared(slurm, site_file):
    named = enumerate(("long", "short", "big"), 1)
    said = [f"tiers.{number} ({name}): gpus_per_node is 8, its nodes have 4" for number, name in named]
    assert differences(site_file, "gpus_per_node: 4", "gpus_per_node: 8") == said


def test_a_time_that_depends_on_nodes_is_no_difference(slurm, site_file):
    batch = 'tiers: [{partition: batch, time: "2:00:00", nodes: 91}, {partition: batch, time: "12:00:00", least_nodes: 92}]'
    frontier = batch + "\ngpus_per_node: 8\n"
    assert differences(site_file, text=frontier) == []
    longer = frontier.replace("2:00:00", "12:01:00", 1)
    assert differences(site_file, text=longer) == ["tiers.1 (batch): time is 12:01:00, Slurm allows 12:00:00"]


def test_a_file_with_limits_of_partitions_is_compared_too(slurm, site_file):
    text = "partition: long\ncpu_partition: gone\nlimits: {long: {time: '48:00:00', nodes: 80}}\ngpus_per_node: 4\n"
    assert differences(site_file, text=text) == [
        "the partition long: nodes is 80, Slurm allows 64",
        "the partition gone: there is no partition gone; there are batch, large, long, thin",
    ]


def test_the_command(slurm, site_file, tmp_path):
    def typed(*words):
        return submit_command.launch("check", *words, command="site")

    good = typed(site_file(GOOD))
    assert good.returncode == console.DONE and "agrees with this cluster" in good.stdout, good.stderr
    bad = typed(site_file(GOOD.replace("nodes: 64", "nodes: 65")))
    assert bad.returncode == console.FAILED and "differs: tiers.1 (long): nodes is 65" in bad.stdout
    assert "1 difference from this cluster" in bad.stderr
    ready = typed("frontier")
    assert ready.returncode == console.FAILED and "there is no partition extended" in ready.stdout
    for words, said in ((("nowhere.yaml",), "nowhere.yaml is neither a file nor the name of a site"), ((), "FILE")):
        refused = typed(*words)
        assert refused.returncode == console.USAGE and said in refused.stderr
    (slurm.place / "scontrol").write_text("#!/bin/sh\necho 'slurm_load: Unable to contact' >&2; exit 1\n")
    away = typed(site_file(GOOD))
    assert away.returncode == console.USAGE and "scontrol answers: slurm_load: Unable to contact" in away.stderr
    (slurm.place / "scontrol").unlink()
