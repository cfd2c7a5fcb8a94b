"""The command: kills at any instant, parts, --verify, exit codes, job arrays."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from p2p_dist.cli import preprocess
from p2p_dist.common import console
from p2p_dist.data import manifest as manifests
from p2p_dist.data import output_folder, shards
from p2p_dist.data.verify import verify_dataset
from p2p_dist.run import lock
from p2p_dist.settings.config import Data
from tests.data.conftest import fingerprint
from tests.data.preprocess_command import LAUNCH, TINY, damaged, many, run, undisturbed
from tests.jobs.submit_command import BASE_ONLY

__all__ = ["many", "undisturbed"]


def test_where_other_nodes_see_no_lock_an_array_says_how_to_do_without(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any lock, and with locks of each node (Lustre with localflock), which two nodes could hold at once."""
    out = tmp_path / "out"

    def array() -> None:
        with pytest.raises(OSError, match="--preprocess-array 1; with the preprocess command --array 1"):
            shards.preprocess_all(many, [(out, Data())], 1, member=0)
        assert not list(out.glob("*.tar"))

    local = [f"{line},localflock" for line in lock.MOUNTS.read_text().splitlines()]
    (tmp_path / "mountinfo").write_text("\n".join(local))
    monkeypatch.setattr(lock, "MOUNTS", tmp_path / "mountinfo")
    array()
    with output_folder.claim(many, out, Data(), shared=False):
        assert (out / "parts" / ".lock-link").is_file(), "what another node sees"
        with pytest.raises(ValueError, match="is being written already"):
            shards.preprocess(many, out, Data(), 1)
    (tmp_path / "mountinfo").unlink()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    array()


