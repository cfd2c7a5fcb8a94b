"""The command as a musician types it: what comes out, what is skipped, and what each mistake is answered with."""

import dataclasses
import functools
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from p2p_dist.audio import beats
from p2p_dist.cli import export, generate
from p2p_dist.common import console
from p2p_dist.generate import drummer
from p2p_dist.generate.model import find_model
from p2p_dist.model.generator import Generator
from p2p_dist.train import checkpoint
from tests import forked_stages
from tests.conftest import lay_out_run
from tests.generate import drums
from tests.generate.conftest import run, runs, sound, write
from tests.generate.made import STEP, made, read

__all__ = ["run", "runs"]

CHECKOUT = Path(__file__).resolve().parents[2]


def test_an_empty_name_is_not_the_current_folder(runs):
    """`generate "$SONG"` without such a variable made drums for all sound files below the current folder."""
    write(Path("song.wav"), sound(0.5))
    for words in ([""], ["song.wav", "--out", ""], ["song.wav", "--out="]):
        with pytest.raises(ValueError, match=r"a name is empty, .*: name a file or folder"):
            generate.main(words)
    assert [path.name for path in Path().iterdir()] == ["song.wav"]


def test_one_song(runs, capsys):
    """Without --model, without --out: stem, mix, MIDI and a record that says how to make it again."""
    song = sound(2.2)
    write(Path("song.wav"), song)
    before = Path("song.wav").read_bytes()
    assert generate.main(["song.wav"]) == 0
    assert sorted(path.name for path in Path("generated/song").iterdir()) == [
        "index.html",
        "media",
        "song-drums.flac",
        "song-drums.mid",
        "song-mix.flac",
        "song.json",
    ]
    stem, mix, rate, record = made(Path("generated/song"))
    assert rate == 22050 and stem.shape == mix.shape == song.shape
    assert soundfile.info("generated/song/song-mix.flac").subtype == "PCM_24"
    assert record["takes"][0]["gain_db"] == 0 and np.abs(stem).max() > 0.01
    assert np.abs(mix - stem - song).max() <= STEP * 1.001
    assert Path("song.wav").read_bytes() == before
    assert record["model"]["name"] == "band@20" and record["settings"]["seed"] == 0 and not record["notes"]
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "model: band@20, trained 20 steps to make drums"
    assert mido.MidiFile("generated/song/song-drums.mid").type == 0


def test_typed_again_nothing_is_made(runs, capsys):
    write(Path("song.wav"), sound())
    assert generate.main(["song.wav", "--seed", "4"]) == 0
    before = {path: path.stat().st_mtime_ns for path in Path("generated/song").rglob("*")}
    capsys.readouterr()
    assert generate.main(["song.wav", "--seed", "4"]) == 0
    assert "already done: generated/song" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"song\.json describes files made with other settings \(seed: 4 -> 5\): add"):
        generate.main(["song.wav", "--seed", "5"])
    assert {path: path.stat().st_mtime_ns for path in Path("generated/song").rglob("*")} == before
    page = Path("generated/song/index.html").read_text()
    assert "band@20" in page and "song-drums.flac" in page and ("beats a minute" in page or "not found" in page)
    Path("generated/song/song-mix.flac").write_bytes(b"cut")
    assert generate.main(["song.wav", "--seed", "4"]) == 0
    assert len(read("generated/song/song-mix.flac")[0]) == len(sound()), "what is damaged is made again"
    assert generate.main(["song.wav", "--seed", "5", "--overwrite"]) == 0
    assert made(Path("generated/song"))[3]["settings"]["seed"] == 5


def test_the_same_again_to_the_bit_and_others_by_seed(runs):
    write(Path("song.wav"), sound())
    write(Path("copy.wav"), sound())
    assert generate.main(["song.wav", "copy.wav", "--takes", "2", "--seed", "7"]) == 0
    assert generate.main(["song.wav", "--seed", "8", "--out", "eight"]) == 0
    one, two, same, eight = (
        Path(path).read_bytes()
        for path in (
            "generated/song/song-drums-1.flac",
            "generated/song/song-drums-2.flac",
            "generated/copy/copy-drums-2.flac",
            "eight/song-drums.flac",
        )
    )
    assert one != two and two == same == eight
    record = json.loads(Path("generated/song/song.json").read_text())
    assert [take["seed"] for take in record["takes"]] == [7, 8]
    assert record["takes"][1]["files"]["midi"]["name"] == "song-drums-2.mid"


