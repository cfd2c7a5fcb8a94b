"""What a job's batch shell decides, in hpc/: beginning, ending, going on. Slurm's commands only answer what a test says and
write down their call here; a real Slurm answers them in tests/slurm."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2p_dist.jobs import site
from p2p_dist.jobs.slurm import specs
from p2p_dist.run import checkpoints, rundir, snapshot
from p2p_dist.settings import config

CHECKOUT = Path(__file__).resolve().parents[3]

SQUEUE = """#!/bin/sh
cd "{folder}"
[ ! -e away ] || {{ echo "Unable to contact slurm controller" >&2; exit 1; }}
case "$*" in
*--steps*) cat steps 2>/dev/null ;;
*--Format=*) cat state ;;
*%k*) cat comments ;;
*%V*) cat submitted ;;
*%l*) cat given ;;
*%E*) cat waiting ;;
esac
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The first and last lines of a batch script: note_start.sh and decide_next.sh.

    A real Slurm requeues in tests/slurm.
    """
    run = rundir.RunDir(tmp_path / "a 100% run")
    slurm = tmp_path / "slurm"
    slurm.mkdir()
    sbatch = 'printf "%s\\n" "$@" > sbatch; env | grep -E "^(SLURM|SBATCH)_" > inherited; echo 8'
    commands = {
        "squeue": SQUEUE.format(folder=slurm),
        "scontrol": f'#!/bin/sh\ncd "{slurm}"\n[ "$1" != requeue ] || [ ! -e refusal ] || {{ cat refusal >&2; exit 1; }}\n'
        'echo "$@" >> called\n',
        "sbatch": f'#!/bin/sh\ncd "{slurm}"\n{sbatch}\n',
        "sleep": "#!/bin/sh\n",
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    # Without site: a node's python has none of our packages, and starts in a third of the time.
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("P2P_JOB", "7")

    class Job:
        def answer(self, name, text):
            """What Slurm says from now on."""
            (slurm / name).write_text(text + "\n")

        def told(self, name):
            """What Slurm was told, in words."""
            return (slurm / name).read_text().splitlines()

        def stage(self, name):
            self.name, self.log = name, run.slurm / name / "attempts"
            monkeypatch.setenv("P2P_ATTEMPTS", str(self.log))

        def lines(self, kind, word):
            """One word of each line of its record that begins so."""
            return [line.split()[word] for line in self.log.read_text().splitlines() if line.startswith(kind)]

        def begin(self, restart=0):
            monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
            command = ["bash", CHECKOUT / "hpc" / "note_start.sh", self.name, run.path]
            return subprocess.run(command, capture_output=True, text=True)

        def end(self, code):
            (slurm / "called").unlink(missing_ok=True)
            command = ["bash", CHECKOUT / "hpc" / "decide_next.sh", self.name, run.path, str(code)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode != 127, done
            done.requeued = (slurm / "called").is_file() and "requeue" in (slurm / "called").read_text()
            return done

        def progress(self, step):
            folder = run.checkpoints if self.name == "train" else run.evaluations
            (folder / rundir.step_name(step)).mkdir(parents=True)

    Job.run = run
    job = Job()
    job.stage("train")
    job.answer("state", "RUNNING")
    return job


@pytest.mark.parametrize(
    ("outcome", "code", "leaves", "requeued"),
    [
        ("done", 1, 0, False),
        ("failed", 75, 1, False),
        ("stopped", 143, 75, True),
        (None, 75, 75, True),
        (None, 0, 75, True),  # a node was lost
        (None, 140, 75, True),
        (None, 138, 75, True),
        (None, 1, 1, False),
        (None, 137, 75, True),  # killed from outside
        (None, 139, 139, False),
        (None, 253, 253, False),  # out of memory
        (None, 255, 75, True),
    ],
)
def test_the_batch_shell_decides_by_the_outcome_before_the_exit_code(outcome, code, leaves, requeued, job):
    assert job.begin().returncode == 0
    if outcome:
        job.run.write_outcome("train", outcome)
    done = job.end(code)
    assert (done.returncode, done.requeued) == (leaves, requeued), done


def test_tasks_that_share_an_evaluation_end_each_for_itself(job):
    """One was done when another was asked to stop: what that one has left goes on, and is not taken for a failure."""
    job.stage("evaluate")
    job.begin()
    job.run.write_outcome("train", "done")
    job.run.write_outcome("evaluate", "done")
    for code, leaves in ((75, 75), (1, 1), (0, 0)):
        done = job.end(code)
        assert (done.returncode, done.requeued) == (leaves, code == 75)


def test_an_older_attempts_outcome_does_not_count(job):
    job.begin()
    job.run.write_outcome("train", "stopped")
    job.begin(1)
    assert job.end(70).returncode == 70


@pytest.mark.parametrize("code", [0, 70, 75])
def test_the_batch_shell_of_an_older_attempt_queues_nothing(code, job, monkeypatch):
    """Its node was lost to Slurm, not to itself. If it failed: it requeues, and so stops, what continues elsewhere."""
    job.begin()
    job.begin(1)
    before = job.log.read_text()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    done = job.end(code)
    assert "7.0 was superseded by 7.1" in done.stdout and not done.requeued and job.log.read_text() == before


@pytest.mark.parametrize("state", ["PENDING 1", "RUNNING 1", "COMPLETING 1"])
def test_what_slurm_has_queued_again_is_not_queued_again(state, job):
    """It may even have begun already, and not yet have written so. If it failed: what continues elsewhere is stopped."""
    job.begin()
    job.answer("state", state)
    done = job.end(0)
    assert done.returncode == 75 and not done.requeued and "Slurm has already requeued it" in done.stdout


def test_what_was_queued_again_just_now_has_no_successor(job):
    """Between the two questions. If it failed: a successor beside the job itself, both in one run."""
    job.begin()
    job.answer("refusal", "Job is pending execution for job 7")
    done = job.end(75)
    assert done.returncode == 75 and "successor" not in job.log.read_text()


def test_a_job_that_begins_while_this_one_asks_is_left_alone(job, tmp_path):
    """Of the same stage: a template beside the launcher's. If it failed: the older one comes back and takes the run again."""
    job.begin()
    job.answer("refusal", "Unable to contact slurm controller")
    (tmp_path / "sleep").write_text(f'#!/bin/sh\necho "start 9.0 0 1 1" >> "{job.log}"\nrm -f "{tmp_path}/slurm/refusal"\n')
    done = job.end(75)
    assert not done.requeued and "superseded by 9.0" in done.stdout


