"""Songs to shards: what is written, that others can read it, and what happens when songs or disks are bad."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from p2p_dist.audio import stems
from p2p_dist.audio.layouts import excerpt_file, source_at
from p2p_dist.common import files, records
from p2p_dist.data import dataset_card, index, manifest, overlap, shards, song_record
from p2p_dist.data import manifest as manifests
from p2p_dist.data.index import Index
from p2p_dist.evaluate import held_out_songs
from p2p_dist.settings import science
from p2p_dist.settings.config import Data
from tests import decode


def fingerprint(out: Path) -> dict[str, str]:
    """sha256 of all that a dataset is: shards, manifest, card."""
    kept = [path for path in out.iterdir() if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def half_written(out: Path) -> list[str]:
    return [path.name for path in out.rglob(files.TEMPORARY + "*")]


def test_the_manifest_counts_and_names_everything(dataset: Path) -> None:
    manifest = manifests.read(dataset)
    assert {split: [song["name"] for song in part["songs"]] for split, part in manifest["splits"].items()} == {
        "train": ["A", "C"],
        "valid": ["M"],
        "test": ["D"],
    }
    named = {shard["name"] for part in manifest["splits"].values() for shard in part["shards"] + part["audio"]}
    assert named == {path.name for path in dataset.glob("*.tar")}
    for part in manifest["splits"].values():
        for shard in part["shards"] + part["audio"]:
            data = (dataset / shard["name"]).read_bytes()
            assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert sum(shard["samples"] for shard in part["shards"]) == len(part["samples"])
    told = (dataset / "DATASET.md").read_text()
    assert "| train | 2 |" in told and "non-commercial" in told


def test_plain_webdataset_reads_the_shards(dataset: Path) -> None:
    import webdataset

    url = str(next(dataset.glob("train-00000-*.tar")))
    samples = list(webdataset.WebDataset(url, shardshuffle=False).decode())
    found = Index(dataset, "train")
    for number, sample in enumerate(samples):
        assert sample["__key__"] == found.sample(number).key
        np.testing.assert_array_equal(sample["npz"]["input"], found.read(np.array([number]))[0, 0])
        assert sample["json"]["song"] == "A" and sample["json"]["window"] == number
    assert len(samples) == sum(sample.shard == Path(url).name for sample in map(found.sample, range(len(found))))


def test_plain_tar_reads_the_shards(dataset: Path) -> None:
    for shard in dataset.glob("*.tar"):
        listed = subprocess.run(["tar", "-tf", str(shard)], capture_output=True, text=True, check=True).stdout.split()
        assert listed and all(name.count(".") <= 2 for name in listed)
        with tarfile.open(shard) as archive:
            assert {member.mtime for member in archive} == {0}


def test_a_shard_is_what_webdatasets_own_writer_makes_of_its_samples(dataset: Path, tmp_path: Path) -> None:
    from webdataset import TarWriter

    for shard in dataset.glob("*.tar"):
        with tarfile.open(shard) as archive, TarWriter(str(tmp_path / "theirs.tar"), mtime=0, encoder=False) as writer:
            for member in archive:
                key, _, suffix = member.name.partition(".")
                writer.write({"__key__": key, suffix: archive.extractfile(member).read()})  # type: ignore[union-attr]
        assert (tmp_path / "theirs.tar").read_bytes() == shard.read_bytes()


def test_what_is_known_of_a_shard_as_it_is_written_is_what_is_found_in_it(dataset: Path) -> None:
    for split, part in manifests.read(dataset)["splits"].items():
        found = [[r["key"], s["name"], r["input"], r["target"], r["checksum"]] for s in part["shards"]
                 for r in index.index_shard(dataset / s["name"])]  # fmt: skip
        assert found == part["samples"], split


def test_held_out_songs_carry_their_sound(dataset: Path, songs: Path) -> None:
    from p2p_dist.evaluate.held_out_songs import read_sound

    decoded = decode.load(source_at(songs / "test" / "D", "test"))
    shard = dataset / "audio-test-00000-d.tar"
    input, target, rate = read_sound(shard, "00000-d", files.sha256_file(shard))
    assert rate == decoded.sample_rate
    np.testing.assert_allclose(input, decoded.sum_of(["bass", "other", "vocals"]), atol=2**-22)
    np.testing.assert_allclose(target, decoded.stems["drums"], atol=2**-22)


def test_held_out_sound_that_is_damaged_is_never_heard(dataset: Path, tmp_path: Path) -> None:
    from p2p_dist.evaluate.held_out_songs import from_shards

    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    (song,) = from_shards(copy, "test", 10)
    song.read()
    shard = copy / "audio-test-00000-d.tar"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(files.DamagedError, match=r"audio-test-00000-d\.tar is damaged: the audio of 00000-d") as damaged:
        song.read()
    assert "the launch command" in str(damaged.value)
    shard.unlink()
    with pytest.raises(files.DamagedError, match=r"audio-test-00000-d\.tar: the audio of 00000-d is missing"):
        song.read()


@given(st.text())
def test_a_slug_is_a_key_that_webdataset_does_not_cut(title: str) -> None:
    slug = song_record.slug(title)
    assert slug and len(slug) <= 48 and slug.isascii() and set("./ &'\"\n\0").isdisjoint(slug)


def test_nasty_titles_stay_apart_and_keep_their_names(new_song: Callable[..., Path], small: Data, tmp_path: Path) -> None:
    """Row 25: titles with dots, slashes, quotes and letters beyond ASCII.

    Seen: songs that are lost or merged, keys that are cut at the first dot.
    Now: keys are slugs of their own, the true name stays beside them.
    """
    titles = ["M.E.R.C. Music - Knockout", "M", "Ünï & 'cöde' \"x\"", "日本", "a.b", "a b", "A-B", "-rf", "x" * 200]
    for number, title in enumerate(titles):
        new_song(tmp_path / "songs" / "test" / title, seconds=0.3, seed=number)
    work = shards._work(tmp_path / "songs", False)
    assert len({item.key for item in work}) == len(titles)
    out = tmp_path / "out"
    for item in work:
        assert shards.make_song(item, [(out, small)]).error is None
    shards._merge(out, small, work, [])
    part = manifests.read(out)["splits"]["test"]
    assert sorted(song["name"] for song in part["songs"]) == sorted(titles)
    assert len({sample[0] for sample in part["samples"]}) == len(part["samples"])


def test_a_song_shorter_than_a_window_is_one_padded_window(new_song: Callable[..., Path], small: Data, tmp_path: Path) -> None:
    new_song(tmp_path / "songs/train/Short", seconds=0.05)
    shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1)
    found = Index(tmp_path / "out", "train")
    assert len(found) == 1
    assert (found.read(np.array([0]))[..., -1] == -80).all()


def test_damaged_songs_are_named_and_left_out_and_the_rest_goes_on(songs: Path, small: Data, tmp_path: Path) -> None:
    """Row 26: a song that can't be decoded, cut short, or without a stem.

    Seen: hours of preprocessing end at song 83, or `import musdb` itself fails.
    Now: it is named and left out, the rest goes on, and the exit code says so.
    """
    root = Path(shutil.copytree(songs, tmp_path / "songs"))
    (root / "train" / "Text.stem.mp4").write_text("words")
    cut = excerpt_file().read_bytes()
    (root / "train" / "Cut.stem.mp4").write_bytes(cut[: int(0.98 * len(cut))])
    (root / "train" / "C" / "bass.wav").unlink()
    left_out = shards.preprocess(root, tmp_path / "out", small, workers=2)
    assert sorted(result.name for result in left_out) == ["C", "Cut", "Text"]
    manifest = manifests.read(tmp_path / "out")
    assert {item["song"] for item in manifest["left_out"]} == {"C", "Cut", "Text"}
    assert "bass.wav" in (tmp_path / "out" / "DATASET.md").read_text()
    assert [song["name"] for song in manifest["splits"]["train"]["songs"]] == ["A"]


def test_clipped_samples_and_songs_that_hold_no_numbers_are_counted_in_the_card(
    new_song: Callable[..., Path], small: Data, tmp_path: Path
) -> None:
    for name in ("Clean", "Clipped", "Not a number"):
        new_song(tmp_path / "songs/train" / name)
    for name, stem, value in (("Clipped", "drums", 1.0), ("Clipped", "bass", -1.5), ("Not a number", "drums", np.nan)):
        path = tmp_path / "songs/train" / name / f"{stem}.wav"
        sound, rate = soundfile.read(path)
        sound[100:107, 1] = value
        soundfile.write(path, sound, rate, subtype="FLOAT")
    (left_out,) = shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1)
    assert left_out.name == "Not a number" and "drums" in str(left_out.error) and "NaN or infinite" in str(left_out.error)
    finished = [records.read(path) for path in (tmp_path / "out/parts").glob("train-*.json")]
    assert {record["song"]: record["clipped"] for record in finished} == {"Clean": 0, "Clipped": 14}
    told = (tmp_path / "out/DATASET.md").read_text()
    assert next(line for line in told.splitlines() if line.startswith("| train")).endswith(" 14 |")
    assert "Left out: 1 song." in told and "Not a number: " in told


def test_the_card_counts_hours(dataset: Path) -> None:
    manifest = manifests.read(dataset)
    read = [records.read(path) for path in sorted((dataset / "parts").glob("t*-*.json"))]
    lengths = iter((5400.0, 1800.0, 900.0))
    timed = [{**record, "seconds": next(lengths)} for record in sorted(read, key=lambda record: record["split"] != "train")]
    rows = [line for line in dataset_card.card(manifest, timed).splitlines() if line.startswith(("| train | 2", "| test | 1"))]
    assert [row.split("|")[3].strip() for row in rows[:2]] == ["2.00", "0.25"]


def test_the_card_tells_of_stems_filled_up_and_of_streams_without_names(
    new_song: Callable[..., Path], small: Data, tmp_path: Path
) -> None:
    new_song(tmp_path / "songs/train/Even")
    path = new_song(tmp_path / "songs/train/Short") / "vocals.wav"
    sound, rate = soundfile.read(path)
    soundfile.write(path, sound[:-2205], rate)
    unnamed = excerpt_file().read_bytes().replace(b'"name": "Drums"', b'"name": "Stem "')
    (tmp_path / "songs/train/Unnamed.stem.mp4").write_bytes(unnamed)
    shutil.copy(excerpt_file(), tmp_path / "songs/train/Named.stem.mp4")
    assert shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1) == []
    finished = {record["song"]: record for record in map(records.read, (tmp_path / "out/parts").glob("t*.json"))}
    assert {name: record["filled"] for name, record in finished.items() if record["filled"]} == {"Short": 0.1}
    assert [name for name, record in finished.items() if record["by_position"]] == ["Unnamed"]
    told = (tmp_path / "out/DATASET.md").read_text()
    assert "stems of unequal length, of which the shorter end in silence: 1 (by at most 0.100 s" in told
    assert "in MUSDB18's order (mixture, drums, bass, other, vocals): 1." in told
    # What earlier versions wrote does not tell.
    for record in finished.values():
        del record["filled"], record["by_position"]
    manifest = manifests.read(tmp_path / "out")
    assert "silence: 1" not in dataset_card.card(manifest, list(finished.values()))


def test_songs_may_lie_in_one_folder_and_be_split_by_title(
    new_song: Callable[..., Path], small: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        new_song(tmp_path / "songs" / f"Title {number}", seconds=0.5, seed=number)
    (tmp_path / "songs/demo.mp3").touch()
    data = replace(small, split_by_title=True)
    assert science.recorded(data) == {**science.recorded(small), "split_by_title": True}
    assert shards.preprocess(tmp_path / "songs", tmp_path / "out", data, workers=1) == []
    splits = manifests.read(tmp_path / "out")["splits"]
    assert splits["train"]["songs"] and splits["test"]["songs"]
    assert sum(len(part["songs"]) for part in splits.values()) == 4
    assert "ignored in" in (said := capsys.readouterr().err) and "demo.mp3" in said
    with pytest.raises(ValueError, match="is inside the folder of songs"):
        shards.preprocess(tmp_path / "songs", tmp_path / "songs/out", data, workers=1)
    assert len(held_out_songs.from_folder(tmp_path / "songs", "drums", "test", 10)) == 4  # to measure, all of them


def test_two_songs_with_one_title_are_two_songs_and_named(new_song: Callable[..., Path], small: Data, tmp_path: Path) -> None:
    new_song(tmp_path / "songs/train/Twice")
    new_song(tmp_path / "songs/test/Twice", seed=1)
    shutil.copy(excerpt_file(), tmp_path / "songs/train/Twice.stem.mp4")
    assert shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1) == []
    manifest = manifests.read(tmp_path / "out")
    keys = [song["key"] for part in manifest["splits"].values() for song in part["songs"]]
    assert sorted(keys) == ["00000-twice", "00000-twice", "00001-twice"] and len(list((tmp_path / "out").glob("t*.tar"))) == 3
    assert "Titles that come more than once, and count as different songs: Twice." in (tmp_path / "out/DATASET.md").read_text()


def test_an_empty_folder_among_the_songs_is_named(songs: Path, small: Data, tmp_path: Path) -> None:
    root = Path(shutil.copytree(songs, tmp_path / "songs"))
    (root / "train" / "Nothing in it").mkdir()
    (left_out,) = shards.preprocess(root, tmp_path / "out", small, workers=1)
    assert left_out.name == "Nothing in it" and "no drums.wav or .flac" in str(left_out.error)


def test_a_set_of_which_nothing_can_be_read_is_an_error(tmp_path: Path, small: Data) -> None:
    (tmp_path / "songs" / "train").mkdir(parents=True)
    (tmp_path / "songs" / "train" / "Text.stem.mp4").write_text("words")
    with pytest.raises(ValueError, match=r"none of 1 songs could be read:\n.*Text\.stem\.mp4"):
        shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1)
    assert not (tmp_path / "out" / manifests.NAME).exists()


def test_songs_may_lie_in_test_alone(new_song: Callable[..., Path], small: Data, tmp_path: Path) -> None:
    new_song(tmp_path / "songs/test/Only", seconds=0.5)
    shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1)
    assert list(manifests.read(tmp_path / "out")["splits"]) == ["test"]
    with pytest.raises(ValueError, match="no train songs"):
        Index(tmp_path / "out", "train")


def test_a_folder_made_by_other_settings_is_refused_and_names_the_field(
    songs: Path, dataset: Path, small: Data, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(dataset, tmp_path / "out"))
    before = fingerprint(out)
    with pytest.raises(ValueError, match="mels: 32 -> 64"):
        shards.preprocess(songs, out, replace(small, mels=64), workers=1)
    assert fingerprint(out) == before


def test_what_is_there_already_stays_and_what_is_lost_is_made_again(
    songs: Path, dataset: Path, small: Data, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(dataset, tmp_path / "out"))
    before = fingerprint(out)
    (out / "train-00001-c.tar").unlink()
    (out / manifests.NAME).unlink()
    (out / f"{files.TEMPORARY}123-train-00001-c.tar").write_bytes(b"half")
    made: list[str] = []
    shards.preprocess(songs, out, small, workers=1, on_song=lambda done, total, result: made.append(result.name))
    assert made == ["C"] and fingerprint(out) == before and not half_written(out)


def test_a_manifest_that_stands_is_not_written_again(songs: Path, dataset: Path, small: Data, tmp_path: Path) -> None:
    """Trainings read it. It is merged anew where it is damaged, older than a record, or of a song that is gone."""
    out = Path(shutil.copytree(dataset, tmp_path / "out"))  # which keeps the times
    path = out / manifests.NAME

    def is_written() -> bool:
        before = path.stat().st_ino
        shards.preprocess(songs, out, small, workers=1)
        return path.stat().st_ino != before

    assert not is_written()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert is_written() and path.read_bytes() == whole
    record = next(file for file in (out / "parts").iterdir() if file.name.startswith("train-"))
    os.utime(record, ns=(0, path.stat().st_mtime_ns + 1))
    assert is_written() and path.read_bytes() == whole
    os.utime(record, ns=(0, path.stat().st_mtime_ns))
    assert not is_written()
    gone = record.with_name("train-00099-gone.json")
    shutil.copy2(record, gone)
    assert is_written() and path.read_bytes() == whole and not gone.exists()


def test_workers_import_neither_torch_nor_librosa(songs: Path, small: Data, tmp_path: Path) -> None:
    code = f"""
