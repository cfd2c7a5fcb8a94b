"""The record of a stage's starts: what it says, read by the launcher and by the batch shell, whatever Python either has."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import vermin
from hypothesis import given, settings, strategies

from p2p_dist.jobs.slurm import batch
from p2p_dist.run import snapshot, starts
from tests.full_disk import largest_file

OLDEST = (3, 6)

# What a record says: starts, crashes, same place, progress at the last start, owner, open, since, seconds of node time.
RECORDS = {
    "": (0, 0, 0, 0, None, None, 0, 0),
    "launch 7": (0, 0, 0, 0, None, None, 0, 0),
    "start 7.0 0 100 1": (1, 0, 0, 0, "7.0", "7.0", 100, 0),
    "launch 7 / start 7.0 5 100 2": (1, 0, 0, 5, "7.0", "7.0", 100, 0),
    "launch 7 / start 7.0 0 100 2 / end 7.0 8 160 75 stopped 150": (1, 0, 1, 0, "7.0", None, 100, 120),
    "launch 7 / start 7.0 0 100 1 / end 7.0 0 200 140 stopped 0": (1, 0, 0, 0, "7.0", None, 100, 100),
    "launch 7 / start 7.0 0 100 1 / end 7.0 0 200 - killed 0": (1, 0, 0, 0, "7.0", None, 100, 100),
    "launch 7 / start 7.0 0 100 1 / end 7.0 0 200 139 crash 0": (1, 1, 1, 0, "7.0", None, 100, 100),
    "launch 7 / start 7.0 0 100 1 / end 7.0 0 200 1 failed": (1, 0, 1, 0, "7.0", None, 100, 100),
    "launch 7 / start 7.0 0 100 1 / end 7.0 9 200 0 done 200": (1, 0, 0, 0, "7.0", None, 100, 100),
    # From another place: what was before does not count any more.
    "start 7.0 0 100 1 / end 7.0 5 200 75 stopped 0 / start 7.1 5 300 1": (2, 0, 0, 5, "7.1", "7.1", 300, 100),
    "start 7.0 5 100 1 / end 7.0 5 200 75 stopped 0 / start 7.1 5 300 1": (2, 0, 1, 5, "7.1", "7.1", 300, 100),
    # A new launch counts anew, but the hours are those of the run.
    "launch 7 / start 7.0 0 1 1 / end 7.0 0 3 139 crash 0 / launch 8 / start 8.0 0 5 1": (1, 0, 0, 0, "8.0", "8.0", 5, 2),
    "launch 7 / start 7.0 0 1 1 / end 7.0 0 3 139 crash 0 / launch 8": (0, 0, 0, 0, "7.0", None, 1, 2),
    # A successor continues with the counts.
    "launch 7 / start 7.0 0 1 1 / end 7.0 0 3 75 stopped 0 / successor 8 / start 8.0 0 5 1": (2, 0, 1, 0, "8.0", "8.0", 5, 2),
    # The newest owns the run; the end of an older one that comes late is no end of it.
    "start 7.0 0 100 1 / start 7.1 0 200 1 / end 7.0 0 300 75 stopped 0": (2, 0, 0, 0, "7.1", "7.1", 200, 0),
    "start 7.0 0 100 1 / start 7.1 0 200 1 / end 7.0 0 300 139 crash 0": (2, 1, 0, 0, "7.1", "7.1", 200, 0),
    # 7.1 and 7.10 are two.
    "start 7.10 0 100 1 / end 7.1 0 200 75 stopped 0": (1, 0, 0, 0, "7.10", "7.10", 100, 0),
    # Beside a training an evaluation may begin as often as it has to.
    "launch 7 / start 7.0 0 100 1 beside / end 7.0 0 200 75 stopped 0": (0, 0, 0, 0, "7.0", None, 100, 100),
    "start 7.0 0 1 1 / end 7.0 0 2 75 stopped 0 / start 7.1 0 3 1 beside": (0, 0, 0, 0, "7.1", "7.1", 3, 1),
    "start 7.0 0 1 1 / end 7.0 0 2 75 stopped 0 / start 7.1 0 3 1 beside / end 7.1 0 4 75 stopped 0 / start 7.2 0 5 1": (
        *(2, 0, 1, 0, "7.2", "7.2", 5, 2),
    ),
    "launch 7 / start 7.0 0 100 1 beside / end 7.0 0 200 75 stopped 0 / start 7.1 0 300 1 / end 7.1 0 400 - killed 0 / "
    "start 7.2 0 500 1 / end 7.2 0 600 - killed 0 / start 7.3 0 700 1": (3, 0, 0, 0, "7.3", "7.3", 700, 300),
    # What a full disk cut short, what is no record, and what a later version may add.
    "start 7.0 0 10 / start 7.0 0 100 1": (1, 0, 0, 0, "7.0", "7.0", 100, 0),
    "start 7.": (0, 0, 0, 0, None, None, 0, 0),
    "start 7.0 0 100 1 / end 7.0 0 2 / end 7.0 0 200 75 stopped 0": (1, 0, 1, 0, "7.0", None, 100, 100),
    "start 7.0 0 100 1 / end 7.0 0 200 75": (1, 0, 0, 0, "7.0", "7.0", 100, 0),
    "start 7.0 some 100 1 / nonsense / end / start": (0, 0, 0, 0, None, None, 0, 0),
    "moved 7.0 0 100 1 / start 7.0 0 100 1 alone 3 / moved x": (1, 0, 0, 0, "7.0", "7.0", 100, 0),
}


@pytest.mark.parametrize("record", RECORDS)
def test_what_a_record_says(record, tmp_path):
    (tmp_path / "attempts").write_text(record.replace(" / ", "\n") + "\n")
    assert starts.count(tmp_path / "attempts") == starts.Counts(*RECORDS[record])


def test_a_start_is_counted_by_its_own_bill(tmp_path):
    """If it failed: after a change of the partition, all earlier hours would be billed as those of the new one."""
    log = tmp_path / "attempts"
    for number, further in enumerate(("rate=4.000000", "beside rate=0.500000", "", "rate=x", "4.0")):
        starts.append(log, f"start 7.{number} 0 100 2 {further}".rstrip())
        starts.append(log, f"end 7.{number} 0 200 75 stopped 0")
    assert [one.rate for one in starts.list_starts(log)] == [4, 0.5, 0, 0, 0]
    assert starts.count(log).seconds == 5 * 200
    assert starts.count(log, 2.0).seconds == 2 * 200 + 200 / 4 + 3 * 200, "one without a bill has that of today"


def test_there_are_records_of_many_kinds(tmp_path):
    assert len(RECORDS) >= 20
    assert starts.count(tmp_path / "none") == starts.Counts()


def test_counts_never_contradict_each_other(tmp_path):
    """Of records of any kind: every attempt that is open owns the run, and no more starts of one place end than there were."""
    names = strategies.sampled_from(["7.0", "7.1", "7.10", "8.0-a1", "8.0-b2"])
    places, why = strategies.integers(0, 2), strategies.sampled_from(["done", "stopped", "failed", "crash", "killed"])
    lines = strategies.one_of(
        strategies.builds("launch {}".format, names),
        strategies.builds("start {} {} 100 1{}".format, names, places, strategies.sampled_from(["", "", " beside"])),
        strategies.builds("end {} {} 200 {} {} 0".format, names, places, strategies.sampled_from([75, 140]), why),
    )
    log = tmp_path / "attempts"

    @settings(max_examples=200, deadline=None, database=None)
    @given(strategies.lists(lines, max_size=8))
    def check(record):
        log.write_text("".join(f"{line}\n" for line in record))
        counts = starts.count(log)
        began = [line.split() for line in record if line.startswith("start")]
        assert counts.owner == (began[-1][1] if began else None)
        assert counts.open in (None, counts.owner)
        assert 0 <= counts.same <= max(counts.starts, counts.same and 1) and counts.starts <= len(began)
        assert counts.crashes <= sum(" crash" in line for line in record)
        assert counts.seconds == 100 * sum(1 for one in _ended_before_the_next(record))

    check()


def _ended_before_the_next(record):
    """The starts that ended before another one began."""
    last = None
    for line in record:
        kind, name, *_ = line.split()
        if kind == "start":
            last = name
        elif kind == "end" and name == last:
            last = None
            yield line


def test_a_line_is_written_whole_or_said_not_to_be(tmp_path):
    log = tmp_path / "attempts"
    starts.append(log, "launch 7")
    starts.append(log, "start 7.0 0 1 1", "\n")
    assert log.read_text() == "launch 7\n\nstart 7.0 0 1 1\n"
    (tmp_path / "link").symlink_to(log)
    with pytest.raises(OSError):
        starts.append(tmp_path / "link", "launch 8")
    with pytest.raises(OSError):
        starts.append(Path("/dev/full"), "launch 8")


@pytest.mark.parametrize("module", [starts, batch])
def test_the_batch_shells_half_is_plain_enough_for_the_oldest_python(module):
    """Of a compute node outside the container. Its syntax, and every name of the standard library that it uses."""
    path = Path(module.__file__)
    tree = ast.parse(path.read_text(), feature_version=OLDEST)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"json", "os", "pathlib", "re", "sys", "time", "typing", "p2p_dist.run"}
    asked = vermin.Config()
    asked.set_eval_annotations(True)
    needs = vermin.detect(path.read_text(), config=asked)
    assert needs[1] is not None and needs[1] <= OLDEST, needs
    assert vermin.detect("import dataclasses", config=asked)[1] == (3, 7), "vermin does tell"


def oldest_python():
    """The oldest Python that is installed here, of 3.6 and later."""
    for minor in range(OLDEST[1], sys.version_info[1] + 1):
        there = [
            shutil.which(f"python3.{minor}"),
            *map(str, (Path.home() / ".pyenv" / "versions").glob(f"3.{minor}.*/bin/python3")),
        ]
        for python in filter(None, there):
            if subprocess.run([python, "-I", "-c", ""], capture_output=True).returncode == 0:
                return python
    return sys.executable


def test_it_runs_by_its_path_and_leaves_nothing_beside_the_code(tmp_path):
    """From the copy of a run whose name is not ASCII, in a locale that knows only that. If it failed: no job begins."""
    run = tmp_path / "Émile's run"
    snapshot.copy_code(run / "code")
    python, log = oldest_python(), run / "slurm" / "train" / "attempts"
    environment = {"LC_ALL": "C", "SLURM_JOB_ID": "7", "P2P_ATTEMPTS": os.fsencode(log), "PYTHONPATH": str(tmp_path)}
    (tmp_path / "json.py").write_text("raise SystemExit('not the standard library')")

    def ask(*words):
        command = [python, "-I", "-B", run / "code" / "p2p_dist" / "jobs" / "slurm" / "batch.py", *words]
        done = subprocess.run(command, env=environment, capture_output=True, cwd=tmp_path)
        assert not done.stderr, done.stderr.decode()
        return done.returncode, done.stdout.decode()

    assert ask("begin", "train", run, "", "") == (0, "")
    assert ask("told", "train", run) == (1, "")
    assert ask("owner") == (0, "7.0\n")
    assert ask("end", "train", run, "75") == (0, "requeue\n")
    for _ in range(2):
        ask("begin", "train", run, "", "")
        ask("end", "train", run, "75")
    code, said = ask("begin", "train", run, "", "")
    assert code == 1 and "started 4 times from the same place" in said and f"beside {log}" in said
    snapshot.check(run / "code")


def test_a_line_that_fits_only_in_part_is_an_error(tmp_path):
    """If it failed: a start or an end is lost, and with it who owns the run."""
    log = tmp_path / "attempts"
    starts.append(log, "launch 7")
    with largest_file(20), pytest.raises(OSError, match="only in part"):
        starts.append(log, "start 7.0 0 100 1")


def test_a_crash_is_restarted_only_with_progress_since_its_start(tmp_path):
    log = tmp_path / "attempts"
    starts.note_start(log, "a.0", 5, by_hand=True)
    starts.note_end(log, "a.0", 5, 70, "crash")
    assert starts.refuse_restart(log, 5, 3) == "it made no progress since its start (step 5)"
    assert starts.refuse_restart(log, 6, 3) is None and starts.refuse_restart(log, 6, 1) is None
    assert starts.refuse_restart(log, 6, 0) == "it crashed 1 times (--max-crash-restarts 0)"
