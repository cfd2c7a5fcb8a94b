"""The whole way on one machine, as a user types it: stopped, gone on, done, and with songs that can't be read."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.audio.musdb18 import excerpt_file
from p2p_dist.cli import status, submit
from p2p_dist.common import records
from p2p_dist.jobs import begin_run, local, stages
from p2p_dist.run import metrics_file, rundir
from tests.launcher import CHECKOUT, Launcher


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """One for all tests here, which go on with each other's runs, whatever tests of other files run in between."""
    return tmp_path_factory.mktemp("local") / "my place"


@pytest.fixture
def place(folder, monkeypatch):
    """It as the place of the runs."""
    monkeypatch.setenv("P2P_RUNS", str(folder / "runs"))
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    return folder


TINY = ("--nodes", "2", "--preset", "tiny", "--run", "way", "--train.steps", "40", "--train.keep-every", "20")


@pytest.fixture
def way(place, typed):
    """The run `way`, done: by the test that stops it, or here if that one ran in another process or not at all."""
    run = rundir.RunDir(place / "runs" / "way")
    if not run.page.is_file():
        typed(*TINY)
    return run


def test_a_run_is_stopped_goes_on_and_is_done(place, typed):
    run = rundir.RunDir(place / "runs" / "way")
    first = Launcher(*TINY).until("--- preprocess")

    with pytest.raises(ValueError, match=f"process {first.process.pid}"):
        submit.main([*TINY])

    first.until("train: 1/40")
    first.process.send_signal(signal.SIGINT)
    first.until("stopping train cleanly")
    first.process.send_signal(signal.SIGTERM)  # no second Ctrl-C
    assert first.end() == 75
    assert "launch/submit.py --nodes 2 --preset tiny --run way" in first.shown
    stopped_at = rundir.find_steps(run.checkpoints)[-1][0]
    assert 0 < stopped_at < 40
    assert run.read_outcome()["outcome"] == "stopped"

    shown = typed(*TINY)
    assert "preprocess: already done (1 train songs" in shown
    assert shown.splitlines()[-1] == f"page: {run.page}"
    steps = [row["step"] for row in metrics_file.read(run)]
    assert steps == list(range(1, 41)), "every step once, none twice"
    assert len((run.logs / "train.log").read_text().split("--- train, attempt ")) == 3, "a banner for each attempt"
    evaluated = rundir.find_steps(run.evaluations)
    assert [step for step, _ in evaluated] == [step for step, _ in rundir.find_steps(run.checkpoints)]
    baselines = records.read(run.evaluations / "baselines.json")["splits"]["test"]
    assert {"copy the input", "silence", "noise hits", "ceiling"} <= set(baselines["rows"])
    assert baselines["missing"]["same song, far away"] == "the song is shorter than 40 s"
    assert baselines["rows"]["ceiling"]["mean"]["stem_l1"] < baselines["rows"]["silence"]["mean"]["stem_l1"]
    best = records.read(run.best)
    assert best["step"] in [step for step, _ in evaluated] and best["note"], "chosen on the songs: it is said"
    assert f"best checkpoint: step {best['step']}, " in shown.splitlines()[-2]
    assert "\x1b" not in first.shown + shown

    before = {
        path: path.stat().st_mtime_ns
        for path in place.rglob("*")
        if path.is_file() and path.name not in (".owner", "config.yaml")
    }
    assert typed(*TINY).count("already done") == 3
    after = {
        path: path.stat().st_mtime_ns
        for path in place.rglob("*")
        if path.is_file() and path.name not in (".owner", "config.yaml")
    }
    assert before == after, "a run that is done is left alone"


def test_the_players_own_sound_is_never_touched(way):
    """The mix minus the stem is the input, to the last bit but rounding; rate and channels are the song's own."""
    evaluation = rundir.find_steps(way.evaluations)[-1][1]
    (stem,) = (evaluation / "audio").glob("*-stem.flac")
    sounds = {}
    for name, path in {
        "stem": stem,
        "mix": Path(str(stem).replace("-stem", "-mix")),
        "input": way.evaluations / "references" / "audio" / stem.name.replace("-stem", "-input"),
    }.items():
        sounds[name], rate = soundfile.read(path, always_2d=True)
        assert rate == 44100 and sounds[name].shape[1] == 2
    assert np.abs(sounds["stem"]).max() > 1e-3
    assert np.abs(sounds["mix"] - sounds["stem"] - sounds["input"]).max() < 2**-22


def song(folder, seconds, rate=22050):
    folder.mkdir(parents=True)
    random = np.random.default_rng(len(folder.name))
    for stem in ("drums", "bass", "other", "vocals"):
        soundfile.write(folder / f"{stem}.wav", random.standard_normal((int(seconds * rate), 2)) * 0.1, rate)