def test_an_older_attempt_writes_no_outcome(job, monkeypatch):
    job.begin()
    job.begin(1)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    with pytest.raises(rundir.SupersededError, match=r"7\.0 was superseded by 7\.1"):
        job.run.write_outcome("train", "stopped")
    assert job.run.read_outcome() is None


def test_a_crash_is_begun_again_only_with_progress_and_a_few_times(job):
    for restart in range(3):
        job.begin(restart)
        job.progress(restart + 1)
        assert job.end(139).requeued
    job.begin(3)
    job.progress(4)
    done = job.end(139)
    assert done.returncode == 139 and not done.requeued and "4 crashes" in done.stdout


def test_a_container_that_does_not_start_is_tried_once_more(job):
    job.begin()
    assert job.end(255).requeued
    job.begin(1)
    assert job.end(255).returncode == 255


def test_starts_without_progress_come_to_an_end(job, monkeypatch):
    """Three that the run itself ended where it began. If it failed: node hours burn until somebody looks."""
    for restart in range(3):
        assert job.begin(restart).returncode == 0
        assert job.end(75).requeued
    stuck = job.begin(3)
    assert stuck.returncode == 1 and "started 4 times from the same place" in stuck.stdout
    assert job.lines("end", 5) == ["stopped"] * 3 + ["failed"]
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert job.begin().returncode == 0, "a person's new launch counts anew"


def test_what_others_did_does_not_count_against_the_run(job, monkeypatch):
    """Nodes that are lost, preemptions without notice (no last line) and processes that are killed, before anything was saved.

    If it failed: three of them within the first interval between checkpoints end a run for good.
    """
    monkeypatch.setenv("P2P_MAX_REQUEUES", "8")
    for restart in range(8):
        assert job.begin(restart).returncode == 0, restart
        if restart % 2:
            assert job.end(137).requeued
    assert job.lines("end", 5) == ["killed"] * 8
    for restart in (8, 9):
        done = job.begin(restart)
        assert done.returncode == restart - 8 and ("--max-requeues" in done.stdout) == (restart == 9), "not for ever"


def test_memory_that_runs_out_is_the_runs_own(job, monkeypatch):
    """As job.sh hears from the kernel. If it failed: what can never fit is begun ten times."""
    job.begin()
    monkeypatch.setenv("P2P_OUT_OF_MEMORY", "1")
    done = job.end(137)
    assert done.returncode == 137 and not done.requeued and job.lines("end", 5) == ["crash"]


