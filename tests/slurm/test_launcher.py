"""What the launcher, status and cancel do on a cluster: asked again, killed halfway, refused; and the templates beside it."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from lab import ACCOUNT, lay_out_shards, wait_until

from p2p_dist.data import dataset as datasets
from p2p_dist.jobs import begin_run, site
from p2p_dist.jobs.slurm import commands, sbatch, specs
from p2p_dist.run import rundir
from p2p_dist.settings import config, presets

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """A folder of songs that no job will open."""
    folder = tmp_path_factory.mktemp("songs")
    for split in ("train", "test"):
        (folder / split).mkdir()
        (folder / split / f"{split}.stem.mp4").write_bytes(b"x")
    lay_out_shards(rundir.runs_root().parent / "shards" / datasets.dataset_name(folder, presets.preset("tiny").data))
    return str(folder)


def queued(name):
    """The jobs of a run that Slurm has, as [stage, ...]: one twice is a job too many."""
    comments = commands.ask("squeue", "--me", "--noheader", "--format=%k").stdout.splitlines()
    return sorted(line.split()[1] for line in comments if line.endswith(f"/{name}"))


def typed(songs, name, *more):
    return ("--data", songs, "--preset", "tiny", "--run", name, *more)


@pytest.fixture(scope="module")
def drill(lab):
    """A drill, begun beside the other tests here, which mostly wait."""
    command = [sys.executable, "launch/check.py", "drill", "--cluster", "slurm", "--nodes", "1", "--steps", "100"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([*command, "--partition", "small"], cwd=CHECKOUT, **streams) as process:
        yield process
        process.kill()


def test_asked_again_it_queues_nothing_twice(lab, launch, songs, drill):
    """If it failed: two trainings of one run, each billed, the second of which finds that the first owns the run."""
    first = launch("submit", *typed(songs, "twice", "--partition", "waiting"))
    assert "launch/status.py twice" in first
    again = launch("submit", *typed(songs, "twice", "--partition", "waiting"))
    assert again.count("already queued, job ") == 3
    assert queued("twice") == ["evaluate", "page", "train"]


def test_status_and_cancel(lab, launch, songs):
    """If it failed: a user learns what waits, and why, from squeue alone; or a cancelled job stays queued."""
    launch("submit", *typed(songs, "seen", "--partition", "waiting"))
    found = json.loads(launch("status", "seen", "--json"))
    assert found["stages"]["train"].startswith("pending (PartitionDown), job ")
    assert found["stages"]["page"].startswith("pending (Dependency), job ")
    assert (found["step"], found["total"], found["attempts"], found["checkpoint"]) == (0, 20, 0, None)
    table = launch("status", "seen")
    assert "0 of 20" in table and "pending (Dependency)" in table
    assert "removed from the queue" in launch("cancel", "seen") and queued("seen") == []
    assert "no job of the run seen is queued" in launch("cancel", "seen")
    launch("submit", *typed(songs, "seen", "--partition", "waiting"))
    assert not (rundir.find("seen").slurm / "cancelled").exists(), "a launch takes a cancellation back"


def test_cancel_of_an_array(lab, launch, songs):
    """One part runs, the others wait for it.

    If it failed: those that wait begin as soon as the one that was asked to stop has stopped.
    """
    launch("submit", *typed(songs, "parts", "--partition", "waiting"))
    launch("cancel", "parts")
    comment = f"--comment=p2p_dist evaluate {rundir.find('parts').path}"
    array = ("--parsable", "--array=0-3%1", "--mem=1G", "--output=/dev/null", comment, "--wrap=srun sleep 300")
    number = lab.ask("sbatch", *array).strip()
    wait_until(lambda: "RUNNING" in states(number), 60, "a part runs")
    assert sorted(set(states(number))) == ["PENDING", "RUNNING"]
    shown = launch("cancel", "parts")
    assert f"job {number}: its waiting parts were cancelled" in shown and f"job {number} asked to save and stop" in shown
    assert "PENDING" not in states(number)
    wait_until(lambda: states(number) == [], 60, "its parts are gone")


def states(number):
    """Of each part of an array that Slurm has."""
    return commands.ask("squeue", "--me", "--array", "--noheader", f"--job={number}", "--format=%T").stdout.split()


def test_killed_between_queueing_and_noting_it(lab, songs, launch, tmp_path, monkeypatch):
    """The first job is in the queue and the launcher is dead; asked again it queues only the rest.

    If it failed: the job that nobody noted runs beside a second one.
    """
    path = os.environ["PATH"]
    wrapper = tmp_path / "sbatch"
    real = shutil.which("sbatch")
    wrapper.write_text(f'#!/bin/sh\ncase $1 in --test-only) exec {real} "$@" ;; esac\n{real} "$@"\nkill -9 $PPID\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{path}")
    launch("submit", *typed(songs, "killed", "--partition", "waiting"), code=-9)
    assert queued("killed") == ["train"]
    monkeypatch.setenv("PATH", path)
    launch("submit", *typed(songs, "killed", "--partition", "waiting"))
    assert queued("killed") == ["evaluate", "page", "train"]


def test_more_than_the_site_gives_is_refused_before_anything_is_queued(lab, launch, songs):
    """The limits that the site's file names: the launcher knows them, also where Slurm would take the job and never start it.

    If it failed: a sweep of which half is queued and half is refused; or a job that waits for ever.
    """
    lumi = ("--cluster", "lumi", "--account", ACCOUNT, "--processes-per-node", "4", "--container", __file__)  # any file
    five = ("--nodes", "5", "--partition", "small-g", "--train.global-batch-size", "20")
    for more, said in (
        (("--time", "4-00:00:00"), "--time asks for 96 hours, small-g allows at most 3-00:00:00"),
        (("--time", "73:00:00", "--partition", "standard-g"), "asks for 73 hours, standard-g allows at most 2-00:00:00"),
        (five, "--nodes 5: a job in small-g has at most 4"),
        (("--partition", "dev-g", "--time", "60", "--evaluate-array", "3"), "4 jobs of yours would be in dev-g, which takes 2"),
        (("--partition", "dev-g", "--time", "60", "--sweep", "train.seed=0,1"), "would be in dev-g, which takes 2"),
    ):
        shown = launch("submit", *typed(songs, "limits", *lumi, *more), code=2)
        assert said in shown and "nothing was queued" in shown and "Traceback" not in shown
        assert queued("limits") == [] and not list(rundir.runs_root().glob("limits-*"))


def test_a_sweep_is_a_run_for_each_and_one_table(lab, launch, songs):
    """If it failed: one run trained several times, or a table for each."""
    sweep = ("--sweep", "train.seed=0,1", "train.learning-rate=1e-4,2e-4")
    shown = launch("submit", *typed(songs, "swept", "--partition", "waiting", *sweep))
    names = [f"swept-seed-{seed}-learning-rate-{rate}" for seed in (0, 1) for rate in ("1e-4", "2e-4")]
    arrays = dict(re.findall(r"^(\w+): array (\d+) of 4 runs", shown, re.MULTILINE))
    assert list(arrays) == ["train", "evaluate", "page"]
    listed = commands.ask("squeue", "--me", "--array", "--noheader", "--format=%i").stdout.split()
    assert {f"{array}_{n}" for array in arrays.values() for n in range(4)} <= set(listed)
    again = launch("submit", *typed(songs, "swept", "--partition", "waiting", *sweep))
    assert again.count("already queued, job ") == 12
    assert f"page: job {arrays['page']}_1 removed from the queue" in launch("cancel", names[1])
    left = set(commands.ask("squeue", "--me", "--array", "--noheader", "--format=%i").stdout.split())
    assert f"{arrays['train']}_1" not in left and {f"{arrays['train']}_{n}" for n in (0, 2, 3)} <= left
    again = launch("submit", *typed(songs, "swept", "--partition", "waiting", *sweep))
    assert queued(names[1]) == ["evaluate", "page", "train"], "of its own, as the numbers of an array are used once"
    table = shown[shown.index("┏") :]
    assert table.count("pending") == 4 and table.count("┏") == 1
    assert json.loads(launch("status", *names, "--json"))[3]["run"] == names[3]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--partition", "nowhere"), "without --partition=nowhere: change --partition"),
        (("--time", "3-00:00:00"), "without --time=4320: change --time"),
        (("--nodes", "17", "--train.global-batch-size", "17"), "without --nodes=17: change --nodes"),
        (
            ("--processes-per-node", "200", "--train.global-batch-size", "200"),
            "without --ntasks-per-node=200: change --processes-per-node",
        ),
        (("--account", "elsewhere"), f"yours: {ACCOUNT}"),
        (("--cluster", "lumi"), f"name one with --account (yours: {ACCOUNT}"),
    ],
)
def test_what_slurm_would_refuse_is_said_before_anything_is_queued(more, said, lab, launch, songs):
    """If it failed: "Batch job submission failed" without the option at fault, after half of the chain was queued."""
    shown = launch("submit", *typed(songs, "refused", "--cluster", "slurm", *more), code=2)
    assert said in shown and "Traceback" not in shown
    assert queued("refused") == []


def test_a_cpu_training_on_a_cluster_with_gpus_is_not_begun_unasked(lab, launch, songs):
    """If it failed: the README's command, without a site, trains for a day on two cores of a node that has eight GPUs."""
    shown = launch("submit", *typed(songs, "unasked", "--cluster", "slurm", "--partition", "small-g"), code=2, yes=False)
    assert "this cluster has GPUs (partition small-g)" in shown and "--yes" in shown and "--site" in shown
    assert queued("unasked") == [] and not rundir.find("unasked").path.exists()