def of_session(session: int) -> list[int]:
    """The processes of a session that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = path.read_text().rsplit(")", 1)[1].split()[:4]
        except OSError:
            continue
        if int(sid) == session and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def test_workers_do_not_outlive_a_parent_that_is_killed_while_they_begin(many: Path, tmp_path: Path) -> None:
    """Row 27: only the parent is killed, before its workers could ask to end with it.

    Seen: they make songs for a folder that nobody holds any more, while another command makes others there.
    Now: they look for their parent first.
    """
    out = tmp_path / "out"
    command = [sys.executable, str(LAUNCH), *TINY, "--data", str(many), "--out", str(out), "--workers", "4"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(of_session(process.pid)) < 4:  # itself, what watches over shared memory, the first workers
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    while left := of_session(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert not list(out.glob("*.tar"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("who", ["the command", "a worker"])
def test_a_ctrl_c_is_no_traceback(
    songs: Path, tmp_path: Path, who: str, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """To all processes, as a terminal sends it, while one of them imports what it needs. The command to go on can be pasted."""
    command = [sys.executable, str(LAUNCH), *TINY, "--data", str(songs), "--out", str(tmp_path / "out"), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60

    def imports(number: int) -> bool:
        try:
            return "_multiarray_umath" in Path(f"/proc/{number}/maps").read_text()  # numpy's, loaded early
        except OSError:
            return False

    while not any(imports(n) for n in of_session(process.pid) if (n == process.pid) == (who == "the command")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    told, again = said.splitlines()
    assert process.returncode == console.STOPPED and told.startswith("stopped cleanly"), said
    done = subprocess.run(shlex.split(again), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"\ndataset: {tmp_path / 'out'}" in done.stdout, done
    assert preprocess.main(shlex.split(again)[2:]) == 0
    assert f"already done: dataset: {tmp_path / 'out'}" in capsys.readouterr().out


def test_parts_and_a_merge_give_the_same_bytes(many: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for part in ("2/3", "0/3"):  # 1/3 was lost
        assert preprocess.main([*TINY, "--data", str(many), "--out", str(out), "--workers", "1", "--part", part]) == 0
        assert not (out / manifests.NAME).exists()
    assert len(list(out.glob("*.tar"))) < len(list(undisturbed.glob("*.tar")))
    assert preprocess.main([*TINY, "--data", str(many), "--out", str(out), "--workers", "1"]) == 0
    assert fingerprint(out) == fingerprint(undisturbed)


def test_a_second_one_in_one_folder_waits_and_finds_all_done(many: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Row 27: two that make the same shards at once.

    Seen: each writes over the other's.
    Now: the second waits, and finds all done.
    """
    import fcntl

    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    command = [sys.executable, str(LAUNCH), *TINY, "--data", str(many), "--out", str(out)]
    with (out / "parts" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        assert "being written by another process: waiting" in second.stdout.readline()
        deadline = time.monotonic() + 30

        def waits() -> bool:  # the kernel lists who waits for a lock after an arrow
            return any("->" in line and f" {second.pid} " in line for line in Path("/proc/locks").read_text().splitlines())

        while not waits():
            assert second.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    shown, _ = second.communicate(timeout=60)
    assert second.returncode == 0 and f"dataset: {out}" in shown
    assert fingerprint(out) == fingerprint(undisturbed)


def tars(out: Path) -> set[str]:
    """The shards, whose names tell their content."""
    return {path.name for path in out.rglob("*.tar")}


def without_rights_of_root() -> None:
    """In a child: root, too, may write only where the rights of a file say so (prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE))."""
    if os.geteuid() == 0:
        assert ctypes.CDLL(None).prctl(24, 1, 0, 0, 0) == 0


@pytest.mark.parametrize("place", ["folder", "its parent", "its records"])
def test_a_place_where_nothing_may_be_written_is_named(many: Path, undisturbed: Path, tmp_path: Path, place: str) -> None:
    out = tmp_path / "shelf of 'mine'" / "out"
    out.parent.mkdir()
    locked = {"folder": out, "its parent": out.parent, "its records": out / "parts"}[place]
    if place != "its parent":
        shutil.copytree(undisturbed, out)
        for path in out.rglob("*-song-7*"):
            path.unlink()
    locked.chmod(0o555)
    command = [sys.executable, str(LAUNCH), *TINY, "--data", str(many), "--out", str(out), "--workers", "2"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=without_rights_of_root)
    finally:
        locked.chmod(0o755)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"Permission denied: {out}" in done.stderr and "name another folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob(".tmp-*"))


def test_songs_that_are_gone_leave_no_shards(many: Path, undisturbed: Path, tmp_path: Path) -> None:
    root, out = Path(shutil.copytree(many, tmp_path / "songs")), Path(shutil.copytree(undisturbed, tmp_path / "out"))
    shutil.rmtree(root / "train" / "Song 0")
    assert preprocess.main([*TINY, "--data", str(root), "--out", str(out), "--workers", "1"]) == 0
    manifest = manifests.read(out)
    named = manifests.files_of(out, manifest).keys()
    assert {*out.rglob("*.tar"), *out.glob("index-*.bin")} == named
    assert not any(item["name"] == "Song 0" for part in manifest["splits"].values() for item in part["songs"])
    assert {path.name.removeprefix("shard-") for path in (out / "parts").glob("shard-*")} == {
        f"{path.name}.json" for path in named if path.suffix == ".tar"
    }


def test_a_song_that_changed_is_made_again(
    many: Path, undisturbed: Path, new_song: Callable[..., Path], tmp_path: Path
) -> None:
    root, out = Path(shutil.copytree(many, tmp_path / "songs")), Path(shutil.copytree(undisturbed, tmp_path / "out"))
    shutil.rmtree(root / "test" / "Song 6")
    new_song(root / "test" / "Song 6", seconds=4.5, seed=99)
    assert preprocess.main([*TINY, "--data", str(root), "--out", str(out), "--workers", "1"]) == 0
    before, after = (tars(folder) for folder in (undisturbed, out))
    assert all("test-" in name for name in before ^ after) and len(before - after) == 2


def test_other_sound_of_the_same_size_is_noticed(many: Path, undisturbed: Path, tmp_path: Path) -> None:
    root, out = Path(shutil.copytree(many, tmp_path / "songs")), Path(shutil.copytree(undisturbed, tmp_path / "out"))
    song = root / "train" / "Song 1"
    for old, new in (("drums", "aside"), ("bass", "drums"), ("aside", "bass")):
        (song / f"{old}.wav").rename(song / f"{new}.wav")
    assert preprocess.main([*TINY, "--data", str(root), "--out", str(out), "--workers", "1"]) == 0
    changed = tars(undisturbed) ^ tars(out)
    assert len(changed) == 4 and all("valid-" in name for name in changed), "the song is held out for validation"


def test_a_song_that_can_no_longer_be_read_leaves_no_shard(many: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Made from the start without it, the dataset is the same; and nothing in it tells where the songs lie."""
    root, outs = Path(shutil.copytree(many, tmp_path / "songs")), [tmp_path / "begun", tmp_path / "fresh"]
    shutil.copytree(undisturbed, outs[0])
    (root / "train" / "Song 1" / "bass.wav").unlink()
    for out in outs:
        assert preprocess.main([*TINY, "--data", str(root), "--out", str(out), "--workers", "1"]) == console.FAILED
    assert fingerprint(outs[0]) == fingerprint(outs[1])
    assert verify_dataset(outs[0])
    (left_out,) = manifests.read(outs[0])["left_out"]
    assert left_out["reason"].startswith("train/Song 1: no bass.wav")


def test_a_stem_that_one_task_lacks_does_not_matter_to_another(many: Path, tmp_path: Path) -> None:
    root, shelf = Path(shutil.copytree(many, tmp_path / "songs")), tmp_path / "shelf"
    (root / "train" / "Song 1" / "bass.wav").unlink()
    tasks = ("--task", "vocals->drums,bass->drums", "--out", str(shelf), "--workers", "1")
    assert preprocess.main([*TINY, "--data", str(root), *tasks]) == console.FAILED
    bass, vocals = (manifests.read(folder) for folder in sorted(shelf.iterdir()))
    assert vocals["left_out"] == [] and [one["song"] for one in bass["left_out"]] == ["Song 1"]
    assert "Song 1" in {song["name"] for part in vocals["splits"].values() for song in part["songs"]}


def test_what_others_have_put_there_stays(many: Path, undisturbed: Path, tmp_path: Path) -> None:
    """A folder of somebody's own is refused, whatever it holds; another's file in a dataset is named, not removed."""
    home, out = tmp_path / "home", Path(shutil.copytree(undisturbed, tmp_path / "out"))
    (home / ".tmp-precious").mkdir(parents=True)
    for wrong in (home, many / "train" / "Shards"):
        with pytest.raises(ValueError, match=r"contains other files|is inside the folder of songs"):
            preprocess.main([*TINY, "--data", str(many), "--out", str(wrong), "--workers", "1"])
    assert (home / ".tmp-precious").is_dir() and not (many / "train" / "Shards").exists()
    (out / "mine.tar").write_bytes(b"x")
    shutil.copy(next(out.glob("train-*.tar")), out / "train-00077-of-an-earlier-version.tar")
    with pytest.raises(ValueError, match=r"mine.tar is not in the manifest"):
        verify_dataset(out)
    assert preprocess.main([*TINY, "--data", str(many), "--out", str(out), "--workers", "1"]) == 0
    assert {path.name for path in out.iterdir()} - {path.name for path in undisturbed.iterdir()} == {"mine.tar"}


def test_left_out_songs_are_named_at_the_end_with_exit_code_1(
    many: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(many, tmp_path / "songs"))
    (root / "train" / "Song 1" / "vocals.wav").write_text("words")
    (root / "train" / "Text.stem.mp4").write_text("words")
    (root / "train" / "Two\n\x1b[1mlines.stem.mp4").write_text("words")
    outs = [tmp_path / "one", tmp_path / "two"]
    for out, workers in zip(outs, ("1", "2"), strict=True):
        assert preprocess.main([*TINY, "--data", str(root), "--out", str(out), "--workers", workers]) == console.FAILED
        shown = capfd.readouterr()
        assert "\x1b" not in shown.err + (out / "DATASET.md").read_text()
        assert "songs left out (3)" in shown.err and "vocals.wav" in shown.err and "Text.stem.mp4" in shown.err
        assert "x real time" in shown.out and "MB/s" in shown.out
    assert fingerprint(outs[0]) == fingerprint(outs[1])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "/nonexistent"], 2, "no folder /nonexistent"),
        (["--data", "SONGS", "--task", "tuba"], 2, "unknown stem 'tuba'|task 'tuba'"),
        (["--data", "SONGS", "--part", "3/3"], 2, "write I/N"),
        (["--data", "SONGS", "--part", "0/3", "--cluster", "slurm"], 2, "omit --cluster"),
        (["--data", "SONGS", "--out", ""], 2, "--out is empty: specify a folder"),
        (["--data", "SONGS", "--out="], 2, "--out is empty: specify a folder"),
        (["--data", "SONGS", "--out", "/"], 2, "--out must name a folder"),
        (["--data", "SONGS", "--out", "/dev/null/out"], 1, "Not a directory"),
        (["--data", "SONGS", "--out", "/proc/nothing"], 1, "No such file"),
        (["--data", "SONGS", "--preset", "nothing"], 2, "unknown preset"),
        (["--dada", "SONGS"], 2, "dada"),
        ([], 2, "--data"),
    ],
)
def test_what_is_wrong_with_a_command_is_said_in_one_line(
    many: Path,
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import re

    monkeypatch.delenv("MUSDB_PATH", raising=False)
    with pytest.raises(SystemExit) as left:
        console.exit_with(lambda: preprocess.main([argument.replace("SONGS", str(many)) for argument in arguments]))
    text = capsys.readouterr().err
    assert left.value.code == code and re.search(message, text) and "Traceback" not in text


def test_several_tasks_get_a_folder_each(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    arguments = [*TINY, "--data", str(many), "--task", "drums, bass", "--workers", "1"]
    assert preprocess.main(arguments) == 0
    made = sorted((tmp_path / "shards").iterdir())
    assert [folder.name.split("-")[0] for folder in made] == ["bass", "drums"]
    assert [manifests.read(folder)["settings"]["task"] for folder in made] == ["bass", "drums"]
    assert preprocess.main([*arguments, "--verify"]) == 0


def test_verify_is_a_command(
    many: Path, undisturbed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    arguments = [*TINY, "--data", str(many), "--out", str(out), "--workers", "1"]
    assert preprocess.main([*arguments, "--verify"]) == console.DONE
    assert "samples are intact" in capfd.readouterr().out
    monkeypatch.chdir(out)
    assert preprocess.main(["--verify", "--out", "."]) == console.DONE
    assert f"{out}: all " in capfd.readouterr().out
    damaged(out, 3000)
    assert preprocess.main([*arguments, "--verify"]) == console.FAILED
    assert "is damaged: sample song-" in capfd.readouterr().err
    sorted(out.glob("train-*.tar"))[1].unlink()
    assert preprocess.main(arguments) == console.DONE
    assert fingerprint(out) == fingerprint(undisturbed)


def test_without_slurm_or_where_it_refuses_queueing_is_one_line(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PATH without Slurm, a cluster that does not take the jobs, and a folder without songs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "work" / "runs"))
    out = tmp_path / "work"
    queued = ("--cluster", "slurm")
    done = run(*TINY, "--data", songs, *queued)
    assert done.returncode == 1 and "login node" in done.stderr and "squeue" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not out.exists()
    done = run(*TINY, "--data", tmp_path / "nothing", *queued)
    assert done.returncode == 2 and f"no folder {tmp_path / 'nothing'}" in done.stderr and not out.exists(), done.stderr
    done = run(*TINY, "--data", songs, *queued, "--out", out)
    assert done.returncode == 2 and f"shards are in {out / 'shards'}" in done.stderr and not out.exists(), done.stderr
    done = run(*TINY, "--data", songs, "--dry-run")
    assert done.returncode == 2 and "--cluster slurm" in done.stderr


WITHOUT_NUMPY = f"""{BASE_ONLY}
from p2p_dist import cli
cli.run("preprocess", sys.argv[1:])
"""


def test_a_login_node_needs_no_numpy(songs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_NUMPY, *TINY, "--data", str(songs), "--cluster", "lumi", "--dry-run"]
    environment = {**os.environ, "P2P_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (0, "") and not (tmp_path / "runs").exists()
    for line in ("#SBATCH --array=0-7", "#SBATCH --partition=small", "#SBATCH --mem=32G", "export P2P_CONTAINER="):
        assert f"\n{line}" in done.stdout
    assert f",{songs}\n" in done.stdout, "the container is shown the songs"


def test_a_finished_dataset_is_uploaded_and_an_unfinished_one_is_not(
    songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there"
    (there / "audio").mkdir(parents=True)
    line = ["--data", str(songs), "--out", str(tmp_path / "out"), *TINY, "--workers", "1"]
    upload = ["--upload", f"pipe:cat >{shlex.quote(str(there))}/{{name}}"]
    assert preprocess.main([*line, *upload]) == 0
    assert "uploaded; to train on it" in capsys.readouterr().out
    assert verify_dataset(there) == verify_dataset(tmp_path / "out")
    for more, said in (
        (["--part", "0/2"], "omit --part, --verify and --cluster"),
        (["--verify"], "omit --part, --verify and --cluster"),
        (["--cluster", "slurm"], "omit --part, --verify and --cluster"),
        (["--task", "bass,drums"], "--upload takes one dataset, and 2 tasks make 2"),
        (["--data.shards", "pipe:cat x/{name}"], "is not preprocessed: train on it with "),
        (["--data.shards", "pipe:cat x/{name}"], "submit.py --data.shards 'pipe:cat x/{name}'; to make another one, name"),
        (["--upload", "https://me:opensesame@host/set"], "--upload contains a password"),
        (["--upload", "s3://b/set"], "--upload: nothing here opens s3:// addresses: use https://, or name a command for each"),
        (["--upload", "s3://b/set"], "'pipe:rclone rcat STORE:SET/{name}' or 'pipe:aws s3 cp - s3://BUCKET/SET/{name}'"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            preprocess.main([*line, *upload, *more])
    harmed = tmp_path / "songs"
    shutil.copytree(songs, harmed)
    (harmed / "train" / "A" / "bass.wav").write_bytes(b"RIFF")
    code = preprocess.main(
        ["--data", str(harmed), "--out", str(tmp_path / "half"), *TINY, "--workers", "1", "--upload", str(tmp_path / "no")]
    )
    assert code == 1 and "not uploaded: the dataset is not complete" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
