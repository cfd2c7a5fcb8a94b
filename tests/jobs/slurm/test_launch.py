"""What a launch queues, refuses and leaves; with commands of Slurm that keep the queue in a file. A real one: tests/slurm."""

import dataclasses
import json
import os
import re
import subprocess
import time
import types

import pytest

from p2p_dist.cli import cancel, preprocess, submit
from p2p_dist.common import console, files
from p2p_dist.jobs import begin_run, stage_state, stages, status, status_tables
from p2p_dist.jobs.slurm import chains, squeue
from p2p_dist.jobs.slurm import launch as launching
from p2p_dist.run import rundir
from p2p_dist.settings.config import Data, Resources
from tests.jobs.slurm.fake_slurm import CHAIN, cluster, launch, site_file

__all__ = ["cluster", "launch", "site_file"]


def test_a_site_without_gpus_is_asked_about_where_the_cluster_has_some(cluster, launch, site_file, monkeypatch):
    (cluster.place / "sinfo").write_text(
        '#!/bin/sh\ncase "$*" in *--partition*thin*) ;; *--format*) echo "fat gpu:a100:4(S:0-1)" ;; esac\n'
        '[ "$1" = --version ] || echo "thin (null)"\n'
    )
    for more in ((), ("--dry-run",), ("--site", site_file("cores_per_process: 3"))):
        with pytest.raises(ValueError, match=r"has GPUs \(partition fat\).*asks for none.*--site.*--yes"):
            launch(*more)
    assert cluster.queued() == []
    for number, more in enumerate((("--yes",), ("--partition", "thin"), ("--site", site_file("gpus_per_node: 4")))):
        assert launch("--run", f"r{number}", *more) == console.DONE


def test_what_a_dry_run_prints_is_what_is_submitted(cluster, launch, capsys):
    def scripts():
        launch("--run", "a", "--dry-run")
        parts = capsys.readouterr().out.split("\n##### ")[1:]
        return {name.removesuffix(".sh"): text.strip() for name, _, text in (part.partition("\n") for part in parts)}

    shown = scripts()
    assert launch("--run", "a") == console.DONE
    assert [stage for _, stage, _ in cluster.queued()] == CHAIN == list(shown)[:4]
    numbers = {f"the {stage} job": str(100 + i) for i, stage in enumerate(CHAIN)}
    for number, stage in enumerate(CHAIN):
        meant = re.sub(r"'afterok:(.*)'", lambda found: f"afterok:{numbers[found.group(1)]}", shown[stage])
        assert (cluster.place / f"script-{100 + number}").read_text().strip() == meant
    capsys.readouterr()
    assert list(scripts()) == ["config.yaml"], "all of it is queued"
    (cluster.place / "queue").write_text((cluster.place / "queue").read_text().splitlines()[0] + "\n")
    assert "#SBATCH --dependency=afterok:100" in scripts()["train"]


def test_a_refused_launch_leaves_nothing(cluster, launch, tmp_path, site_file):
    for more, said in (
        (("--cluster", "lumi"), "name one with --account"),
        (("--site", site_file("needs_account: true")), "name one with --account"),
        (("--site", site_file('partition: p\nlimits: {p: {time: "1:00:00"}}', "short")), "--time asks for 24 hours"),
        (("--container", "/no/such.sif"), "does not exist"),
        (("--max-gpu-hours", "5"), "billing of this cluster is not known"),
    ):
        with pytest.raises(ValueError, match=said):
            launch("--run", "f", *more)
        assert not (tmp_path / "work").exists() and cluster.queued() == []
    cluster.refuse("time=1440")
    with pytest.raises(ValueError, match="change --time; nothing was queued"):
        launch("--run", "f")
    with pytest.raises(ValueError, match="change --time; nothing was queued"):
        submit.main(["--preset", "tiny", "--cluster", "slurm"])  # with the example song
    assert not (tmp_path / "work").exists()
    (cluster.place / "refused").unlink()
    assert launch("--run", "f", "--train.seed", "4") == console.DONE


