"""Sites, read from their files."""

import json
import math
import shutil

import pytest
import yaml

from p2p_dist.jobs import site
from p2p_dist.settings import config
from tests.jobs.slurm.fake_slurm import cluster
from tests.jobs.submit_command import CHECKOUT, launch, place, scripts, songs

__all__ = ["cluster", "place"]


def test_images_that_are_not_there_are_named_before_anything_is_queued(tmp_path):
    place = site.load_site("lumi")
    with pytest.raises(ValueError, match=r"image /.+containers/p2p_dist.sif does not exist: build it \(see containers/R"):
        place.check_images(config.Resources())
    (tmp_path / "i.sif").touch()
    mine = config.Resources(container=str(tmp_path / "i.sif"))
    place.check_images(mine)
    with pytest.raises(ValueError, match=r"image /nowhere\.sqsh does not exist.*--overlay"):
        place.check_images(config.Resources(container=str(tmp_path / "i.sif"), overlay="/nowhere.sqsh"))
    with pytest.raises(ValueError, match="needs an image"):
        site.load_site("slurm").check_images(config.Resources(overlay=str(tmp_path / "i.sif")))
    file = tmp_path / "mine.yaml"
    file.write_text("container_binds: [scratch]\n")
    with pytest.raises(ValueError, match="must be an absolute path"):
        site.load_site("slurm", str(file))


def test_a_site_of_ones_own(place, tmp_path):
    """`--site FILE`: what it names is asked for, what it leaves out is as in slurm.yaml, its limits hold."""
    mine = tmp_path / "my site.yaml"
    mine.write_text(
        'partition: long\ngpus_per_node: 4\nevaluate_time: "4:00:00"\nlimits: {long: {time: "1:00:00", nodes: 3}}\n'
    )
    asked = (
        "--data",
        songs(place / "songs"),
        "--dry-run",
        "--site",
        str(mine),
        "--time",
        "60",
        "--train.global-batch-size",
        "48",
    )
    found = scripts(launch(*asked, "--cluster", "slurm", "--nodes", "3").stdout)
    script = found["train"]
    assert "#SBATCH --time=60\n" in found["evaluate"], "what the partition gives: it goes on where it was"
    for line in ("--partition=long", "--gpus-per-node=4", "--ntasks-per-node=4", "--cpus-per-task=2"):
        assert f"#SBATCH {line}\n" in script
    long = "--time asks for 1.02 hours, long allows at most 1:00:00"
    for more, said in ((("--time", "61"), long), (("--nodes", "4"), "at most 3")):
        refused = launch(*asked, "--cluster", "slurm", *more)
        assert refused.returncode == 2 and said in refused.stderr, refused.stderr
    assert site.load_site("local", str(mine)).processes_per_node(config.Resources()) == 4
    assert site.load_site("local").processes_per_node(config.Resources()) == 1