def odd_songs(place):
    """Arguments for songs with odd names, of which one ends too early; made once."""
    root = place / "songs"
    if not (root / "train").exists():
        song(root / "train" / "Öö & \"Hämar\" 'vol. 1.5'", 2)
        song(root / "test" / "Short; $(touch pwned)", 0.2)
        whole = excerpt_file().read_bytes()
        (root / "train" / "Cut - Short.stem.mp4").write_bytes(whole[: len(whole) // 2])
    return "--data", str(root), "--preset", "tiny", "--run", "odd", "--train.steps", "2"


@pytest.fixture
def odd(place, typed):
    """The run `odd` of these songs, done: by the test that names the song, or here if that one ran elsewhere."""
    run = rundir.RunDir(place / "runs" / "odd")
    if not run.page.is_file():
        typed(*odd_songs(place), code=1)
    return run


def test_a_song_that_can_not_be_read_is_named_and_the_rest_goes_on(place, typed):
    command = odd_songs(place)
    shown = typed(*command, code=1)
    assert "Cut - Short.stem.mp4" in shown.splitlines()[-2]
    assert shown.splitlines()[-1].startswith("page: ")
    assert "Traceback" not in shown
    assert "left out" in typed(*command, code=1)


def test_without_training_songs_nothing_is_begun(place):
    song(place / "only-test" / "test" / "a", 1)
    run = Launcher("--data", str(place / "only-test"), "--preset", "tiny", "--run", "no-train")
    assert run.end() == 2
    assert "has no training songs" in run.shown and "Traceback" not in run.shown
    assert not (place / "runs" / "no-train").exists()


def test_what_is_damaged_is_made_again(odd, typed):
    """A shard cut short, an evaluation without its sound: the same command mends both."""
    (shard,) = odd.shards.glob("audio/audio-test-*.tar")
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    evaluation = rundir.find_steps(odd.evaluations)[-1][1]
    for sound in (evaluation / "audio").iterdir():
        sound.unlink()
    shown = typed("--run", "odd", code=1)
    assert "Traceback" not in shown and shown.splitlines()[-1].startswith("page: ")
    assert shard.read_bytes() == whole
    assert list((evaluation / "audio").iterdir())


def test_a_terminal_that_can_not_draw_gets_plain_lines(odd):
    command = shlex.join([sys.executable, "launch/submit.py", "--run", "odd"])
    done = subprocess.run(
        ["script", "-qec", f"env TERM=dumb {command}", "/dev/null"], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert "page: " in done.stdout and "Traceback" not in done.stdout and "\x1b" not in done.stdout


@pytest.mark.parametrize("last", ["provenance", "dataset", "copy_code"])
def test_a_launch_that_was_killed_while_it_created_the_run_is_repeated(way, monkeypatch, last):
    """Its shards are there. The code is copied after the records, which takes long on some file systems."""
    command = [*TINY[:4], "--run", f"killed at {last}".replace(" ", "-"), "--train.steps", "40", "--train.keep-every", "20"]

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if last == "provenance":
            patched.setattr(begin_run, "_note_dataset", kill)
        elif last == "dataset":
            patched.setattr(begin_run, "_note_overlap", kill)
        else:
            patched.setattr(begin_run.files, "write_text", kill)
            patched.setattr(begin_run.snapshot, "copy_code", lambda code: code.mkdir())
        with pytest.raises(KeyboardInterrupt):
            submit.main(command)
    assert submit.main([*command, "--dry-run"]) == 0


def test_a_run_can_be_verified_by_its_owner(way, capsys):
    assert status.main(["way", "--verify"]) == 0 and "is correct" in capsys.readouterr().out
    state = rundir.find_steps(way.checkpoints)[-1][1] / "state.pt"
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    assert status.main(["way", "--verify"]) == 1 and "state.pt" in capsys.readouterr().err


@pytest.mark.parametrize("after", ["", "rank 1 of 2 ended with exit code 70\nlost the connection to the other processes\n"])
def test_the_last_line_of_a_failure_is_its_cause(tmp_path, monkeypatch, capsys, after):
    """Once: where the log of the stage ends with what other ranks say of the one that failed, it is said again."""
    run = rundir.RunDir(tmp_path / "run")

    def fail(stage, *_):
        (run.logs / f"{stage}.log").write_text(f"error: a.tar is damaged\n{after}")
        run.write_outcome(stage, "failed", "a.tar is damaged")
        return 1

    monkeypatch.setattr(local, "run_until_it_ends", fail)
    monkeypatch.setattr(stages, "is_done", lambda *_: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert local.run(run, None, None, "python launch/submit.py") == 1
    assert capsys.readouterr().err == ("error: a.tar is damaged\n" if after else "")


@pytest.mark.parametrize("message", ["", None])
def test_a_stage_that_is_killed_says_so_whatever_earlier_jobs_left(tmp_path, monkeypatch, capsys, message):
    """Jobs of an array on Slurm left their outcomes; or a rank wrote one without a message before another was killed."""
    run = rundir.RunDir(tmp_path / "run")
    run.logs.mkdir(parents=True)
    (run.logs / "preprocess.log").write_text("...\n")
    with monkeypatch.context() as member:
        member.setenv("SLURM_ARRAY_TASK_ID", "0")
        run.write_outcome("preprocess", "done", "")

    class Killed:
        returncode = -signal.SIGKILL

        def poll(self):
            return self.returncode

    def start(stage, run, *_):
        if message is not None:
            run.write_outcome(stage, "stopped", message)
        return Killed()

    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")  # of an array of the user's own
    monkeypatch.setattr(local.child, "start", start)
    monkeypatch.setattr(stages, "is_done", lambda *_: None)

    class Owner:
        descriptor = 0

    assert local.run(run, 0, Owner(), "python launch/submit.py") == 1
    assert "preprocess ended with 137" in capsys.readouterr().err
    assert "SLURM_ARRAY_TASK_ID" not in os.environ and [one.name for one in run.outcomes("preprocess")] == [
        "outcome-preprocess.json"
    ] * (message is not None)