def test_a_range_of_nodes_is_asked_of_slurm_at_both_ends(cluster, launch, site_file):
    """Slurm itself takes a range of which it can give the fewest. If it failed: a range that is never had, without a word."""
    for end in ("2", "4"):
        cluster.refuse(f"--nodes={end}$")
        with pytest.raises(ValueError, match=rf"rejects the train job.*without --nodes={end}: change --nodes; nothing was"):
            launch("--run", "f", "--nodes", "2-4")
        assert cluster.queued() == []
    (cluster.place / "refused").unlink()
    assert launch("--run", "f", "--nodes", "2-4") == console.DONE
    assert "#SBATCH --nodes=2-4\n" in (cluster.place / "script-101").read_text()


def test_a_copy_of_the_code_that_knows_no_ranges_gets_none(cluster, launch):
    assert launch("--run", "f", "--nodes", "2") == console.DONE
    files.write_text(rundir.find("f").code / "hpc" / "job.sh", "exec bash job.sh\n")
    for more in ((), ("--dry-run",)):
        with pytest.raises(ValueError, match="code in f is of an earlier version, which trains on a fixed number of nodes"):
            launch("--run", "f", "--nodes", "1-2", *more)


def test_a_sweep_is_queued_whole_or_not_at_all(cluster, launch, site_file, tmp_path, capsys):
    place = site_file("partition: p\nlimits: {p: {jobs: 7, nodes: 4}}")
    with pytest.raises(ValueError, match="--nodes 8: a job in p has at most 4; nothing was queued"):
        launch("--site", place, "--sweep", "nodes=2,8", "--train.global-batch-size", "8")
    cluster.add(*(f"{number}|RUNNING|None|other|p" for number in range(4)))
    with pytest.raises(ValueError, match="8 jobs of yours would be in p, which takes 7"):
        launch("--site", place, "--sweep", "train.seed=0,1")
    assert not (tmp_path / "work").exists() and cluster.queued() == []
    (cluster.place / "queue").write_text("3|RUNNING|None|other|p\n")
    assert launch("--site", place, "--run", "s", "--sweep=train.seed=0,1") == console.DONE
    names = [f"s-seed-{seed}" for seed in (0, 1)]
    assert [(stage, waits) for _, stage, waits in cluster.queued()] == [
        ("preprocess", None),
        ("train", "afterok:100"),
        ("evaluate", "aftercorr:101"),
        ("page", "aftercorr:102"),
    ], "the shards are made once; one array for each stage"
    assert [line.split("|")[0] for line in (cluster.place / "queue").read_text().splitlines()[2:5]] == [
        "101_0",
        "101_1",
        "102_0",
    ]
    shown = capsys.readouterr().out
    assert "s-seed-1: preprocess: already queued, job 100 of the run s-seed-0, with the same shards" in shown
    assert "train: array 101 of 2 runs" in shown and shown.count("┏") == 1
    for number, name in enumerate(names):
        found = status.gather(rundir.find(name))["stages"]
        assert found["train"] == f"pending (Dependency), job 101_{number}"
        assert (rundir.find(name).slurm / "page" / f"103_{number}_submission.sh").is_file()
    (cluster.place / "queue").write_text("")
    found = status.gather(rundir.find(names[1]))["stages"]
    assert found["train"].startswith("removed from the queue before it started, job 101_1")
    files.write_text(rundir.find(names[1]).slurm / "train" / "attempts", "launch 101_1\nstart 7.0-a 0 1 1\n")
    assert status.gather(rundir.find(names[1]))["stages"]["train"].startswith("killed or cancelled")


def test_a_sweep_is_queued_before_it_is_waited_for(cluster, launch, monkeypatch):
    seen = []
    monkeypatch.setattr(launching, "wait", lambda run: seen.append((run.path.name, len(cluster.queued()))) or console.FAILED)
    assert launch("--run", "s", "--wait", "--sweep", "train.seed=0,1") == console.FAILED
    assert seen == [("s-seed-0", 4), ("s-seed-1", 4)]


def sweep(launch, *more):
    return launch("--run", "s", "--sweep", "train.seed=0,1,2", *more)