def test_a_training_that_is_done_is_not_begun_again(job):
    """Slurm restarts a job whose node was lost just as it finished. If it failed: "without progress", and what
    waits for it is dropped."""
    job.begin()
    job.progress(24)
    job.run.write_outcome("train", "done", step=24)
    for restart in range(1, 6):
        done = job.begin(restart)
        assert done.returncode == 10 and "already done" in done.stdout
    assert job.lines("end", 5) == ["done"] * 6
    (job.run.checkpoints / rundir.step_name(24)).rmdir()
    assert job.begin(6).returncode == 0, "what it saved is gone"


def test_a_controller_that_lost_count_of_restarts_makes_no_new_launch(job, monkeypatch):
    """Killed, it may begin a job a second time with the same number of restarts. If it failed: two starts of one name, of
    which the older goes on; and counts that are reset."""
    for nonce in ("a1", "b2"):
        monkeypatch.setenv("P2P_ATTEMPT", f"7.0-{nonce}")
        job.begin()
    assert job.lines("launch", 1) == ["7"] and job.lines("start", 1) == ["7.0-a1", "7.0-b2"]
    monkeypatch.setenv("P2P_ATTEMPT", "7.0-a1")
    assert "7.0-a1 was superseded by 7.0-b2" in job.end(75).stdout


@pytest.mark.parametrize("code", [137, 1, 75])
def test_a_step_whose_starter_was_killed_is_waited_for(code, job, tmp_path):
    """srun is killed while the controller is away, and its tasks go on. If it failed: a training that then finishes
    counts as crashed, or is begun beside what still runs."""
    job.begin()
    job.answer("steps", "7.batch\n7.0")
    job.answer("away", "2")
    outcome = '{"attempt": "7.0", "outcome": "done", "step": 24}'
    ends = f"{{ echo 7.batch > steps; echo '{outcome}' > '{job.run.outcome}'; }}"
    (tmp_path / "sleep").write_text(f'#!/bin/sh\ncd "{tmp_path}/slurm"\nrm -f away\n[ "$1" != 2 ] || {ends}\n')
    done = job.end(code)
    assert (done.returncode, done.requeued, job.lines("end", 5)) == (0, False, ["done"]), done


def test_a_python_of_this_node_keeps_the_record(job, monkeypatch, tmp_path):
    """The system's, or the job's own where it is not inside a container. Without one it is said what to load."""
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")  # older than 3.6
    monkeypatch.setenv("P2P_PYTHON", sys.executable)
    assert job.begin().returncode == 0 and job.lines("start", 1) == ["7.0"]
    monkeypatch.setenv("P2P_CONTAINER", "image.sif")
    done = job.begin(1)
    assert done.returncode == 2 and "module load" in done.stderr and job.lines("start", 1) == ["7.0"]


def test_restarts_are_bounded(job, monkeypatch):
    monkeypatch.setenv("P2P_MAX_REQUEUES", "1")
    for restart, leaves in enumerate((0, 0, 1)):
        job.progress(restart + 1)
        done = job.begin(restart)
        assert done.returncode == leaves
    assert "already restarted 1 times (--max-requeues)" in done.stdout
    monkeypatch.setenv("P2P_MAX_REQUEUES", "2")
    job.run.write_outcome("train", "stopped")
    done = job.end(75)
    assert not done.requeued and "--max-requeues" in done.stdout


def test_no_further_start_once_the_gpu_hours_are_used(job, monkeypatch):
    """Of the run, over all its launches, at a start as well as at an end.

    If it failed: what Slurm itself requeues, or a person launches again, is billed on and on.
    """
    monkeypatch.setenv("P2P_MAX_SECONDS", "3600")
    assert job.begin().returncode == 0
    begun = int(job.lines("start", 3)[0])
    job.log.write_text(job.log.read_text().replace(str(begun), str(begun - 90_000)))
    job.run.status.write_text('{"what": "train"}')  # it lived until now
    done = job.begin(1)
    assert done.returncode == 75 and "a larger --max-gpu-hours" in done.stdout and job.lines("end", 5) == ["killed", "stopped"]
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert job.begin().returncode == 75, "a new launch does not refill what the run may use"
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "25")
    assert job.begin(1).returncode == 75, "25 hours of one node are one of 25"
    monkeypatch.setenv("P2P_MAX_SECONDS", "3700")
    assert job.begin(2).returncode == 0
    monkeypatch.setenv("P2P_MAX_SECONDS", "3600")
    job.run.write_outcome("train", "stopped")
    done = job.end(75)
    assert done.returncode == 75 and not done.requeued and "--max-gpu-hours" in done.stdout


def test_a_start_that_uses_up_the_gpu_hours_is_not_requeued(job, monkeypatch):
    """If it failed: a job waits in the queue for days, to be refused when it starts."""
    monkeypatch.setenv("P2P_MAX_SECONDS", "3600")
    job.begin()
    begun = int(job.lines("start", 3)[0])
    job.log.write_text(job.log.read_text().replace(str(begun), str(begun - 3600)))
    done = job.end(75)
    assert done.returncode == 75 and not done.requeued and "--max-gpu-hours" in done.stdout


