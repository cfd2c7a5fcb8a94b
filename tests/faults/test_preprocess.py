"""Preprocessing that is killed, or shared by the jobs of an array: the shards are those of an undisturbed one, to the bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.conftest import fingerprint
from tests.data.preprocess_command import LAUNCH, TINY, many, run, undisturbed

__all__ = ["many", "undisturbed"]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_killed_at_random_instants_it_gives_the_same_bytes(many: Path, undisturbed: Path, tmp_path: Path, workers: int) -> None:
    """Row 27: preprocessing is killed halfway.

    Seen: half a file, or windows twice.
    Now: restarted it gives the same bytes as one that was not; with 1, 2 and 5 processes.
    """
    out, dice = tmp_path / "out", random.Random(workers)
    command = [sys.executable, str(LAUNCH), *TINY, "--data", str(many), "--out", str(out), "--workers", str(workers)]
    killed = 0
    while killed < {1: 3, 2: 2, 5: 1}[workers]:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        before = len(list(out.rglob("*.tar")))
        deadline = time.monotonic() + 30
        # An instant is a moment after a worker began to write; a busy machine makes any fixed time meaningless.
        while process.poll() is None and time.monotonic() < deadline and len(list(out.rglob("*.tar"))) == before:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.05))
        if dice.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()  # the parent alone: its workers must not outlive it
        process.wait()
        killed += 1
    done = run(*TINY, "--data", many, "--out", out, "--workers", workers)
    assert done.returncode == 0, done.stderr
    assert fingerprint(out) == fingerprint(undisturbed)
    assert not list(out.rglob(".tmp-*"))


MEMBER = """
import sys
from dataclasses import replace
from pathlib import Path
from p2p_dist.data import shards
from p2p_dist.settings import presets
root, out, member, workers = sys.argv[1:]
if __name__ == "__main__":
    took = []
    left_out = shards.preprocess_all(
        Path(root),
        [(Path(out), replace(presets.preset("tiny").data, shard_size=0.25))],
        int(workers),
        lambda done, total, result: took.append(result.name),
        member=int(member),
    )
    print(len(left_out), *sorted(took), sep=",")
"""


def members(songs: Path, out: Path, folder: Path, number: int, workers: int = 1) -> list[subprocess.Popen[str]]:
    """So many jobs of an array, begun at once."""
    (folder / "member.py").write_text(MEMBER)
    command = [sys.executable, str(folder / "member.py"), str(songs), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return [
        subprocess.Popen([*command, str(member), str(workers)], stdout=subprocess.PIPE, text=True, env=environment)
        for member in range(number)
    ]


@pytest.mark.parametrize(("number", "workers"), [(1, 1), (3, 1), (2, 2)])
def test_the_jobs_of_an_array_share_the_songs_and_one_of_them_merges(
    many: Path, undisturbed: Path, tmp_path: Path, number: int, workers: int
) -> None:
    """Each song is made once, whoever makes it, and the bytes are those of one process."""
    out = tmp_path / "out"
    begun = members(many, out, tmp_path, number, workers)
    said = [process.communicate(timeout=120)[0].splitlines()[-1].split(",") for process in begun]  # one may have waited
    assert [process.returncode for process in begun] == [0] * number
    assert sorted(name for _, *names in said for name in names if name) == [f"Song {n}" for n in range(8)]
    assert {count for count, *_ in said} == {"0"}
    assert fingerprint(out) == fingerprint(undisturbed) and not list(out.rglob(".tmp-*"))
    written = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    (late,) = members(many, out, tmp_path, 1)  # one that Slurm begins when the others have ended
    assert late.communicate(timeout=120)[0].strip(",\n") == "0"
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == written


def test_a_job_of_an_array_that_is_killed_costs_what_it_has_in_hand(many: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Row 27: a job of an array is killed while it makes a song.

    Seen: its share of the songs is missing until somebody merges.
    Now: another takes the song, whose lock the kernel has dropped, and the last one merges.
    """
    out = tmp_path / "out"
    killed, *others = members(many, out, tmp_path, 2)
    deadline = time.monotonic() + 60
    while not list(out.rglob("*.tar")) and time.monotonic() < deadline:
        time.sleep(0.002)
    killed.kill()
    killed.communicate()
    assert [process.communicate(timeout=120) and process.returncode for process in others] == [0]
    assert fingerprint(out) == fingerprint(undisturbed) and not list(out.rglob(".tmp-*"))


def test_songs_that_another_has_in_hand_are_left_to_it(many: Path, undisturbed: Path, tmp_path: Path) -> None:
    """While one works on a song, another makes the rest, does not merge, and does not wait."""
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    (out / "manifest.json").unlink()
    (record,) = (out / "parts").glob("train-song-2-*.json")
    song = json.loads(record.read_text())["song"]
    record.unlink()
    hold = "import fcntl, sys, time; held = [open(name, 'a') for name in sys.argv[1:]]\n"
    hold += "fcntl.flock(held[0], fcntl.LOCK_SH); fcntl.flock(held[1], fcntl.LOCK_EX); print(flush=True); time.sleep(600)"
    held = [str(out / "parts" / ".lock"), str(out / "parts" / f".tmp-song-{record.stem}")]
    with subprocess.Popen([sys.executable, "-c", hold, *held], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        (other,) = members(many, out, tmp_path, 1)
        assert other.communicate(timeout=120)[0].strip(",\n") == "0"
        assert not (out / "manifest.json").exists() and not record.exists()
        holder.kill()
    (other,) = members(many, out, tmp_path, 1)
    assert other.communicate(timeout=120)[0].strip() == f"0,{song}"
    assert fingerprint(out) == fingerprint(undisturbed)