def test_a_sweep_typed_again_queues_what_is_missing_of_each_stage(cluster, launch, capsys):
    """Elements keep their numbers, so each still waits for its own training, and none is queued twice."""
    sweep(launch)
    assert len(cluster.queued()) == 4
    capsys.readouterr()
    sweep(launch)
    assert len(cluster.queued()) == 4 and capsys.readouterr().out.count("already queued, job 10") == 12
    # The training of one is gone, the evaluations of two.
    left = [line for line in (cluster.place / "queue").read_text().splitlines() if line.split("|")[0] not in MISSING]
    (cluster.place / "queue").write_text("\n".join([*left, ""]))
    sweep(launch)
    asked = [(cluster.place / f"script-{number}").read_text() for number in (104, 105, 106)]
    train, alone, page = asked
    assert "#SBATCH --array" not in train and f"--comment='p2p_dist train {rundir.find('s-seed-1').path}'" in train
    assert [waits for _, _, waits in cluster.queued()[4:]] == ["afterok:100", "afterok:104", "afterok:101_2"]
    assert f"evaluate {rundir.find('s-seed-1').path}'" in alone and f"evaluate {rundir.find('s-seed-2').path}'" in page
    told = (cluster.place / "told").read_text().splitlines()
    assert told == ["update jobid=103_1 dependency=afterok:105", "update jobid=103_2 dependency=afterok:106"]


MISSING = ("101_1", "102_1", "102_2")


def test_a_sweep_of_which_some_are_done_queues_the_others(cluster, launch, monkeypatch):
    sweep(launch)
    (cluster.place / "queue").write_text("")
    real = stages.is_done

    def is_done(stage, run, *more, **other):
        early = stage == "preprocess" or (stage == "train" and run.path.name == "s-seed-0")
        return "done" if early else real(stage, run, *more, **other)

    monkeypatch.setattr(stages, "is_done", is_done)
    sweep(launch)
    asked = [(cluster.place / f"script-{number}").read_text() for number in range(104, 109)]
    array = [re.search("--array=(.*)", text) for text in asked]
    assert [found and found[1] for found in array] == ["1,2", None, "1,2", None, "1,2"]
    assert [waits for _, _, waits in cluster.queued()[4:]] == [None, None, "aftercorr:104", "afterok:105", "aftercorr:106"]


def test_runs_of_a_sweep_that_differ_in_their_jobs_are_jobs_of_their_own(cluster, launch, site_file, monkeypatch):
    launch("--run", "n", "--sweep", "nodes=1,2")
    found = [(stage, waits) for _, stage, waits in cluster.queued()]
    assert found[1:3] == [("train", "afterok:100"), ("train", "afterok:100")]
    assert found[3:5] == [("evaluate", "afterok:101"), ("evaluate", "afterok:102")]
    (cluster.place / "queue").write_text("")
    sweep(launch, "--site", site_file("requeue: false"), "--run", "r")
    assert all("--array" not in path.read_text() for path in cluster.place.glob("script-1*")), "successors are no elements"
    before = len(cluster.queued())
    sweep(launch, "--run", "d", "--evaluate", "during")
    assert [waits for _, stage, waits in cluster.queued()[before:] if stage == "evaluate"] == [
        f"after:{100 + before}_{number}" for number in range(3)
    ]
    (cluster.place / "queue").write_text("")
    before = len(cluster.queued())
    sweep(launch, "--run", "e", "--evaluate-array", "2")
    assert [stage for _, stage, _ in cluster.queued()[before:]].count("evaluate") == 3
    (cluster.place / "queue").write_text("")
    for number in range(3):
        (rundir.runs_root() / f"o-seed-{number}" / "code").mkdir(parents=True)
    monkeypatch.setattr(chains.sweeps.snapshot, "differs", lambda copy: "o-seed-0" in str(copy))
    monkeypatch.setattr(rundir, "check_own", lambda run: None)
    monkeypatch.setattr(begin_run, "check_own", lambda run: None)
    monkeypatch.setattr(begin_run.snapshot, "close", lambda copy: None)
    monkeypatch.setattr(begin_run.snapshot, "has_record", lambda copy: True)
    before = len(cluster.queued())
    sweep(launch, "--run", "o")
    asked = (cluster.place / f"script-{100 + before + 2}").read_text()
    assert "--array=1,2\n" in asked, "a run of an earlier version has scripts that know no sweep"