def test_a_site_file_with_a_mistake_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "HPC", tmp_path)
    (tmp_path / "sites").mkdir()
    shutil.copy(CHECKOUT / "hpc" / "sites" / "slurm.yaml", tmp_path / "sites" / "mine.yaml")
    good = yaml.safe_load((tmp_path / "sites" / "mine.yaml").read_text())
    changes = [
        ({"gpus": 8}, "gpus"),
        ({"evaluate_time": [7200]}, "evaluate_time must be text, not .7200."),
        ({"limits": {"a": {"hours": 3}}}, "unknown setting limits.a.hours; there are time, nodes, jobs"),
    ]
    changes += [
        ({"limits": None}, "mine.yaml: limits must be a list of names and values"),
        ({"whole_nodes": "a"}, "whole_nodes must be a list"),
    ]
    changes += [
        ({"gpus_per_node": "8"}, "gpus_per_node must be a whole number without quotes, not '8'"),
        ({"requeue": "no"}, "true or false"),
    ]
    changes += [
        ({"gpu_hours_per_node_hour": "x"}, "gpu_hours_per_node_hour must be a number"),
        ({"limits": {"a": {"nodes": "4"}}}, "limits.a.nodes must be a whole number without quotes, not '4'"),
    ]
    changes += [({name: 0}, f"mine.yaml: {name} must be greater than 0") for name in ("cores_per_process", "preprocess_cores")]
    changes += [
        ({"evaluate_processes": 0}, "mine.yaml: evaluate_processes must be greater than 0"),
        ({"partition": ""}, "partition must be non-empty text without control characters, not ''"),
        ({"partition": "a\0b"}, r"partition must be non-empty text without control characters, not 'a\\x00b'"),
    ]
    changes += [
        ({"gpu_hours_per_gpu_hour": math.inf}, "gpu_hours_per_gpu_hour must be from 0 to 1e9, not inf"),
        ({"memory_per_node": "much"}, "480G"),
        ({"preprocess_memory": "8G\n#SBATCH --partition=b"}, "480G"),
    ]
    changes += [
        ({"cpu_masks": ["hello"]}, "cpu_masks must be the cores of a process, as 0xfe00, not 'hello'"),
        ({"limits": {"a": {"nodes": 0}}}, "limits.a.nodes must be greater than 0"),
    ]
    changes += [
        ({"evaluate_time": "soon"}, "mine.yaml: evaluate_time must be .*1:30:00.* not 'soon'"),
        ({"environment": "no.sh"}, "there is no such file in"),
    ]
    mapping = "must be a list of names and values, or {} for none, not"
    changes += [
        ({"limits": {"a": {"time": None}}}, r"mine.yaml: limits\.a\.time must not be null: give a value, or omit it$"),
        ({"limits": {"a": {"jobs": None}}}, r"mine.yaml: limits\.a\.jobs must not be null"),
        ({"limits": {"a": 3}}, rf"mine.yaml: limits\.a {mapping} 3; the names are time, nodes, jobs$"),
        ({"limits": {"a": None}}, rf"limits\.a {mapping} null; the names are time"),
        ({"limits": {"a": {"nodes": 2.5}}}, r"limits\.a\.nodes must be a whole number, not 2\.5$"),
        ({"limits": {"a": {"nodes": True}}}, r"limits\.a\.nodes must be a whole number, not true$"),
        ({"cpu_masks": []}, "each process needs one .null: bind no cores"),
        ({"cpu_masks": [None]}, "cpu_masks must be text, not null"),
        ({"memory_per_node": "1٣G"}, "480G"),
    ]
    for change, said in (*changes, ({"limits": {"a": {"time": "soon"}}}, "mine.yaml: limits.a.time must be .*1:30:00")):
        (tmp_path / "sites" / "mine.yaml").write_text(json.dumps({**good, **change}).replace("Infinity", ".inf"))
        with pytest.raises(ValueError, match=said):
            site.load_site("mine")
    (tmp_path / "sites" / "mine.yaml").write_text("limits: {small")
    with pytest.raises(ValueError, match="not readable as YAML"):
        site.load_site("mine")
    with pytest.raises(ValueError, match="no site other"):
        site.load_site("other")


def test_a_site_file_is_read_as_it_is_written(tmp_path):
    """Without quotes too: a time is no number of base 60, `no` no name of a partition's, digits may name an account."""
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "partition: no\ncpu_partition: 010\nevaluate_time: 2:00:00\npreprocess_time: 90\nrequeue: no\nneeds_account: yes\n"
        "container_binds: [/a, /1:/2]\nlimits: {on: {time: 12:30:00, nodes: 4}}\n"
    )
    read = site.load_site("slurm", str(mine))
    assert (read.partition, read.cpu_partition, read.requeue, read.needs_account) == ("no", "010", False, True)
    assert (read.evaluate_time, read.preprocess_time) == ("2:00:00", "90")
    assert read.limits == {"on": site.Limit("12:30:00", nodes=4)} and read.container_binds == ["/a", "/1:/2"]
    mine.write_text("partition: a\nlimits: {a: {nodes: 3,\n nodes: 4}}\n")
    with pytest.raises(ValueError, match=r"mine\.yaml is not readable as YAML: line 3: nodes is set more than once"):
        site.load_site("slurm", str(mine))


def test_lumi_is_known_by_its_name(cluster):
    assert site.resolve_cluster("auto") == "slurm"
    cluster.call("lumi")
    assert site.resolve_cluster("auto") == "lumi" and site.resolve_cluster("slurm") == "slurm"
    (cluster.place / "refuses").touch()
    assert site.resolve_cluster("auto") == "slurm" and site.has_slurm(), "its controller does not answer"