import json, sys
from pathlib import Path
from p2p_dist.settings.config import Data
from p2p_dist.data import shards
work = shards._work(Path({str(songs)!r}), False)
data = Data(**json.loads({json.dumps(json.dumps(science.recorded(small)))}))
assert shards.make_song(work[-1], [(Path({str(tmp_path)!r}), data)]).error is None
loaded = {{name.split(".")[0] for name, module in sys.modules.items() if module is not None}}
print(sorted(loaded & {{"torch", "librosa", "numba"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert list(tmp_path.glob("audio-test-*.tar"))


SMALL_DISK = """
import json, resource, signal, sys
from pathlib import Path
from p2p_dist.settings.config import Data
from p2p_dist.common.console import exit_with
from p2p_dist.data import shards
if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
    data = Data(**json.loads(sys.argv[4]))
    exit_with(lambda: len(shards.preprocess(Path(sys.argv[2]), Path(sys.argv[3]), data, int(sys.argv[5]))))
"""


@pytest.mark.parametrize(("limit", "workers"), [(10, 1), (50_000, 1), (200_000, 2)])
def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(
    songs: Path, small: Data, tmp_path: Path, limit: int, workers: int
) -> None:
    """A limit on the size of files refuses a write in its middle, as a full disk does, and needs no rights of root."""
    out = tmp_path / "out"
    script = tmp_path / "fill.py"
    script.write_text(SMALL_DISK)
    command = [sys.executable, str(script), str(limit), str(songs), str(out), json.dumps(science.recorded(small)), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not half_written(out) and not (out / manifests.NAME).exists()
    assert shards.preprocess(songs, out, small, workers=1) == []


TMPFS = """
mount -t tmpfs -o size=260k tmpfs "$1" && shift || exit 99
"$@"; code=$?
find "$OUT" -name '.tmp-*' -o -name manifest.json
exit $code
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_runs_full_is_said_and_nothing_half_written_stays(
    songs: Path, small: Data, tmp_path: Path, workers: int
) -> None:
    """A file system of 260 kB of one's own: root may have it, others where the kernel lets users have name spaces."""
    mine = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*mine, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("no name spaces for users here")
    disk, script = tmp_path / "disk", tmp_path / "fill.py"
    disk.mkdir()
    script.write_text(SMALL_DISK)
    command = [
        sys.executable,
        str(script),
        str(2**30),
        str(songs),
        str(disk / "out"),
        json.dumps(science.recorded(small)),
        str(workers),
    ]
    done = subprocess.run(
        [*mine, "sh", "-c", TMPFS, "sh", str(disk), *command],
        capture_output=True, text=True, timeout=60, env={**os.environ, "OUT": str(disk / "out")},
    )  # fmt: skip
    assert done.returncode == 1 and "the disk is full: free some space" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and done.stdout.strip() == ""


def test_a_training_song_that_is_held_out_too_is_found_by_its_sound(
    new_song: Callable[..., Path], small: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under another name and in another format; another song of the same length is another song."""
    for number, name in enumerate(("train/One", "train/Two", "test/New")):
        new_song(tmp_path / "songs" / name, seconds=2.0, seed=number)
    again = tmp_path / "songs/test/01 - Same (remastered)"
    again.mkdir()
    for path in (tmp_path / "songs/train/Two").iterdir():
        sound, rate = soundfile.read(path)
        soundfile.write(again / f"{path.stem}.flac", 0.5 * sound, rate, subtype="PCM_16")
    assert shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1) == []
    told = "01 - Same (remastered) (test) has the sound of Two (train)"
    assert told in capsys.readouterr().err and told in (tmp_path / "out/DATASET.md").read_text()
    content = manifests.read(tmp_path / "out")
    assert [song.get("same_as") for song in content["splits"]["test"]["songs"]] == [["Two"], None]
    assert [song.name for song in held_out_songs.from_shards(tmp_path / "out", "test", 10, allow_overlap=False)] == ["New"]
    assert len(held_out_songs.from_shards(tmp_path / "out", "test", 10, allow_overlap=True)) == 2
    manifest.check_unseen(content, "test")
    content["splits"]["test"]["songs"].pop()
    with pytest.raises(ValueError, match=r"all test songs .*Same \(remastered\).*--allow-overlap"):
        manifest.check_unseen(content, "test")
    # Of what earlier versions made, nothing is claimed.
    read = [records.read(path) for path in (tmp_path / "out/parts").glob("t*-*.json")]
    assert overlap.training_songs(read) and not overlap.training_songs([{**one, "fingerprint": None} for one in read])
    assert not overlap.training_songs([{k: v for k, v in one.items() if k != "fingerprint"} for one in read])


@pytest.mark.parametrize("changed", ["rate", "coded", "offset", "none", "less", "silent"])
def test_what_sounds_alike_is_one_song(changed: str) -> None:
    random = np.random.default_rng(0)
    sound = random.normal(0, 0.1, (6 * 44100, 2)).astype(np.float32)
    other, rate, alike = sound, 44100, True
    if changed == "rate":
        other, rate = stems.resample(sound, 44100, 48000), 48000
    elif changed == "coded":
        other = (sound + random.normal(0, 0.01, sound.shape)).astype(np.float32)[:-1000]
    elif changed == "offset":
        other = sound + np.float32(0.2)
    elif changed == "none":
        other, alike = random.normal(0, 0.1, sound.shape).astype(np.float32) + np.float32(0.2), False
    elif changed == "less":
        other, alike = sound[: 5 * 44100], False
    else:
        sound, other, alike = 0 * sound, 0 * sound, False
    zero = np.zeros_like
    finished = [
        {"split": split, "key": split, "song": split, "fingerprint": overlap.fingerprint([one, zero(one)], of)}
        for split, one, of in (("train", sound, 44100), ("valid", other, rate))
    ]
    assert overlap.training_songs(finished) == ({("valid", "valid"): ["train"]} if alike else {})