def test_the_script_of_a_sweep_picks_its_run(cluster, launch, tmp_path, monkeypatch, site_file):
    """As Slurm starts it, with a path that has a space; what is specific to a run is taken from it."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "my place" / "runs"))
    sweep(launch, "--site", site_file("environment: env/lumi.sh"))
    script = (cluster.place / "script-101").read_text()
    assert script.count("s-seed-0") == 1, "only in the list of runs"
    run = rundir.find("s-seed-2")
    (run.code / "hpc").mkdir(parents=True)
    (run.code / "hpc" / "job.sh").write_text('echo "$# $*"; env | grep ^P2P_ENV\n')
    # What the copy of the code is checked for is not the matter here.
    head, last = script.split(': "${run:?}"')[0], script.splitlines()[-1]
    variables = {**os.environ, "SLURM_ARRAY_JOB_ID": "101", "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "103"}
    subprocess.run(["bash", "-c", f"{head}\n{last}"], env=variables, check=True)
    said = (run.slurm / "train" / "103_0_log.out").read_text().splitlines()
    assert said == [f"3 train {run.path} 101_2", f"P2P_ENVIRONMENT={run.path}/code/hpc/env/lumi.sh"]


def test_the_dry_run_of_a_sweep_prints_its_arrays(cluster, launch, capsys, site_file):
    tier = "tiers: [{partition: p, jobs: 20, running: 2}, {kind: cpu, partition: thin}]"
    sweep(launch, "--dry-run", "--site", site_file(tier))
    shown = capsys.readouterr().out.split("\n##### ")
    titles = [part.partition("\n")[0] for part in shown]
    assert titles[-4:] == ["preprocess.sh of s-seed-0", "train.sh of 3 runs", "evaluate.sh of 3 runs", "page.sh of 3 runs"]
    assert "#SBATCH --array=0,1,2%2\n" in shown[-3] and "--dependency='afterok:the preprocess job of s-seed-0'" in shown[-3]
    assert "#SBATCH --array=0,1,2\n" in shown[-1] and "--dependency='aftercorr:the evaluate job of 3 runs'" in shown[-1]
    sweep(launch, "--site", site_file(tier))
    assert "#SBATCH --array=0,1,2%2\n" in (cluster.place / "script-101").read_text()
    two = launch("--run", "s", "--sweep", "train.seed=3,4", "--site", site_file(tier))
    assert two == console.DONE and "#SBATCH --array=0,1\n" in (cluster.place / "script-104").read_text(), "as many as may run"


def test_cancel_of_one_run_of_a_sweep_leaves_the_others(cluster, launch, capsys):
    sweep(launch)
    queue = (cluster.place / "queue").read_text().replace("101_1|PENDING", "101_1|RUNNING")
    (cluster.place / "queue").write_text(queue)
    cancel.main(["s-seed-1"])
    assert (cluster.place / "cancelled").read_text().splitlines() == ["103_1", "102_1", "--signal=USR2 101_1"]
    assert not (rundir.find("s-seed-0").slurm / "cancelled").exists()


def test_a_list_of_runs_that_somebody_changed_is_not_read(cluster, launch):
    sweep(launch)
    assert "job 101_0" in status.gather(rundir.find("s-seed-0"))["stages"]["train"]
    (path,) = (rundir.runs_root() / ".sweeps").iterdir()
    path.write_text(path.read_text().replace("s-seed-1", "s-seed-9"))
    assert squeue.queued_jobs(rundir.find("s-seed-0")).keys() == {"preprocess"}
    path.unlink()
    assert squeue.queued_jobs(rundir.find("s-seed-0")).keys() == {"preprocess"}


def test_behind_a_link_the_launcher_and_the_job_mean_the_same_shards(cluster, launch, tmp_path, monkeypatch):
    """Runs on another disk, linked: hpc/job.sh goes by the real path. If it failed: preprocessed again at each launch."""
    (tmp_path / "scratch" / "runs").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "scratch" / "runs")
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "link"))
    launch("--run", "a")
    run = rundir.find("a")
    assert rundir.runs_root() == tmp_path / "scratch" / "runs"
    assert run.path == tmp_path / "scratch" / "runs" / "a" and run.shards.parent == tmp_path / "scratch" / "shards"
    assert (tmp_path / "scratch" / "shards").is_dir() and not (tmp_path / "shards").exists()
    (tmp_path / "link" / "b").symlink_to(tmp_path / "elsewhere" / "b")
    assert rundir.find("b").path == tmp_path / "elsewhere" / "b"


@pytest.mark.parametrize("comes", ["gone", "again"])
def test_a_job_that_is_just_ending_is_waited_for(comes, cluster, launch, monkeypatch, capsys):
    """An epilog of 15 seconds, behind a cancelled job. If it failed: "already queued", and the evaluation behind a dead job."""
    launch("--run", "a")
    queue = (cluster.place / "queue").read_text()
    train = queue.splitlines()[1]
    (cluster.place / "queue").write_text(train.replace("PENDING", "COMPLETING") + "\n")
    capsys.readouterr()

    def pause(seconds):
        state = {"gone": "", "again": train + "\n"}[comes]
        (cluster.place / "queue").write_text(state)

    # Its own, as waiting for a command's end sleeps too.
    monkeypatch.setattr(squeue, "time", types.SimpleNamespace(sleep=pause, monotonic=time.monotonic))
    launch("--run", "a")
    shown = capsys.readouterr().out
    assert shown.count("train: job 101 is completing") == 1
    assert ("train: already queued, job 101" in shown) == (comes == "again")
    assert [stage for _, stage, _ in cluster.queued()[4:]] == (CHAIN if comes == "gone" else ["preprocess", "evaluate", "page"])
    monkeypatch.setattr(squeue, "ENDING", -1.0)
    (cluster.place / "queue").write_text(train.replace("PENDING", "COMPLETING") + "\n")
    with pytest.raises(OSError, match="has not ended yet"):
        launch("--run", "a")


def test_what_waits_for_a_job_that_is_gone_waits_for_the_new_one(cluster, launch, capsys):
    """Or for none, where that is done. If it failed: it is dropped as soon as Slurm sees that its job did not end well."""
    launch("--run", "a")
    left = (cluster.place / "queue").read_text().splitlines()
    (cluster.place / "queue").write_text("\n".join([left[0], *left[2:]]) + "\n")
    launch("--run", "a")
    told = (cluster.place / "told").read_text().splitlines()
    assert [stage for _, stage, _ in cluster.queued()[4:]] == ["train"]
    assert told == ["update jobid=102 dependency=afterok:104", "update jobid=103 dependency=afterok:102"]

    def meanwhile(*queue):
        """What is queued when Slurm refuses to change the evaluation."""
        (cluster.place / "queue").write_text("\n".join([left[0], *left[2:]]) + "\n")
        (cluster.place / "later").write_text("".join(f"{line}\n" for line in queue))
        refuses = f"cp {cluster.place}/later {cluster.place}/queue; echo no >&2; exit 1"
        (cluster.place / "scontrol").write_text(f"#!/bin/sh\nif [ $2 = jobid=102 ]; then {refuses}; fi\n")
        before = len(cluster.queued())
        launch("--run", "a")
        return [stage for _, stage, _ in cluster.queued()[before:]]

    assert meanwhile(left[0], left[3]) == ["train", "evaluate"], "dropped just now"
    began = left[2].replace("PENDING", "RUNNING")
    assert meanwhile(left[0], began, left[3]) == ["train"], "it has just begun: no second one"
    with pytest.raises(OSError, match=r"does not let the evaluate job 102 wait for another job \(no\); run the same"):
        meanwhile(*left)


def test_the_chain_holds_behind_a_wrapper_of_sbatch(cluster, launch, monkeypatch):
    text = (cluster.place / "sbatch").read_text()
    (cluster.place / "sbatch").write_text(text.replace('echo "Submitted', 'echo "job 1 of your 10"; echo "Submitted'))
    launch("--run", "a")
    assert [waits for _, _, waits in cluster.queued()] == [None, "afterok:100", "afterok:101", "afterok:102"]
    (cluster.place / "sbatch").write_text(text.replace('echo "Submitted batch job $number"', "echo thanks"))
    with pytest.raises(OSError, match="no job number in its answer"):
        launch("--run", "b")
    (cluster.place / "sbatch").write_text(text)
    launch("--run", "b")
    assert [stage for run, stage, _ in cluster.queued() if run == "b"] == CHAIN[1:], "what it did take is found again"


def test_a_percent_sign_in_the_path_is_no_pattern(cluster, launch, tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "100%" / "runs"))
    launch("--run", "a")
    assert f"--output={tmp_path}/100%%/runs/a/slurm/train/%j_0_log.out\n" in (cluster.place / "script-101").read_text()
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "50%job" / "runs"))
    with pytest.raises(ValueError, match="which Slurm replaces"):
        launch("--run", "a")


def test_a_launcher_that_was_overtaken_queues_nothing_twice(cluster, launch, monkeypatch):
    """Another one queued everything between this one's look at the queue and its turn."""
    checked = launching.check_launches

    def overtaken(*arguments):
        checked(*arguments)
        monkeypatch.setattr(launching, "check_launches", checked)
        launch("--run", "a")

    monkeypatch.setattr(launching, "check_launches", overtaken)
    launch("--run", "a")
    assert [stage for _, stage, _ in cluster.queued()] == CHAIN


