"""The command as a musician types it: what comes out, what is skipped, and what each mistake is answered with."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from p2p_dist.cli import export, generate
from p2p_dist.common import console, schemas
from p2p_dist.common.records import wrong
from tests import forked_stages
from tests.generate.conftest import run, runs, sound, write

__all__ = ["run", "runs"]

CHECKOUT = Path(__file__).resolve().parents[2]
STEP = 2**-23


def read(path):
    return soundfile.read(path, dtype="float64", always_2d=True)


def made(folder, name="song", kind="flac"):
    """Stem, mix and record of a song."""
    stem, rate = read(folder / f"{name}-drums.{kind}")
    mix, same = read(folder / f"{name}-mix.{kind}")
    assert rate == same
    record = json.loads((folder / f"{name}.json").read_text())
    assert wrong(record, schemas.GENERATED.shape) is None and record["schema"] == 1
    return stem, mix, rate, record


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
    assert record["model"]["name"] == "band@20" and record["settings"]["seed"] == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "model: band@20, trained 20 steps to make drums"
    assert mido.MidiFile("generated/song/song-drums.mid").type == 0


def test_typed_again_nothing_is_made(runs, capsys):
    write(Path("song.wav"), sound())
    assert generate.main(["song.wav", "--seed", "4"]) == 0
    before = {path: path.stat().st_mtime_ns for path in Path("generated/song").rglob("*")}
    capsys.readouterr()
    assert generate.main(["song.wav", "--seed", "4"]) == 0
    assert "done already: generated/song" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"song\.json tells of files made otherwise \(seed: 4 -> 5\): add --overwrite"):
        generate.main(["song.wav", "--seed", "5"])
    assert {path: path.stat().st_mtime_ns for path in Path("generated/song").rglob("*")} == before
    page = Path("generated/song/index.html").read_text()
    assert ("band@20" in page and "song-drums.flac" in page and "beats a minute" in page) or "not found" in page
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


def test_level_and_part(runs):
    song = sound(3.0)
    write(Path("song.wav"), song)
    assert generate.main(["song.wav", "--from", "0.5", "--to", "2", "--out", "part"]) == 0
    assert generate.main(["song.wav", "--from", "0.5", "--to", "2", "--level", "-12", "--out", "quiet"]) == 0
    stem, mix, rate, record = made(Path("part"))
    quiet, quiet_mix, *_ = made(Path("quiet"))
    part = song[rate // 2 : 2 * rate]
    assert mix.shape == part.shape and record["song"]["begin_sample"] == rate // 2
    assert np.abs(quiet_mix - quiet - part).max() <= STEP * 1.001
    assert 10 * np.log10((stem**2).mean() / (quiet**2).mean()) == pytest.approx(12, abs=0.01)


def test_where_the_mix_would_clip_both_are_turned_down(runs, capsys):
    song = sound(1.3, level=0.33)
    write(Path("song.wav"), song)
    assert generate.main(["song.wav", "--level", "12"]) == 0
    stem, mix, _, record = made(Path("generated/song"))
    (take,) = record["takes"]
    assert take["gain_db"] < 0 and 0.9 < np.abs(mix).max() <= 1
    assert np.abs(mix - stem - song * 10 ** (take["gain_db"] / 20)).max() <= STEP * 1.001
    assert f"note: turned down by {take['gain_db']:g} dB, stem and mix together" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rate", "channels", "name"),
    [
        (8000, 1, "song.wav"),
        (44100, 1, "song.flac"),
        (48000, 2, "song.aiff"),
        (192000, 2, "song.flac"),
        (11025, 6, "song.flac"),
        (11025, 4, "song.wav"),
    ],
)
def test_any_rate_and_channel_count(runs, rate, channels, name, capsys):
    song = sound(0.7, rate, channels)
    write(Path(name), song, rate)
    assert generate.main([name]) == 0
    stem, mix, found, record = made(Path("generated/song"))
    assert found == rate and stem.shape == song.shape and len(record["song"]["channels"]) == channels
    assert np.abs(mix - stem - song).max() <= STEP * 1.001 and np.abs(stem[:, 0]).max() > 0.001
    said = capsys.readouterr().out
    assert ("holds nothing above" in said) == (rate < 22050)
    if channels > 2:
        assert not stem[:, 2:].any() and np.array_equal(stem[:, 0], stem[:, 1])
    if channels == 6:
        assert not stem[:, 2:].any() and np.array_equal(stem[:, 0], stem[:, 1])
        assert "6 channels (FL, FR, FC, LFE, SL, SR): all are heard, the new stem is in front left and right (FL, FR)" in said
    if channels == 4:
        assert "4 channels (1, 2, 3, 4): all are heard, the new stem is in front left and right (the first two, since" in said


@pytest.mark.parametrize("kind", ["wav", "ogg", "mp3"])
def test_formats_to_write(runs, kind):
    song = sound(1.3, 44100)
    write(Path("song.wav"), song, 44100)
    assert generate.main(["song.wav", "--format", kind]) == 0
    stem, mix, rate, _ = made(Path("generated/song"), kind=kind)
    assert rate == 44100 and mix.shape[1] == 2 and abs(len(mix) - len(song)) <= (0 if kind != "mp3" else 2500)
    if kind == "wav":
        assert np.abs(mix - stem - song).max() <= STEP * 1.001


def test_a_folder_of_songs(runs, capsys):
    """Each in a folder of its own; names that differ in the format alone are told apart; a bad one does not stop the others."""
    for name in ("a.wav", "b.wav", "b.flac", "live/a.wav", 'odd "& <b> ä עברית.wav'):
        write(Path("songs") / name, sound(0.6))
    Path("songs/broken.mp3").write_text("no sound")
    Path("songs/notes.txt").write_text("not a song")
    assert generate.main(["songs", "--out", "made"]) == 1
    found = {str(path.parent.relative_to("made")) for path in Path("made").rglob("*.json") if "media" not in path.parts}
    assert found == {"a", "b.wav", "b.flac", "live/a", 'odd "& <b> ä עברית'}
    out, err = capsys.readouterr()
    assert "songs/broken.mp3 is not a sound file that can be decoded" in err and "1 songs left out" in err
    assert "left out: songs/broken.mp3" in out
    assert not list(Path("made").rglob(".tmp-*")) and not Path("made/broken").exists()
    assert generate.main(["songs", "--out", "made"]) == 1
    assert "done already: 5 of 6 songs" in capsys.readouterr().out


def test_a_folder_that_holds_what_was_made(runs):
    write(Path("songs/a.wav"), sound(0.6))
    assert generate.main(["songs", "--out", "songs/made"]) == 0
    assert generate.main(["songs", "--out", "songs/made"]) == 0
    assert [path for path in Path("songs").rglob("*.json") if "media" not in path.parts] == [Path("songs/made/a/a.json")]


MISTAKES = {
    "no song named": ([], "name a song: "),
    "not there": (["gone.wav"], "no file or folder gone.wav"),
    "empty folder": (["empty"], "no sound file in empty"),
    "no sound": (["text.wav"], "text.wav is not a sound file that can be decoded"),
    "silence": (["silent.wav"], "silent.wav is silent: there is nothing to play along with"),
    "not a number": (["nan.wav"], "nan.wav holds samples that are no numbers, in the second after"),
    "far too loud": (["loud.wav"], r"loud.wav holds samples of 1e\+08, where full scale is 1"),
    "no samples": (["none.wav"], "none.wav has no sound that can be decoded"),
    "no such run": (["song.wav", "--model", "other"], "no run other in .*: there are band"),
    "no such step": (["song.wav", "--model", "band@7"], "no checkpoint of step 7: there are 20"),
    "a part behind the end": (["song.wav", "--from", "9"], "song.wav ends at 0.5 s, before the part that was asked for begins"),
    "a part of nothing": (["song.wav", "--from", "3", "--to", "3"], "--to must be more seconds than --from 3"),
    "files of somebody": (["taken.wav"], "taken-mix.flac is there already, and no taken.json says how it was made"),
    "a rate that mp3 has not": (
        ["wide.wav", "--format", "mp3"],
        "mp3 can't hold 1 channels at 96000 Hz .*choose",
    ),
    "channels that ogg has not": (
        ["six.wav", "--format", "ogg"],
        "ogg of 6 channels is not written: choose --format flac",
    ),
    "two songs, one place": (["x/song.wav", "song.wav"], "x/song.wav and song.wav would be written to one folder"),
    "takes": (["song.wav", "--takes", "0"], "--takes must be from 1 to 100, not 0"),
    "level": (["song.wav", "--level", "99"], "--level must be from -60 to 40 dB, not 99"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_answered_in_one_sentence(runs, mistake):
    arguments, answer = MISTAKES[mistake]
    Path("empty").mkdir()
    Path("text.wav").write_text("no sound")
    for name in ("song.wav", "x/song.wav", "taken.wav"):
        write(Path(name), sound(0.5))
    write(Path("silent.wav"), np.zeros((9000, 1)))
    write(Path("none.wav"), np.zeros((0, 1)))
    write(Path("nan.wav"), np.where(np.arange(9000) == 4000, np.nan, 0.1), subtype="FLOAT")
    write(Path("loud.wav"), np.full(9000, 1e8), subtype="FLOAT")
    write(Path("wide.wav"), sound(0.1, 96000, 1), 96000)
    write(Path("six.wav"), sound(0.1, 22050, 6))
    write(Path("generated/taken/taken-mix.flac"), sound(0.1))
    before = {path for path in Path().rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=answer) as raised:
        generate.main(arguments)
    assert "\n" not in str(raised.value)
    assert {path for path in Path().rglob("*") if path.is_file()} == before


def test_a_song_that_holds_drums_already(runs, capsys):
    from tests.audio.test_hits import strokes

    hats = strokes("closed", np.arange(0.1, 2.9, 0.25), 3)
    write(Path("song.wav"), 0.3 * hats[:, None] + 0.1 * sound(3, channels=1))
    assert generate.main(["song.wav"]) == 0
    assert "note: the song seems to hold drums already (" in capsys.readouterr().out
    write(Path("without.wav"), sound(3, channels=1))
    assert generate.main(["without.wav"]) == 0
    assert "hold drums" not in capsys.readouterr().out


def test_no_run_at_all(runs, monkeypatch):
    write(Path("song.wav"), sound(0.5))
    monkeypatch.setenv("P2P_RUNS", str(Path("nothing").absolute()))
    with pytest.raises(ValueError, match=r"no run with a checkpoint in .*: 'make demo' trains one in a minute"):
        generate.main(["song.wav"])


def test_a_file_that_is_cut_short_is_used_to_where_it_ends(runs, capsys):
    song = sound(2.0)
    write(Path("song.wav"), song)
    content = Path("song.wav").read_bytes()
    Path("song.wav").write_bytes(content[: 44 + (len(content) - 44) // 2])
    assert generate.main(["song.wav"]) == 0
    stem, mix, *_ = made(Path("generated/song"))
    assert abs(len(mix) - len(song) // 2) < 100 and np.abs(mix - stem - song[: len(mix)]).max() <= STEP * 1.001
    assert "note: the file is cut short, its header says 2.000 s, 1.000 s are there" in capsys.readouterr().out


def test_a_song_shorter_than_a_window(runs, capsys):
    write(Path("song.wav"), sound(0.1))
    assert generate.main(["song.wav"]) == 0
    assert "shorter than the 0.4 s that the model hears at once" in capsys.readouterr().out
    assert len(made(Path("generated/song"))[1]) == 2205


def test_one_that_was_killed_as_it_put_its_files_in_place_is_made_again(runs, monkeypatch):
    from p2p_dist.evaluate.report import song_page

    write(Path("song.wav"), sound(0.5))

    def killed(*_):
        raise OSError(5, "killed")

    with monkeypatch.context() as patch:
        patch.setattr(song_page, "write", killed)
        with pytest.raises(OSError):
            generate.main(["song.wav"])
    assert Path("generated/song/song-mix.flac").is_file() and not Path("generated/song/index.html").exists()
    assert generate.main(["song.wav", "--seed", "3"]) == 0
    assert made(Path("generated/song"))[3]["settings"]["seed"] == 3


def test_ctrl_c_leaves_no_half_file_and_says_how_to_go_on(runs):
    write(Path("a.wav"), sound(0.6))
    write(Path("b.wav"), sound(120))
    words = [sys.executable, "-u", str(CHECKOUT / "launch/generate.py"), "a.wav", "b.wav"]
    going = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in going.stdout:
        if line.startswith("generated/a"):
            break
    going.send_signal(signal.SIGINT)
    _, err = going.communicate(timeout=60)
    assert going.returncode == console.STOPPED, err
    assert "stopped in order" in err and err.rstrip().endswith("launch/generate.py a.wav b.wav") and "Traceback" not in err
    there = {path.name for path in Path("generated").rglob("*") if path.is_file() and "media" not in path.parts}
    assert there == {"a-drums.flac", "a-drums.mid", "a-mix.flac", "a.json", "index.html"}


def test_a_request_to_stop_that_a_library_swallows_is_not_lost(runs, monkeypatch, capsys):
    from p2p_dist.evaluate.report import song_page

    for name in ("a.wav", "b.wav"):
        write(Path(name), sound(0.4))
    real = song_page.write

    def swallowing(*asked):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:  # as a callback from C does
            real(*asked)

    monkeypatch.setattr(song_page, "write", swallowing)
    before = signal.getsignal(signal.SIGINT)
    assert generate.main(["a.wav", "b.wav"]) == console.STOPPED
    assert signal.getsignal(signal.SIGINT) is before
    assert Path("generated/a/index.html").is_file() and not Path("generated/b").exists()


def test_a_song_that_another_process_makes_is_passed_over(runs, capsys):
    import fcntl

    write(Path("song.wav"), sound(0.5))
    Path("generated/song").mkdir(parents=True)
    with Path("generated/song/.tmp-song").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert generate.main(["song.wav"]) == 0
    assert "is being made by another process" in capsys.readouterr().out
    Path("generated/song/.tmp-host-1-ab-song-mix.flac").write_text("left by one that was killed")
    Path("generated/song/.tmp-host-1-ab-other-mix.flac").write_text("of another song")
    assert generate.main(["song.wav"]) == 0
    assert [path.name for path in Path("generated/song").glob(".tmp-*")] == [".tmp-host-1-ab-other-mix.flac"]


def test_jobs_of_an_array_share_the_songs(runs, monkeypatch, capsys):
    """What the command hands to its jobs, and what one of these, begun again, makes of it: only what is missing."""
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
    assert "done already: 1 of 4 songs" in capsys.readouterr().out
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
    assert "done already: 3 of 4 songs" in capsys.readouterr().out and queued[-1].array is None


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
    assert export.main(["band", "--out", "kept/band"]) == 0
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
    assert stage_process.generate(run, rundir.resolve(run)) == 0
    monkeypatch.chdir("..")
    assert Path("made/song-drums.flac").read_bytes() == Path("of-run/song-drums.flac").read_bytes()
    assert json.loads(Path("made/song.json").read_text())["model"]["name"] == "band@20"
    assert export.main(["band", "--out", "kept/half", "--half"]) == 0
    for name in ("config.json", "model.safetensors"):
        Path("kept/half", name).replace(Path("blobs", name))
    with pytest.raises(ValueError, match="kept/band holds other weights than when the jobs were queued"):
        stage_process.generate(run, rundir.resolve(run))
    Path("blobs/model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"kept/band/model\.safetensors is missing"):
        generate.main(words)
    assert len(queued) == 1
