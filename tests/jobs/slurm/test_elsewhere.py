"""Shards that no job of this cluster can make, and what a dry run says of a site."""

import dataclasses
import platform
import re
import shlex

import pytest

from p2p_dist.cli import preprocess
from p2p_dist.data import dataset as datasets
from p2p_dist.jobs.slurm import elsewhere
from p2p_dist.run import rundir
from p2p_dist.settings import presets
from tests.jobs import submit_command
from tests.jobs.slurm.fake_slurm import cluster, launch, site_file
from tests.jobs.submit_command import place, songs
from tests.slurm.lab import lay_out_shards

__all__ = ["cluster", "launch", "place", "site_file"]

HERE = platform.machine()
OTHER = "aarch64" if HERE == "x86_64" else "x86_64"
TIERS = "tiers: [{partition: batch, time: '2:00:00', nodes: 91}, {partition: batch, least_nodes: 92, time: '6:00:00'}]\n"
ON_ANDES = (
    TIERS + "cpu_cluster: andes\ngpus_per_node: 4\nneeds_account: true\nwhole_nodes: [batch]\ngpu_hours_per_node_hour: 4\n"
)
ON_ARM = TIERS + f"architecture: {HERE}\ncpu_architecture: {OTHER}\n"
SHORT = ("--time", "2:00:00", "--account", "abc")


def test_it_is_said_before_anything_is_queued_and_as_commands(cluster, launch, site_file, tmp_path):
    """JUWELS, Daint and Frontier have their CPU nodes in another cluster; Roihu's GPU and CPU nodes need other programs."""
    for text, where, there in ((ON_ANDES, "the cluster andes", False), (ON_ARM, f"a login node with {OTHER}", True)):
        with pytest.raises(ValueError, match="no job of this cluster can make them: log in to") as said:
            launch("--site", site_file(text), *SHORT, "--data.silent-share", "0.5", "--data.channels", "mid-side")
        assert where in str(said.value) and str(said.value).endswith("; nothing was queued")
        typed = str(said.value).splitlines()[1].strip()
        runs, *words = shlex.split(typed)
        assert runs == f"P2P_RUNS={tmp_path}/work/runs" and words[:2] == ["python", "launch/preprocess.py"]
        made, tasks = preprocess.parse(words[2:])
        assert tasks == ["drums"] and made.data.silent_share == 0.5 and made.data.channels == "mid-side"
        assert made.data.root == str(tmp_path / "songs") and made.where.account == "abc" and made.where.cluster == "slurm"
        assert (made.where.site is not None) == there, "another cluster is not this site"
        assert cluster.queued() == [] and not (tmp_path / "work").exists()
    assert "--partition batch" not in str(said.value), "of its processors there is no other use"


def test_the_command_makes_the_shards_that_the_run_looks_for(place):
    """With every setting of the data that differs from the preset's."""
    changed = {"data.root": str(place), "data.mels": 64, "data.window_hop": 64, "data.split_by_title": True}
    settings = presets.with_values(presets.preset("plain"), {**changed, "data.task": "bass"})
    words = shlex.split(elsewhere.command(settings))
    found, tasks = preprocess.parse(words[3:])
    assert words[0] == f"P2P_RUNS={place}/runs" and tasks == ["bass"]
    assert dataclasses.replace(found.data, task="bass") == settings.data


def test_gpu_nodes_make_them_where_that_is_asked_for(cluster, launch, site_file, tmp_path):
    mine = site_file(ON_ANDES)
    asked = ["--data", str(tmp_path / "songs"), "--cluster", "slurm", "--site", mine, "--account", "abc", "--array", "1"]
    with pytest.raises(ValueError, match=r"log in to the cluster andes(.|\n)*nothing was queued"):
        preprocess.main(asked)
    assert cluster.queued() == []
    with pytest.raises(ValueError, match="To make them on GPU nodes instead, at the price of GPU nodes") as said:
        launch("--site", mine, *SHORT)
    typed = str(said.value).removesuffix("; nothing was queued").splitlines()[-1].strip()
    assert preprocess.main(shlex.split(typed)[3:]) == 0
    script = next(cluster.place.glob("script-*")).read_text()
    assert "#SBATCH --partition=batch\n" in script and "#SBATCH --time=120\n" in script and "--gpus" not in script


def test_they_go_to_a_tier_that_takes_as_many_jobs_as_preprocessing_has(cluster, launch, site_file):
    """If it failed: a training of 24 hours goes to a tier of at most 2 jobs, and the command would be refused."""
    text = ON_ANDES.replace("}]", "}, {partition: extended, time: '1-00:00:00', jobs: 2}]").replace(
        "[batch]", "[batch, extended]"
    )
    with pytest.raises(ValueError, match="To make them on GPU nodes instead") as said:
        launch("--site", site_file(text), "--time", "1-00:00:00", "--account", "abc")
    typed = str(said.value).removesuffix("; nothing was queued").splitlines()[-1].strip()
    assert preprocess.main(shlex.split(typed)[3:]) == 0
    assert "#SBATCH --partition=batch\n" in next(cluster.place.glob("script-*")).read_text()