def test_a_site_that_another_folder_names_is_found(cluster, launch, site_file, tmp_path, monkeypatch):
    """Its `environment` lies beside it, wherever it is typed from; moved, only the bill is not known."""
    (tmp_path / "mine.sh").touch()
    place = site_file("environment: mine.sh\ngpus_per_node: 1")
    launch("--run", "a", "--site", place)
    assert f"P2P_ENVIRONMENT={tmp_path}/mine.sh" in (cluster.place / "script-101").read_text()
    monkeypatch.chdir("/")
    assert status.gather(rundir.find("a"))["wrong"] is None
    files.write_text(tmp_path / "moved.yaml", (tmp_path / "mine.yaml").read_text())
    (tmp_path / "mine.yaml").unlink()
    found = status.gather(rundir.find("a"))
    assert "mine.yaml" in found["wrong"] and found["stages"]["train"].startswith("pending")
    assert json.dumps(found)


def test_an_array_of_preprocessing_is_one_job_that_the_training_waits_for(cluster, launch):
    launch("--run", "a", "--preprocess-array", "4")
    assert cluster.queued() == [("a", "preprocess", None), ("a", "train", "afterok:100"), *cluster.queued()[2:]]
    script = (cluster.place / "script-100").read_text()
    assert "#SBATCH --array=0-3\n" in script and "/slurm/preprocess/%A_%a_0_log.out" in script
    assert (rundir.find("a").slurm / "preprocess" / "100_submission.sh").read_text() == script
    assert "--array" not in (cluster.place / "script-101").read_text()
    launch("--run", "b", "--preprocess-array", "1", "--data.seed", "1")
    (script,) = (rundir.find("b").slurm / "preprocess").glob("*_submission.sh")
    assert "--array" not in script.read_text(), "which needs locks that all nodes see"