def test_hours_of_another_partition_are_counted_by_its_bill(job, monkeypatch):
    """Five hours of nodes of 4 GPU-hours leave nothing of 20; of nodes of half a GPU-hour they are 2.5."""
    monkeypatch.setenv("P2P_MAX_SECONDS", "18000")  # 20 GPU-hours at 4
    monkeypatch.setenv("P2P_RATE", "0.500000")
    assert job.begin().returncode == 0
    assert job.lines("start", 5) == ["rate=0.500000"]
    begun = int(job.lines("start", 3)[0])
    job.log.write_text(job.log.read_text().replace(str(begun), str(begun - 18_000)))
    job.run.status.write_text('{"what": "train"}')  # it lived until now
    monkeypatch.setenv("P2P_RATE", "4.000000")
    assert job.begin(1).returncode == 0
    monkeypatch.setenv("P2P_MAX_SECONDS", "2249")
    done = job.begin(2)
    assert done.returncode == 75 and "--max-gpu-hours" in done.stdout, "2250 seconds at today's bill are used"
    assert job.lines("start", 5) == ["rate=0.500000", "rate=4.000000", "rate=4.000000"]


def test_what_another_stage_does_after_a_killed_start_is_not_counted(job, monkeypatch):
    """Days later someone evaluates the run: that writes status.json, and changes the folders of checkpoints."""
    monkeypatch.setenv("P2P_MAX_SECONDS", "36000")
    assert job.begin().returncode == 0
    begun = int(job.lines("start", 3)[0])
    job.log.write_text(job.log.read_text().replace(str(begun), str(begun - 90_000)))
    job.progress(20)
    (saved,) = checkpoints.find(job.run.checkpoints)
    (saved.path / checkpoints.META).touch()
    job.run.metrics.touch()
    for path in (saved.path / checkpoints.META, job.run.metrics):
        os.utime(path, (begun - 89_000, begun - 89_000))
    job.run.status.write_text('{"what": "evaluate"}')
    assert job.begin(1).returncode == 0
    assert job.lines("end", 3) == job.lines("end", 6) == [str(begun - 89_000)]
    assert job.lines("end", 5) == ["killed"]


def test_what_was_used_on_any_number_of_nodes_counts(job, monkeypatch):
    """An hour on 4 nodes, then one on 1: 5 node-hours. If it failed: each start is counted as one on its own nodes."""
    monkeypatch.setenv("P2P_MAX_NODE_SECONDS", str(5 * 3600 + 1))
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    lines = [
        "launch 7",
        "start 7.0 0 1000 4",
        "end 7.0 10 4600 75 stopped",
        "start 7.1 10 5000 1",
        "end 7.1 20 8600 75 stopped",
    ]
    job.log.parent.mkdir(parents=True)
    job.log.write_text("\n".join(lines) + "\n")
    job.progress(20)
    assert job.begin(2).returncode == 0
    monkeypatch.setenv("P2P_MAX_NODE_SECONDS", str(5 * 3600))
    done = job.begin(3)
    assert done.returncode == 75 and "GPU-hours are used up" in done.stdout


def test_a_cancelled_run_is_not_begun_again(job, monkeypatch):
    """Nor one that was cancelled before its first process, which no signal reached, or while its job waited to are reset."""
    job.begin()
    (job.run.slurm / "cancelled").touch()
    job.run.write_outcome("train", "stopped")
    done = job.end(75)
    assert done.returncode == 75 and not done.requeued
    for restart in (1, 0):
        done = job.begin(restart)
        assert done.returncode == 75 and "was cancelled" in done.stdout and job.lines("end", 5)[-1] == "stopped"
    # What a person queues after that is a new launch, as with the launcher, which takes the mark away itself.
    job.answer("submitted", time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 60)))
    assert job.begin().returncode == 75
    job.answer("submitted", time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 60)))
    assert job.begin(1).returncode == 75, "a requeued job has a new time, too"
    script = job.log.parent / "7_submission.sh"  # the launcher's: cancelled within the second in which it was queued
    script.touch()
    assert job.begin().returncode == 75
    script.unlink()
    cancelled = job.run.slurm / "cancelled"
    job.answer("submitted", time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(cancelled.stat().st_mtime)))
    assert job.begin().returncode == 0 and not cancelled.exists(), "also within the second in which it was cancelled"