MISTAKES = {
    "no song named": ([], "name a song: "),
    "not there": (["gone.wav"], "no file or folder gone.wav"),
    "no quotes": (["my", "song.wav"], "no file or folder my; put it in quotes: 'my song.wav'"),
    "empty folder": (["empty"], "no sound file in empty"),
    "no sound": (["text.wav"], "text.wav is not a sound file that can be decoded"),
    "silence": (["silent.wav"], "silent.wav is silent, so there is nothing to accompany"),
    "not a number": (["nan.wav"], "nan.wav contains NaN samples from 0.2 s on"),
    "far too loud": (["loud.wav"], r"loud.wav contains samples of 1e\+08, where full scale is 1"),
    "no samples": (["none.wav"], "none.wav has no audio that can be decoded"),
    "no such run": (["song.wav", "--model", "other"], "no run other in .*: there are band"),
    "no such step": (["song.wav", "--model", "band@7"], "no checkpoint of step 7: there are 20"),
    "a part behind the end": (["song.wav", "--from", "9"], "song.wav ends at 0.5 s, before the requested start"),
    "a part of nothing": (["song.wav", "--from", "3", "--to", "3"], "--to must be more seconds than --from 3"),
    "files of somebody": (["taken.wav"], "taken-mix.flac already exists, but no taken.json describes how it was made"),
    "a rate that mp3 has not": (
        ["wide.wav", "--format", "mp3"],
        r"^wide\.wav: mp3 does not support 1 channels at 96000 Hz \(MPEG-1.* 48000\): choose --format flac or wav",
    ),
    "channels that ogg has not": (
        ["six.wav", "--format", "ogg"],
        r"^six\.wav: ogg of 6 channels is not supported: choose --format flac",
    ),
    "two songs, one place": (["x/song.wav", "song.wav"], "x/song.wav and song.wav would be written to the same folder"),
    "a time limit": (["song.wav", "--time", "soon"], "--time must be greater than zero, and written as 90 .*not 'soon'"),
    "an array": (["song.wav", "--array", "0"], "--array must be greater than 0, not 0"),
    "a dry run without a cluster": (
        ["song.wav", "--dry-run"],
        "--dry-run shows the jobs of a cluster: name one with --cluster",
    ),
    "takes": (["song.wav", "--takes", "0"], "--takes must be from 1 to 100, not 0"),
    "seed": (["song.wav", "--seed", "-1"], "--seed must be from 0 to 2147483647, not -1"),
    "from": (["song.wav", "--from", "nan"], "--from must be from 0 to 1e9, not nan"),
    "array": (["song.wav", "--array", "0"], "--array must be greater than 0, not 0"),
    "time": (["song.wav", "--time", "soon"], "--time must be greater than zero, and written as"),
    "level": (["song.wav", "--level", "99"], "--level must be from -60 to 40 dB, not 99"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_answered_in_one_sentence(runs, mistake):
    arguments, answer = MISTAKES[mistake]
    Path("empty").mkdir()
    Path("text.wav").write_text("no sound")
    for name in ("song.wav", "my song.wav", "x/song.wav", "taken.wav"):
        write(Path(name), sound(0.5))
    write(Path("silent.wav"), np.zeros((9000, 1)))
    write(Path("none.wav"), np.zeros((0, 1)))
    write(Path("nan.wav"), np.where(np.arange(9000) == 4000, np.nan, 0.1), subtype="FLOAT")
    write(Path("loud.wav"), np.full(9000, 1e8), subtype="FLOAT")
    write(Path("wide.wav"), sound(0.1, 96000, 1), 96000)
    write(Path("six.wav"), sound(0.1, 22050, 6))
    write(Path("generated/taken/taken-mix.flac"), sound(0.1))
    before = set(Path().rglob("*"))
    with pytest.raises(ValueError, match=answer) as raised:
        generate.main(arguments)
    assert "\n" not in str(raised.value)
    assert set(Path().rglob("*")) - {Path("generated")} == before - {Path("generated")}


def test_a_folder_that_cannot_be_read_is_not_taken_for_empty(runs, monkeypatch):
    Path("mine").mkdir()

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        generate.main(["mine"])


def test_an_output_that_cannot_be_written_is_told_before_anything_is_read(runs, capsys):
    write(Path("song.wav"), sound(0.1))
    Path("file").touch()
    with pytest.raises(NotADirectoryError):
        generate.main(["song.wav", "--out", "file"])
    assert not capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_no_half_file_and_says_how_to_go_on(runs, number):
    write(Path("a.wav"), sound(0.6))
    write(Path("b.wav"), sound(120))
    words = [sys.executable, "-u", str(CHECKOUT / "launch/generate.py"), "a.wav", "b.wav"]
    # Whoever started the tests may ignore one.
    begin = functools.partial(signal.signal, number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    going = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=begin)
    for line in going.stdout:
        if line.startswith("generated/a"):
            break
    going.send_signal(number)
    _, err = going.communicate(timeout=60)
    assert going.returncode == console.STOPPED, err
    assert "stopped cleanly" in err and "Traceback" not in err
    assert shlex.split(err.splitlines()[-1])[-3:] == [words[2], "a.wav", "b.wav"]
    there = {path.name for path in Path("generated").rglob("*") if path.is_file() and "media" not in path.parts}
    assert there == {"a-drums.flac", "a-drums.mid", "a-mix.flac", "a.json", "index.html"}


def test_jobs_of_an_array_share_the_songs(runs, monkeypatch, capsys):
    """What the command hands to its jobs, and what one of these, restarted, makes of it: only what is missing."""
    from p2p_dist.jobs import stages
    from p2p_dist.jobs.slurm import launch, specs

    queued = []
    monkeypatch.setattr(launch.squeue, "settled_jobs", lambda run: {})
    monkeypatch.setattr(launch.sbatch, "check", lambda job: None)
    monkeypatch.setattr(launch.sbatch, "submit", queued.append)
    for name in ("a", "b", "c"):
        write(Path(f"songs/{name}.wav"), sound(0.4))
    Path("songs/broken.mp3").write_text("no sound")
    assert generate.main(["songs/a.wav", "--out", "made/a"]) == 0
    words = ["songs", "--out", "made", "--cluster", "slurm", "--array", "9", "--time", "30", "--seed", "0"]
    assert generate.main([*words, "--dry-run"]) == 0
    assert not queued and "#SBATCH --array=0-2" in capsys.readouterr().out
    assert generate.main(words) == 0
    (job,) = queued
    assert job.array == 3 and job.options["time"] == 30 and job.command.split()[-2] == "generate"
    assert "already done: 1 of 4 songs" in capsys.readouterr().out
    run = specs.RunDir(Path(job.command.split()[-1]))
    assert stages.of(run) == ("generate",) and stages.is_done("generate", run) is None
    before = Path("made/a/a-mix.flac").stat().st_mtime_ns
    for member in ("1", "0"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", member)
        log = Path(f"log-{member}")
        assert forked_stages.start("generate", run, f"here.{member}", log).wait(120) == 0, log.read_text()
        made_by = sorted(line for line in log.read_text().splitlines() if line.startswith("generate: "))
        assert made_by if member == "1" else not made_by
    assert stages.is_done("generate", run) == "3 songs" and run.read_outcome("generate")["outcome"] == "done"
    assert {path.name for path in Path("made").rglob("*-mix.flac")} == {"a-mix.flac", "b-mix.flac", "c-mix.flac"}
    assert Path("made/a/a-mix.flac").stat().st_mtime_ns == before
    capsys.readouterr()
    assert generate.main(words) == 0
    assert "already done: 3 of 4 songs" in capsys.readouterr().out and queued[-1].array is None
    Path("songs/broken.mp3").rename(os.fsdecode(b"songs/na\xefve.mp3"))
    for others in ([], ["--level", "3"]):  # the options, too, tell one run from another
        assert generate.main([*words, "--overwrite", *others]) == 1
        out, err = capsys.readouterr()
        assert "jobs can only open files whose names are UTF-8: rename it" in err and "already done" not in out
    asked = [json.loads((Path(job.command.split()[-1]) / "songs.json").read_text()) for job in queued[-2:]]
    assert all(one["overwrite"] and len(one["songs"]) == 3 for one in asked) and queued[-1].array == 3
    first = {"level": 0.0, "seed": 0, "takes": 1, "begin": 0.0, "end": None, "format": "flac"}  # as in version 0.1
    assert [one["options"] for one in asked] == [first, {**first, "level": 3.0}]
    assert queued[-1].command != queued[-2].command


def test_jobs_use_an_exported_folder(runs, monkeypatch, capsys):
    """Jobs reach it, and what its links point to; what they make is what the run makes."""
    from p2p_dist.jobs import stage_process
    from p2p_dist.jobs.slurm import launch
    from p2p_dist.run import rundir

    queued, reached = [], set()

    def jobs(*asked, **options):
        reached.update(asked[-1])
        return real(*asked, **options)

    real = launch.specs.jobs
    monkeypatch.setattr(launch.specs, "jobs", jobs)
    monkeypatch.setattr(launch.squeue, "settled_jobs", lambda run: {})
    monkeypatch.setattr(launch.sbatch, "check", lambda job: None)
    monkeypatch.setattr(launch.sbatch, "submit", queued.append)
    write(Path("song.wav"), sound(0.4))
    assert generate.main(["song.wav", "--out", "of-run"]) == 0
    monkeypatch.setenv("HOME", str(Path("kept").absolute()))
    assert export.main(["band", "--out", "~/band"]) == 0 and find_model("~/band").name == "band@20"
    Path("blobs").mkdir()
    for name in ("config.json", "model.safetensors"):
        Path("kept/band", name).rename(Path("blobs", name))
        Path("kept/band", name).symlink_to(Path("../../blobs", name))
    capsys.readouterr()
    words = ["song.wav", "--model", "kept/band", "--out", "made", "--cluster", "slurm"]
    assert generate.main(words) == 0
    assert "model: band@20, trained 20 steps to make drums" in capsys.readouterr().out
    (job,) = queued
    assert {Path("kept/band").absolute(), Path("blobs").resolve()} <= reached
    run = rundir.RunDir(Path(job.command.split()[-1]))
    monkeypatch.setenv("P2P_RUNS", "elsewhere")
    monkeypatch.chdir("blobs")
    assert stage_process.generate(run, rundir.read_settings(run)) == 0
    monkeypatch.chdir("..")
    assert Path("made/song-drums.flac").read_bytes() == Path("of-run/song-drums.flac").read_bytes()
    assert json.loads(Path("made/song.json").read_text())["model"]["name"] == "band@20"
    assert export.main(["band", "--out", "kept/half", "--half"]) == 0
    for name in ("config.json", "model.safetensors"):
        Path("kept/half", name).replace(Path("blobs", name))
    with pytest.raises(ValueError, match="kept/band has changed since the jobs were queued"):
        stage_process.generate(run, rundir.read_settings(run))
    assert generate.main([*words, "--overwrite"]) == 0
    assert queued[-1].command != job.command, "other weights are another run"
    Path("blobs/model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"kept/band/model\.safetensors is missing"):
        generate.main(words)
    assert len(queued) == 2


@pytest.fixture
def drumming(tmp_path, tmp_path_factory, monkeypatch):
    """A run whose model has a sketch, which its output is before the first update, and a song of chords."""
    guided = {"sketch": True, "beat_phase": True, "residual": True}
    place = tmp_path_factory.mktemp("drumming")
    run, settings = lay_out_run(place, place, "drummer", model=guided)
    checkpoint.save(run.checkpoints, 20, {"step": 20}, Generator(settings.model).state_dict(), {})
    run.pattern.mkdir()
    drummer.save(run.pattern, drums.drummer(settings.data, settings.model))
    monkeypatch.setenv("P2P_RUNS", str(run.path.parent))
    monkeypatch.chdir(tmp_path)
    write(Path("song.wav"), drums.chords(8.0), drums.RATE)
    return run


def test_a_model_with_a_sketch_plays_to_the_beats_that_it_hears(drumming):
    assert generate.main(["song.wav"]) == 0
    stem, *_, record = made(Path("generated/song"))
    assert record["tempo"]["bpm"] == pytest.approx(120, abs=0.1) and np.abs(stem).max() > 0.01
    half, *_ = record["tempo"]["others"]
    assert half["option"] == "--half-beat" and half["first_beat"] == pytest.approx(
        record["tempo"]["first_beat"] + 0.25, abs=1e-3
    )
    assert "if the song's beats are between these: --half-beat" in record["notes"][0]
    assert not {"bpm", "first_beat", "half_beat", "density"} & record["settings"].keys()


def test_the_listener_may_name_beats_and_density(drumming):
    asked = ["--bpm", "90", "--first-beat", "4.1", "--half-beat", "--from", "3.5"]
    found = {}
    for name, words in (("heard", ["--from", "3.5"]), ("asked", asked), ("sparse", ["--from", "3.5", "--density", "0.2"])):
        assert generate.main(["song.wav", *words, "--out", name]) == 0
        found[name] = made(Path(name))
    tempo = found["asked"][3]["tempo"]
    assert tempo["bpm"] == pytest.approx(90, rel=0.006)
    assert tempo["first_beat"] == pytest.approx((0.6 + 1 / 3) % (2 / 3), abs=0.01)
    assert tempo["others"][0]["option"] == "--no-half-beat"
    assert f"a beat at {3.5 + tempo['first_beat']:.3f}"[:-1] in found["asked"][3]["notes"][0], "seconds of the song"
    assert all(not np.array_equal(found["heard"][0], found[name][0]) for name in ("asked", "sparse"))
    with pytest.raises(ValueError, match=r"bpm: 90\.0 -> 91\.0"):
        generate.main(["song.wav", "--bpm", "91", *asked[2:], "--out", "asked"])


def test_another_drummer_of_the_same_generator_is_another_model(drumming, monkeypatch, capsys):
    """Its stage `pattern` ran again, with more songs: what was made before is not what would be made now."""
    from p2p_dist.jobs import stage_process
    from p2p_dist.jobs.slurm import launch
    from p2p_dist.run import rundir

    queued = []
    monkeypatch.setattr(launch.squeue, "settled_jobs", lambda run: {})
    monkeypatch.setattr(launch.sbatch, "check", lambda job: None)
    monkeypatch.setattr(launch.sbatch, "submit", lambda job: queued.append(rundir.RunDir(Path(job.command.split()[-1]))))
    words = ["song.wav", "--to", "4"]
    assert generate.main(words) == 0 and generate.main(words) == 0
    assert "already done: generated/song" in capsys.readouterr().out
    by_jobs = [*words, "--out", "by-jobs", "--cluster", "slurm"]
    assert generate.main(by_jobs) == 0
    settings = rundir.read_settings(drumming)
    other = drums.drummer(settings.data, settings.model)
    kits = dict(list(other.bank.kits.items())[1:])
    drummer.save(drumming.pattern, dataclasses.replace(other, bank=dataclasses.replace(other.bank, kits=kits)))
    with pytest.raises(ValueError, match=r"made with other settings \(drummer of the model: drummer@20\): add --overwrite"):
        generate.main(words)
    assert generate.main([*words, "--cluster", "slurm"]) == 1
    assert "drummer of the model: drummer@20" in capsys.readouterr().err
    with pytest.raises(ValueError, match="drummer@20 has changed since the jobs were queued"):
        stage_process.generate(queued[0], rundir.read_settings(queued[0]))
    assert generate.main(by_jobs) == 0 and queued[0].path != queued[1].path, "jobs of the one are not those of the other"
    assert export.main(["drummer", "--out", "kept"]) == 0
    assert generate.main([*words, "--model", "kept", "--overwrite"]) == 0
    assert made(Path("generated/song"))[3]["model"]["drummer"] == find_model("kept").drummer_sha256
    drummer.save(Path("kept"), other)
    with pytest.raises(ValueError, match="drummer of the model"):
        generate.main([*words, "--model", "kept"])
    (Path("kept") / drummer.NAME).unlink()
    with pytest.raises(ValueError, match=r"kept/drummer\.json is missing"):
        generate.main([*words, "--model", "kept", "--cluster", "slurm"])


@pytest.mark.parametrize("option", ["--bpm=120", "--first-beat=1", "--first-beat=0", "--half-beat", "--density=1"])
def test_beats_are_only_for_models_that_play_to_them(runs, option):
    write(Path("song.wav"), sound())
    with pytest.raises(ValueError, match=rf"{option.partition('=')[0]} is for models with a sketch"):
        generate.main(["song.wav", option])
    assert not Path("generated").exists()


def test_a_first_beat_before_the_part_is_refused(runs):
    write(Path("song.wav"), sound())
    with pytest.raises(ValueError, match=r"--first-beat must be at or after --from 2, not 1\.5"):
        generate.main(["song.wav", "--from", "2", "--first-beat", "1.5"])


@pytest.mark.parametrize("option", ["--first-beat", "--from", "--to"])
def test_a_value_that_is_refused_is_named_by_its_option(option):
    with pytest.raises(ValueError, match=f"^{option} must be from 0 to 1e9, not -1"):
        generate.main(["song.wav", option, "-1"])


def test_the_tempos_that_may_be_named_are_those_that_can_be_heard(runs):
    write(Path("song.wav"), sound())
    for bpm in (beats.SLOWEST, beats.FASTEST):
        with pytest.raises(ValueError, match="is for models with a sketch"):
            generate.main(["song.wav", "--bpm", str(bpm)])
    for bpm in (beats.SLOWEST - 0.1, beats.FASTEST + 0.1):
        with pytest.raises((SystemExit, ValueError), match=r"2|--bpm must be from 30 to 300"):
            generate.main(["song.wav", "--bpm", str(bpm)])