@pytest.fixture
def shards(launch, tmp_path, monkeypatch):
    """`shards(...)`: what launch/preprocess.py does on this cluster with the songs of `launch`."""
    base = ["--data", str(tmp_path / "songs"), "--preset", "tiny", "--cluster", "slurm"]
    return lambda *more: preprocess.main([*base, *more])


def test_preprocess_queues_the_stage_as_a_launch_does(cluster, launch, shards, capsys):
    """An array for each task; run again it is found, by a launch of the same songs, too, which waits for it."""
    options = ("--array", "3", "--partition", "small", "--time", "30", "--workers", "5", "--account", "mine")
    assert shards("--task", "drums,bass", *options) == console.DONE
    drums, bass = sorted(path.name for path in rundir.runs_root().iterdir())[::-1]
    assert cluster.queued() == [(drums, "preprocess", None), (bass, "preprocess", None)]
    assert drums.startswith("preprocess-drums-default-") and bass.startswith("preprocess-bass-default-")
    script = (cluster.place / "script-100").read_text()
    for line in ("array=0-2", "partition=small", "time=30", "cpus-per-task=5", "account=mine", "job-name=p2p-preprocess"):
        assert f"#SBATCH --{line}\n" in script
    assert script.endswith(f"code/hpc/job.sh preprocess {rundir.find(drums).path}\n")
    capsys.readouterr()
    assert shards(*options) == console.DONE
    assert f"already queued, job 100 of the run {drums}" in capsys.readouterr().out and len(cluster.queued()) == 2
    launch("--run", "a")
    assert f"preprocess: already queued, job 100 of the run {drums}" in capsys.readouterr().out
    assert cluster.queued()[2] == ("a", "train", "afterok:100")
    found = status.gather(rundir.find(drums))["stages"]
    assert found["preprocess"].startswith("pending") and "job 100" in found["preprocess"]
    assert {found[stage] for stage in ("train", "evaluate", "page")} == {stages.SHARDS_ONLY}
    status_tables.show_all(status.gather_each([rundir.find(drums)]))
    assert "preprocess" in (shown := capsys.readouterr().out) and "pending" in shown
    cluster.add()
    cancel.main([bass])
    assert (cluster.place / "cancelled").read_text() == "101\n"