def test_where_no_tiers_are_listed_they_go_to_the_partition_of_the_training(cluster, launch, site_file):
    with pytest.raises(ValueError, match="To make them on GPU nodes instead") as said:
        launch("--site", site_file(ON_ANDES.replace(TIERS, "partition: batch\n")), *SHORT)
    assert "--partition batch" in str(said.value).splitlines()[-1]


def test_once_the_shards_are_there_the_rest_is_queued(cluster, launch, site_file, tmp_path):
    data = dataclasses.replace(presets.preset("tiny").data, root=str(tmp_path / "songs"))
    lay_out_shards(tmp_path / "work" / "shards" / datasets.dataset_name(tmp_path / "songs", data))
    assert launch("--site", site_file(ON_ANDES), *SHORT, "--run", "r") == 0
    assert [stage for _, stage, _ in cluster.queued()] == ["train", "evaluate", "page"]
    scripts = [path.read_text() for path in cluster.place.glob("script-*")]
    assert all("#SBATCH --partition=batch\n" in script for script in scripts), "the page too"


def test_the_launchers_python_must_run_on_the_nodes(cluster, launch, site_file, tmp_path):
    mine = site_file(TIERS + f"architecture: {OTHER}\n")
    said = f"the nodes have {OTHER} processors, and this machine {HERE}: .*login node with {OTHER}"
    with pytest.raises(ValueError, match=said):
        launch("--site", mine, *SHORT)
    with pytest.raises(ValueError, match=said):
        preprocess.main(["--data", str(tmp_path / "songs"), "--cluster", "slurm", "--site", site_file(ON_ARM, "arm")])
    assert cluster.queued() == []
    (tmp_path / "i.sif").touch()
    image = ("--container", str(tmp_path / "i.sif"))
    assert launch("--site", mine, *SHORT, *image) == 0, "the image has its own"


UNTRIED = ON_ANDES + "source: the user guide (2026-07)\nscratch: /lustre/PROJECT\nscratch_days: 90\n"
UNTRIED += "billing_unit: node-hours\nbilling_per_gpu_hour: 0.125\n"


def shown(place, file, *more, code=0):
    asked = ("--cluster", "slurm", "--site", file, "--dry-run", *more)
    done = submit_command.launch("--data", songs(place / f"songs {len(more)}"), *asked)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_a_dry_run_says_where_and_why_and_who_has_tried_it(place, site_file):
    text = shown(place, site_file(UNTRIED), "--time", "2:00:00", "--account", "abc")
    assert "# train: to do, in batch (1-91 nodes, at most 2:00:00)\n" in text
    assert "# preprocess: not by a job of this cluster, see the note\n" in text and "##### preprocess.sh" not in text
    assert "#   P2P_RUNS=" in text and "--dependency" not in text.split("##### pattern.sh")[1].split("#####")[0]
    assert "# runs and shards belong on /lustre/PROJECT, where files that are not used for 90 days are removed" in text
    assert "mine.yaml on its cluster yet; its figures are from the user guide (2026-07)" in text
    assert re.search(r"#   python launch/check.py preflight --cluster slurm --site \S+mine.yaml --account abc\n", text)
    assert "#   sbatch --test-only train.sh" in text
    assert "train: 88.0 (11 starts of 8.0)" in text and "page: 7.3 (11 starts of 0.7)" in text
    assert "# at most 271.3 GPU-hours, which is 33.9 node-hours:" in text
    tried = shown(place, site_file(UNTRIED + "checked: 2026-11-27\n"), "--time", "2:00:00", "--account", "abc", "--yes")
    assert "nobody has tried" not in tried
    assert "nobody has tried" not in shown(place, site_file(ON_ANDES), "--time", "1:00:00", "--account", "abc", "--nodes", "1")


def test_a_dry_run_names_the_tier_that_a_larger_or_longer_training_needs(place, site_file):
    many = ("--nodes", "128", "--train.global-batch-size", "512", "--time", "4:00:00", "--account", "a")
    text = shown(place, site_file(ON_ANDES), *many)
    assert (
        "# train: to do, in batch (at least 92 nodes, at most 6:00:00), which is the first that takes it; not in batch: 1-91"
        in text
    )
    refused = shown(place, site_file(ON_ANDES), "--time", "4:00:00", "--account", "a", code=2)
    assert "--time asks for 4 hours, batch allows at most 2:00:00: add --time 2:00:00 or less" in refused
    assert "nothing was queued" in refused


def test_every_run_of_a_sweep_says_it(place, site_file):
    text = shown(place, site_file(ON_ANDES), "--time", "1:00:00", "--account", "abc", "--sweep", "train.seed=0,1")
    assert text.count("# preprocess: not by a job of this cluster, see the note") == 2
    assert rundir.runs_root().exists() is False