def test_without_accounting_jobs_are_queued_all_the_same(lab, launch, songs):
    """slurmdbd away: nothing but the list of accounts comes from it.

    If it failed: nobody can start or look at anything while the accounting is being repaired.
    """
    lab.stop("slurmdbd")
    try:
        assert "to follow them" in launch("submit", *typed(songs, "unaccounted", "--partition", "waiting"))
        assert "sacctmgr names none of yours" in launch("submit", *typed(songs, "nobody", "--cluster", "lumi"), code=2)
    finally:
        lab.start_accounting()
    assert queued("unaccounted") == ["evaluate", "page", "train"] and queued("nobody") == []


LUMI = (site.HPC / "sites" / "lumi.yaml").read_text()


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        (("", ""), True),
        (("gpus_per_node: 8", "gpus_per_node: 9"), False),
        (("memory_per_node: 480G", "memory_per_node: 490G"), False),
        (("cores_per_process: 7", "cores_per_process: 15"), False),
        (("partition: standard-g", "partition: standard"), False),
    ],
)
def test_requests_for_lumi(change, accepted, lab, tmp_path):
    """The nodes of this cluster are LUMI-G's in all that a request can ask for.

    If it failed: a request that LUMI refuses, or takes and never starts, seen only there.
    """
    path = tmp_path / "lumi.yaml"
    masks = ', "0xff"]' if "9" in change[1] else "]"
    path.write_text(LUMI.replace(*change).replace("]\nenvironment", f"{masks}\nenvironment"))
    resources = config.Resources(nodes=2, account=ACCOUNT, processes_per_node=8)
    run = rundir.find("lumi")
    jobs = specs.jobs(run, config.Config(resources=resources), site.load_site("lumi", str(path)))
    train = next(job for job in jobs if job.stage == "train")
    if accepted:
        assert "--exclusive" in train.script() and "P2P_CPU_MASKS=0xfe000000000000,0xfe" in train.script()
        for job in jobs:
            sbatch.check(job)
    else:
        with pytest.raises(ValueError, match="Slurm rejects the train job"):
            sbatch.check(train)