def test_an_evaluation_waits_for_its_training_as_long_as_that_takes(job, monkeypatch):
    """If it failed: a training of days, or one that waits in the queue, loses the evaluation beside it, and the page."""
    job.stage("evaluate")
    job.run.path.mkdir()
    monkeypatch.setenv("P2P_EVALUATE", "during")
    monkeypatch.setenv("P2P_MAX_REQUEUES", "2")
    link = job.run.path.with_name("by another name")
    link.symlink_to(job.run.path)
    job.answer("comments", f"N/A p2p_dist page {link}\nN/A p2p_dist train {link}")
    for restart in range(6):
        assert job.begin(restart).returncode == 0
        job.run.write_outcome("evaluate", "stopped")
        assert job.end(75).requeued
    assert set(job.lines("start", 5)) == {"beside"}
    # The second of a sweep, then the third.
    sweep = job.run.path.parent / ".sweeps" / "0123456789abcdef"
    sweep.parent.mkdir()
    sweep.write_text(f"{job.run.path}-0\n{job.run.path}\n{job.run.path}-2\n")
    job.answer("comments", f"N/A p2p_dist page {job.run.path}\n1 p2p_dist train {sweep}")
    assert job.begin(6).returncode == 0 and job.lines("start", 5)[-1] == "beside"
    job.run.write_outcome("evaluate", "stopped")
    assert job.end(75).requeued
    others = f"0 p2p_dist train {sweep}\n2 p2p_dist train {sweep}\n9 p2p_dist train {sweep}\n0 p2p_dist train {sweep}-gone"
    job.answer("comments", f"N/A p2p_dist page {job.run.path}\nN/A p2p_dist train {job.run.path}-2\n{others}")
    for restart in (7, 8, 9):
        assert job.begin(restart).returncode == 0, "the training is over: now it counts"
        job.end(75)
    done = job.begin(10)
    assert done.returncode == 1 and "started 4 times from the same place" in done.stdout


def test_an_evaluation_forgets_that_an_earlier_training_was_gone(job):
    """If it failed: launched again beside a training, it ends at once, and what that one saves is not evaluated."""
    job.stage("evaluate")
    gone = job.run.slurm / "evaluate" / "no-training"
    gone.parent.mkdir(parents=True)
    gone.touch()
    assert job.begin().returncode == 0 and not gone.exists()


def test_a_crash_behind_143_is_counted(job):
    """143 hides every lower code, 139 and 137 too. A training that came further listened, and would have said that it stopped;
    where it did not, starts from one place are bounded. If it failed: one that crashes each time is restarted ten times."""
    for restart in range(4):
        job.begin(restart)
        job.progress(restart + 1)
        done = job.end(143)
        assert done.requeued == (restart < 3)
    assert job.lines("end", 5) == ["crash"] * 4
    job.begin(4)
    assert job.end(143).requeued and job.lines("end", 5)[-1] == "stopped"


def test_a_long_page_goes_on_as_long_as_it_writes_tracks(job):
    """One start makes some hundred of them. If it failed: a run of many checkpoints and songs never has a page."""
    job.stage("page")
    for restart in range(6):
        assert job.begin(restart).returncode == 0
        (job.run.page.parent / "media" / "a" / f"step-{restart}").mkdir(parents=True)
        (job.run.page.parent / "media" / "a" / f"step-{restart}" / "track.json").touch()
        assert job.end(75).requeued
    assert job.lines("start", 2) == ["0", "1", "2", "3", "4", "5"]
    for restart in range(6, 10):
        code = job.begin(restart).returncode
        job.end(75)
    assert code != 0, "without any it does not"


def test_a_record_that_can_not_be_read_just_now_ends_no_run(job, tmp_path):
    """For a moment, as on a parallel file system. If it failed: a training that has saved, and that nobody queues again."""
    python = (tmp_path / "python3").read_text()
    (tmp_path / "python3").write_text(python.replace("exec", 'case "$*" in *" owner"*) exit 1 ;; esac\nexec', 1))
    job.begin()
    done = job.end(75)
    assert done.returncode == 75 and done.requeued, done