def test_a_job_of_another_run_for_the_earlier_songs_does_not_hold_up_a_launch(cluster, launch):
    assert launch("--run", "a") == console.DONE
    run = rundir.find("a")
    queued = squeue.Queued("7", "PENDING", "None", other="b")
    launching.check_not_queued(run, "other-songs", {"preprocess": queued})
    with pytest.raises(ValueError, match=r"jobs of the run a are queued for the earlier songs \(preprocess: job 7\)"):
        launching.check_not_queued(run, "other-songs", {"preprocess": dataclasses.replace(queued, other=None)})
    launching.check_not_queued(run, run.read_dataset(), {"preprocess": dataclasses.replace(queued, other=None)})


def test_a_slurm_that_does_not_answer_for_a_while_is_said_once_and_waited_for(cluster, launch, capsys):
    assert launch("--run", "a") == console.DONE
    away = '[ "$(wc -l < asked)" -gt 3 ] || { echo "no controller" >&2; exit 1; }'
    (cluster.place / "squeue").write_text(f"#!/bin/sh\ncd '{cluster.place}'\necho >> asked\n{away}\n")
    capsys.readouterr()
    assert launching.wait(rundir.find("a"), every=0.01) == console.FAILED
    said = capsys.readouterr().err
    assert said.count("asking again") == 1 and "error: preprocess did not finish; its logs: " in said
    assert len((cluster.place / "asked").read_text()) > 3


def test_a_stage_that_is_queued_again_forgets_how_it_ended(cluster, launch):
    """If it failed: of an array that had more tasks, the failure of one that is no more is told for ever."""
    launch("--run", "a")
    run = rundir.find("a")
    for stage in CHAIN:
        run.write_outcome(stage, "failed", "no room")
    (cluster.place / "queue").write_text("")
    assert launch("--run", "a") == 0 and [run.read_outcome(stage) for stage in CHAIN] == [None] * 4


def test_preprocessing_that_is_queued_again_forgets_how_it_ended(cluster, shards):
    assert shards() == console.DONE
    (run,) = (rundir.find(path.name) for path in rundir.runs_root().iterdir())
    run.write_outcome("preprocess", "failed", "no room")
    (run.slurm / "cancelled").touch()
    (cluster.place / "queue").write_text("")
    assert shards() == console.DONE and len(cluster.queued()) == 2
    assert run.read_outcome("preprocess") is None and not (run.slurm / "cancelled").exists()


def test_preprocessing_of_another_task_than_drums_takes_the_preset_default_without_its_sketch(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    wanted = [(task, Data(task=task)) for task in ("drums", "bass")]
    (_, drums), (_, bass) = launching.preprocessing(wanted, "default", Resources())
    assert drums.model.sketch and not bass.model.sketch and bass.data.task == "bass"


def test_a_run_that_only_preprocesses_has_no_training_to_do_until_a_launch_asks_for_it(cluster, launch, shards, capsys):
    shards()
    (run,) = map(rundir.find, (path.name for path in rundir.runs_root().iterdir()))
    part = {"songs": [], "samples": [], "shards": [], "audio": []}
    whole = stages.Shards({"splits": {"train": part}, "left_out": []}, frozenset())
    row = {
        **status.gather(run),
        "stages": {stage: stage_state.state(stage, run, {}, Resources(), whole) for stage in stages.STAGES},
    }
    assert row["stages"]["preprocess"] == "done"
    capsys.readouterr()
    status_tables.show_all([row])
    assert "done" in (shown := capsys.readouterr().out) and "page" not in shown and "not requested" not in shown
    launch("--run", run.path.name)
    assert status.gather(run)["stages"]["train"].startswith("pending")
    (cluster.place / "queue").write_text("")
    assert status.gather(run)["stages"]["train"].startswith("removed from the queue before it started")
    run.path.rename(run.path.with_name("mine"))
    assert not stages.is_shards_only(rundir.find("mine"))


def test_preprocess_of_which_slurm_takes_nothing_leaves_nothing(cluster, shards, capsys):
    cluster.refuse("job-name=p2p-preprocess")
    with pytest.raises(ValueError, match=r"Slurm rejects the preprocess job: no such thing.*nothing was queued"):
        shards()
    assert not rundir.runs_root().exists() and cluster.queued() == []
    assert shards("--dry-run") == console.DONE
    assert "#SBATCH --array=0-7\n" in capsys.readouterr().out and not rundir.runs_root().exists()