def test_template_and_launcher_start_the_same(lab, launch, songs, tmp_path):
    """Each task writes down what it was started with and as what; only numbers of jobs and ports may differ.

    If it failed: who uses the templates trains in another way than who uses the launcher, without knowing.
    """
    run = rundir.find("same")
    wanted = presets.preset("tiny")
    begin_run.begin(run, wanted, "songs")
    recorder = tmp_path / "python"
    recorder.write_text(
        '#!/bin/sh\nmkdir -p "$RECORD"\ntr "\\0" "\\n" < /proc/$$/environ | sort > "$RECORD/$SLURM_PROCID.env"\n'
        'echo "$@" > "$RECORD/$SLURM_PROCID.argv"\n'
        f'echo "{{\\"attempt\\": \\"$P2P_ATTEMPT\\", \\"outcome\\": \\"done\\"}}" > "{run.outcome}"\n'
    )
    recorder.chmod(0o755)
    (train,) = [job for job in specs.jobs(run, wanted, site.load_site("slurm")) if job.stage == "train"]
    script = tmp_path / "launched.sh"
    # The same nodes for both: their names stand in the environment.
    shape = ("--nodes=2", f"--nodelist={','.join(lab.names[-2:])}", "--ntasks-per-node=2", "--time=10")
    script.write_text(train.script().replace(sys.executable, str(recorder)))
    train.folder.mkdir(parents=True)
    seen = []
    for name, what in (("launched", script), ("template", CHECKOUT / "hpc" / "train.sbatch")):
        environment = {**os.environ, "RECORD": str(tmp_path / name), "P2P_PYTHON": str(recorder)}
        environment |= {"P2P_MAX_REQUEUES": "10", "P2P_MAX_CRASH_RESTARTS": "3", "SUBMITIT_EXECUTOR": "slurm"}
        command = ["sbatch", "--parsable", *shape, "-o", str(tmp_path / f"{name}.log"), str(what), str(run.path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        number = done.stdout.strip()
        job = lab.wait_for(number, 200, "COMPLETED", "FAILED")
        assert job["JobState"] == "COMPLETED", (tmp_path / f"{name}.log").read_text()
        comment = lab.ask("scontrol", "show", "job", number)
        assert name == "launched" or f"Comment={specs.comment('train', run)}" in comment
        assert len(list((tmp_path / name).glob("*.env"))) == 4
        seen.append({path.name: kept(path.read_text(), tmp_path / name) for path in (tmp_path / name).iterdir()})
    assert seen[0].keys() == seen[1].keys()
    assert {name: set(seen[0][name]) ^ set(seen[1][name]) for name in seen[0] if seen[0][name] != seen[1][name]} == {}


def kept(text, folder):
    """The lines of an environment without those that two jobs never share."""
    own = ("SLURM_JOB_NAME", "SLURM_JOBID", "SLURM_JOB_ID", "SLURM_STEP", "SLURM_SRUN", "SLURM_LAUNCH", "MASTER_PORT", "RECORD")
    own += ("SLURM_TASK_PID", "SLURM_JOB_CPUS", "SRUN_DEBUG", "TMPDIR", "SLURMD_DEBUG", "SLURM_TOPOLOGY", "SLURM_JOB_COMMENT")
    own += ("P2P_JOB", "P2P_ATTEMPT")  # its number
    return [line for line in text.splitlines() if not line.startswith(own)]


def test_a_drill_on_the_cluster(drill):
    """As a user types it, with fewer steps: stopped in each way by Slurm itself.

    If it failed: a user can't tell whether the cluster, its requeueing and its file system keep what this project promises.
    """
    shown, _ = drill.communicate(timeout=300)
    assert drill.returncode == 0, shown
    table = [line.split("|")[1:-1] for line in shown.splitlines() if line.startswith("| ")][2:]
    assert [row[-1].strip() for row in table] == ["exactly"] * 4, shown
    assert [row[1].strip() for row in table] == ["2"] * 4, shown