def test_of_an_array_only_this_part_is_requeued(job, monkeypatch, tmp_path):
    """Its last part has the array's own number. If it failed: all parts are restarted, those that are done as well; or, as
    all are listed, none."""
    code = job.run.code / "hpc"
    snapshot.copy_code(job.run.code)
    (tmp_path / "srun").write_text(f'#!/bin/sh\necho "$P2P_JOB $P2P_ATTEMPTS" > "{tmp_path}/slurm/srun"\nexit 75\n')
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "nid1")
    for name, number in (("SLURM_JOB_ID", "7"), ("SLURM_ARRAY_JOB_ID", "7"), ("SLURM_ARRAY_TASK_ID", "0")):
        monkeypatch.setenv(name, number)
    command = ["bash", code / "job.sh", "evaluate", job.run.path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 75 and "requeued" in done.stdout, f"{done.stdout[-800:]} {done.stderr[-1500:]}"
    assert job.told("called")[-1] == "requeue 7_0"
    assert job.told("srun") == [f"7_0 {job.run.slurm}/evaluate/attempts.0"]


@pytest.mark.parametrize(("name", "value"), [("POSIXLY_CORRECT", "1"), ("SHELLOPTS", "posix")])
def test_a_shell_of_posix_hears_how_a_step_ended(name, value, job, monkeypatch, tmp_path):
    """In that mode bash forgets the exit code of a child that it has waited for. If it failed: 127, and a crash."""
    snapshot.copy_code(job.run.code)
    (tmp_path / "srun").write_text(f'#!/bin/sh\necho "${{POSIXLY_CORRECT-none}}" > "{tmp_path}/slurm/srun"\nexit 75\n')
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "nid1")
    command = ["env", f"{name}={value}", "bash", job.run.code / "hpc" / "job.sh", "train", job.run.path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 75 and "requeued" in done.stdout, f"{done.stdout[-800:]} {done.stderr[-1500:]}"
    assert job.lines("end", 4) == ["75"] and job.told("srun") == ["none"]


def test_nothing_is_started_in_a_cancelled_run(job, monkeypatch, tmp_path):
    code = job.run.code / "hpc"
    snapshot.copy_code(job.run.code)
    (tmp_path / "srun").write_text(f'#!/bin/sh\ntouch "{tmp_path}/slurm/srun"\n')
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "nid1")
    job.run.slurm.mkdir(exist_ok=True)
    (job.run.slurm / "cancelled").touch()
    done = subprocess.run(["bash", code / "job.sh", "train", job.run.path], capture_output=True, text=True)
    assert done.returncode == 75 and "was cancelled" in done.stdout and not (tmp_path / "slurm" / "srun").exists()


def test_no_request_to_stop_ends_the_batch_shell(job, monkeypatch, tmp_path):
    """`scancel --full` reaches it and all that it calls: here whenever it asks Slurm or counts, before its step and after. It
    dies of the TERM of its own requeue alone. If it failed: a training that has saved, and that nobody queues again."""
    snapshot.copy_code(job.run.code)
    squeue, python = tmp_path / "squeue", tmp_path / "python3"
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    for path in (squeue, python):
        path.write_text(path.read_text().replace("\n", "\nfor name in USR1 USR2 TERM; do kill -$name 0; done\n", 1))
    (tmp_path / "sleep").write_text('#!/bin/sh\n[ "$1" != 120 ] || kill -TERM $PPID\n')
    monkeypatch.setenv("SLURM_JOB_NODELIST", "nid1")
    command = ["bash", job.run.code / "hpc" / "job.sh", "train", job.run.path]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert done.returncode == -signal.SIGTERM and "requeued" in done.stdout, done
    assert job.told("called")[-1] == "requeue 7" and job.lines("end", 5) == ["stopped"]


GIVEN = {
    "SLURM_JOB_NAME": ("job-name", "mine"),
    "SLURM_JOB_ACCOUNT": ("account", "project_1"),
    "SLURM_JOB_QOS": ("qos", "normal"),
    "SLURM_JOB_PARTITION": ("partition", "standard-g"),
    "SLURM_JOB_NUM_NODES": ("nodes", "2"),
    "SLURM_NTASKS": ("ntasks", "16"),
    "SLURM_NTASKS_PER_NODE": ("ntasks-per-node", "8"),
    "SLURM_CPUS_PER_TASK": ("cpus-per-task", "7"),
    "SLURM_GPUS_PER_NODE": ("gpus-per-node", "8"),
    "SLURM_MEM_PER_NODE": ("mem", "491520"),
}


@pytest.mark.parametrize("gpus_by_gres", [False, True])
def test_a_successor_asks_for_what_this_job_was_given(gpus_by_gres, job, monkeypatch):
    """If it failed: one process instead of 16, another project billed, a time limit of the template's; or the launcher, and the
    evaluation that waits, do not see that the run goes on."""
    given = dict(GIVEN)
    if gpus_by_gres:
        del given["SLURM_GPUS_PER_NODE"]
    for name, (_, value) in given.items():
        monkeypatch.setenv(name, value)
    for name in ("SBATCH_ACCOUNT", "SBATCH_TIMELIMIT", "SLURM_GPUS_ON_NODE"):
        monkeypatch.setenv(name, "other")
    job.begin()
    job.answer("refusal", "Requested operation is presently disabled for job 7")
    job.answer("given", "3:00:00|(null)|NO|gres:gpu:8")
    job.answer("waiting", "12 afterok:7(unfulfilled)\n13 afterok:77(unfulfilled)")
    done = job.end(75)
    assert done.returncode == 75 and "job 8 continues it" in done.stdout, done
    *options, script, run = job.told("sbatch")
    wanted = {f"--{option}={value}" for option, value in given.values()}
    wanted |= {
        "--parsable",
        "--dependency=afterany:7",
        "--time=3:00:00",
        "--exclusive",
        f"--comment=p2p_dist train {job.run.path}",
    }
    wanted.add(f"--output={str(job.run.slurm).replace('%', '%%')}/train/%j_0_log.out")
    assert set(options) == wanted | ({"--gres=gpu:8"} if gpus_by_gres else set())
    assert (script, run) == (f"{job.run.slurm}/train/7.sh", str(job.run.path))
    assert job.told("inherited") in ([], [f"SLURM_CONF={os.environ.get('SLURM_CONF')}"])
    assert job.lines("successor", 1) == ["8"]
    assert [line for line in job.told("called") if "dependency" in line] == ["update jobid=12 dependency=afterok:8"]


def test_a_job_that_cannot_wait_for_the_successor_keeps_no_other_from_it(job, tmp_path):
    """It was cancelled just now. If it failed: Slurm removes the other jobs that wait, as their dependency can't be met."""
    real = (tmp_path / "scontrol").read_text()
    (tmp_path / "scontrol").write_text(real + '[ "$2" != jobid=12 ] || { echo "Invalid job id specified" >&2; exit 1; }\n')
    job.begin()
    job.answer("refusal", "Requested operation is presently disabled for job 7")
    job.answer("given", "3:00:00|(null)|NO|gres:gpu:8")
    job.answer("waiting", "12 afterok:7(unfulfilled)\n13 afterok:7(unfulfilled)")
    done = job.end(75)
    assert done.returncode == 75 and "job 8 continues it" in done.stdout, done
    assert job.told("called")[-1] == "update jobid=13 dependency=afterok:8"
    assert "job 12 does not wait for job 8" in done.stdout


def test_a_successor_asks_for_the_range_again(job, monkeypatch):
    """If it failed: a training that was small once stays small."""
    for name, value in {"SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_PER_TASK": "56", "P2P_NODES": "1-4"}.items():
        monkeypatch.setenv(name, value)
    job.begin()
    job.answer("refusal", "Requested operation is presently disabled for job 7")
    job.answer("given", "3:00:00|(null)|NO|gres:gpu:8")
    job.answer("waiting", "")
    assert job.end(75).returncode == 75
    asked = [option for option in job.told("sbatch") if option.startswith(("--nodes", "--ntasks", "--cpus"))]
    assert asked == ["--nodes=1-4", "--cpus-per-task=56"]


def test_an_environment_file_may_name_what_is_not_set(tmp_path):
    """As such files do. If it failed: exit code 1, which is taken for a failure of the run itself."""
    (tmp_path / "site").write_text("export LD_LIBRARY_PATH=/x:$LD_LIBRARY_PATH\n")
    environment = {name: value for name, value in os.environ.items() if name not in ("LD_LIBRARY_PATH", "P2P_CONTAINER")}
    command = ["bash", CHECKOUT / "hpc" / "rank.sh", "printenv", "LD_LIBRARY_PATH"]
    done = subprocess.run(
        command, env={**environment, "P2P_ENVIRONMENT": str(tmp_path / "site")}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "/x:\n"), done


def test_what_the_templates_are_given_on_lumi_is_what_the_launcher_gives(tmp_path):
    """As hpc/LUMI.md tells a user to type it. If it failed: no container, or other cores than those next to each die."""
    text = (CHECKOUT / "hpc" / "LUMI.md").read_text().split("## Without the launcher")[1].split("\n## ")[0]
    typed = "\n".join(line.strip() for line in text.splitlines() if line.startswith("    "))
    (tmp_path / "sbatch").write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/given"\nenv | grep ^P2P_ >> "{tmp_path}/given"\n'
    )
    (tmp_path / "sbatch").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["bash", "-eu"], input=typed, text=True, check=True, cwd=tmp_path, env={"PATH": path})
    given = set((tmp_path / "given").read_text().splitlines())
    resources = config.Resources(nodes=2, account="project_465000000", container=str(tmp_path / "containers" / "p2p_dist.sif"))
    run = rundir.RunDir(tmp_path / "runs" / "RUN")
    (job,) = specs.jobs(run, config.Config(resources=resources), site.load_site("lumi"), ("train",))
    lines = job.script().splitlines()
    exported = {line.removeprefix("export ").replace("'", "") for line in lines if line.startswith("export P2P_")}
    exported = {line.replace('"$run"/code', str(tmp_path)).split(f",{tmp_path}")[0] for line in exported if "_MAX_" not in line}
    asked = ("account", "partition", "exclusive", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem")
    options = {line.removeprefix("#SBATCH ") for line in lines if line.startswith(tuple(f"#SBATCH --{name}" for name in asked))}
    comment = f"--comment={specs.comment('train', run)}"
    assert given - {"hpc/train.sbatch", "RUN"} == exported | options | {comment}


@pytest.mark.parametrize("stage", ["preprocess", "pattern", "train", "evaluate"])
def test_a_site_that_allows_no_comment_ends_no_job(stage, job, tmp_path):
    """Some sites keep it for themselves. If it failed: no template runs there."""
    (tmp_path / "scontrol").write_text("#!/bin/sh\nexit 1\n")
    (job.run.code / "hpc").mkdir(parents=True)
    (job.run.code / "hpc" / "job.sh").write_text('echo "$@"\n')
    job.run.config.touch()
    done = subprocess.run(["bash", CHECKOUT / "hpc" / f"{stage}.sbatch", job.run.path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{stage} {job.run.path}\n"), done


def test_a_request_to_stop_while_the_code_is_checked_is_kept(job, monkeypatch, tmp_path):
    """The batch script takes half a second to compare the copy of the code. If it failed: a job that was preempted just then
    ends as killed, or as one whose code is not its own, and nobody queues it again."""
    snapshot.copy_code(job.run.code)
    job.run.config.touch()
    for name in ("find", "sha256sum"):
        real = shutil.which(name)
        (tmp_path / name).write_text(f'#!/bin/sh\nfor name in USR1 USR2 TERM; do kill -$name 0; done\nexec {real} "$@"\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "srun").write_text(f'#!/bin/sh\ntouch "{tmp_path}/slurm/srun"\n')
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "nid1")
    monkeypatch.setenv("RUN", str(job.run.path))
    check = (CHECKOUT / "hpc" / "check_code.sh").read_text()
    script = f'set -euo pipefail\nrun=$RUN\n{check}\nexec bash "$run/code/hpc/job.sh" train "$run"\n'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 75 and "requeued" in done.stdout, f"{done.stdout[-800:]} {done.stderr[-1500:]}"
    assert job.told("called")[-1] == "requeue 7" and not (tmp_path / "slurm" / "srun").exists()


def test_tasks_of_a_killed_srun_are_waited_for(job, tmp_path):
    """If it failed: the job is requeued while its training still runs."""
    steps = 'case "$*" in\n*--steps*) echo >> asked; [ $(wc -l < asked) -gt 2 ] || echo 7.0 ;;'
    (tmp_path / "squeue").write_text((tmp_path / "squeue").read_text().replace('case "$*" in', steps))
    job.begin()
    job.run.write_outcome("train", "stopped")
    job.end(143)
    assert len((tmp_path / "slurm" / "asked").read_text().splitlines()) == 3


def test_an_evaluation_of_which_a_task_was_killed_is_requeued(job):
    job.stage("evaluate")
    job.begin()
    job.run.write_outcome("evaluate", "done")
    done = job.end(137)
    assert (done.returncode, done.requeued) == (75, True), done


def test_a_successor_is_told_though_who_waits_is_not_known(job, tmp_path):
    text = (tmp_path / "squeue").read_text()
    (tmp_path / "squeue").write_text(text.replace("*%E*) cat waiting ;;", "*%E*) exit 1 ;;"))
    job.begin()
    job.answer("refusal", "Requested operation is presently disabled for job 7")
    job.answer("given", "3:00:00|(null)|NO|gres:gpu:8")
    done = job.end(75)
    assert done.returncode == 75 and "are not known" in done.stdout and "job 8 continues" in done.stdout


def test_an_environment_file_that_fails_is_named(tmp_path):
    """Its last line may be a test that is false, which bash takes for a failure of the file."""
    (tmp_path / "site").write_text('[ -n "" ] && export A=1\n')
    command = ["bash", CHECKOUT / "hpc" / "rank.sh", "echo", "started"]
    environment = {name: value for name, value in os.environ.items() if name != "P2P_CONTAINER"}
    environment["P2P_ENVIRONMENT"] = str(tmp_path / "site")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    assert f"error: a command in {tmp_path}/site failed, so this process is not started" in done.stderr
    (tmp_path / "site").write_text('[ -n "" ] && export A=1\ntrue\n')
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
