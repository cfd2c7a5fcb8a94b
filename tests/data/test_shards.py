"""Songs to shards: what is written, that others can read it, and what happens when songs or disks are bad."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from p2p_dist.audio.musdb18 import excerpt_file
from p2p_dist.common import files
from p2p_dist.data import columns, shards
from p2p_dist.data import manifest as manifests
from p2p_dist.data.index import Index
from p2p_dist.evaluate import held_out_songs
from p2p_dist.settings import science
from p2p_dist.settings.config import Data
from tests.data.conftest import fingerprint, shard_of


def half_written(out: Path) -> list[str]:
    return [path.name for path in out.rglob(files.TEMPORARY + "*")]


def test_a_song_shorter_than_a_window_is_one_padded_window(new_song: Callable[..., Path], small: Data, tmp_path: Path) -> None:
    new_song(tmp_path / "songs/train/Short", seconds=0.05)
    shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1)
    found = Index(tmp_path / "out", "train")
    assert len(found) == 1
    assert (found.read(np.array([0]))[..., -1] == -80).all()


def test_damaged_songs_are_named_and_left_out_and_the_rest_goes_on(songs: Path, small: Data, tmp_path: Path) -> None:
    """Row 26: a song that can't be decoded, cut short, or without a stem.

    Seen: hours of preprocessing end at song 83, or `import musdb` itself fails.
    Now: it is named and left out, the rest continues, and the exit code says so.
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
    assert len(set(keys)) == 3 and all(re.fullmatch("twice-[0-9a-f]{10}", key) for key in keys)
    assert "Titles that occur more than once and count as different songs: Twice." in (tmp_path / "out/DATASET.md").read_text()


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
    with pytest.raises(ValueError, match="no training songs"):
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
    shard_of(out, "A").unlink()
    (out / manifests.NAME).unlink()
    (out / f"{files.TEMPORARY}123-train-0123456789ab.tar").write_bytes(b"half")
    made: list[str] = []
    shards.preprocess(songs, out, small, workers=1, on_song=lambda done, total, result: made.append(result.name))
    assert sorted(made) == ["A", "C"] and fingerprint(out) == before and not half_written(out)


def test_an_index_that_is_not_there_or_cut_is_made_again(songs: Path, dataset: Path, small: Data, tmp_path: Path) -> None:
    """If it failed: training says that the index is missing and to preprocess again, which says that all is done."""
    out = Path(shutil.copytree(dataset, tmp_path / "out"))
    before, (path,) = fingerprint(out), out.glob("index-train-*")
    made: list[str] = []
    for harm in (path.unlink, lambda: os.truncate(path, 40)):
        harm()
        shards.preprocess(songs, out, small, workers=1, on_song=lambda done, total, result: made.append(result.name))
        assert fingerprint(out) == before and made == [], "no song is"


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
    gone = record.with_name("train-gone-0123456789.json")
    shutil.copy2(record, gone)
    assert is_written() and path.read_bytes() == whole and not gone.exists()


def test_workers_import_neither_torch_nor_librosa(songs: Path, small: Data, tmp_path: Path) -> None:
    code = f"""
import json, sys
from pathlib import Path
from p2p_dist.settings.config import Data
from p2p_dist.data import shards
work = shards.keyed_songs(Path({str(songs)!r}), False)
data = Data(**json.loads({json.dumps(json.dumps(science.recorded(small)))}))
assert shards.make_song(work[-1], [(Path({str(tmp_path)!r}), data)]).error is None
loaded = {{name.split(".")[0] for name, module in sys.modules.items() if module is not None}}
print(sorted(loaded & {{"torch", "librosa", "numba"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert list(tmp_path.glob("parts/audio-test-*.tar"))


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


def test_jobs_of_an_array_do_not_read_the_records_of_all_shards_for_each_song(
    new_song: Callable[..., Path], small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it failed: adding songs to a dataset of 10 000 takes longer for each that is added."""
    root, out = tmp_path / "songs", tmp_path / "out"
    new_song(root / "train/A", seconds=0.5)
    shards.preprocess(root, out, small, workers=1)
    calls = []
    honest = shards.packing.packed
    monkeypatch.setattr(shards.packing, "packed", lambda out: calls.append(out) or honest(out))
    for number in range(5):
        new_song(root / f"train/B{number}", seconds=0.5, seed=number)
    assert shards.preprocess_all(root, [(out, small)], 1, member=0) == []
    assert len(calls) == 3, "before the songs, before the last one finishes what others left, and to merge"
    assert sum(len(part["songs"]) for part in manifests.read(out)["splits"].values()) == 6


def test_a_song_that_is_gone_is_said_to_be_in_one_line(
    new_song: Callable[..., Path], small: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("train/A", "train/B\nerror: lost", "test/C")):
        new_song(tmp_path / "songs" / name, seconds=1.5, seed=number)
    gone = tmp_path / "songs/train/B\nerror: lost"
    assert shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1) == []
    shutil.rmtree(gone)
    assert shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1) == []
    assert "removed: B\\nerror: lost (train) is no longer in the data" in capsys.readouterr().err.splitlines()


def test_a_song_that_has_another_key_now_is_not_said_to_be_gone(
    songs: Path, dataset: Path, small: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(dataset, tmp_path / "out"))
    (record,) = (out / "parts").glob("train-a-*.json")
    before = Path(shutil.copy(record, record.with_name("train-a-00000000.json")))
    shards.preprocess(songs, out, small, workers=1)
    assert not before.exists() and "removed" not in capsys.readouterr().err


def test_an_original_comes_before_its_copies(small: Data, tmp_path: Path, new_song: Callable[..., Path]) -> None:
    """If it failed: another order of the batches from the same seed."""
    new_song(tmp_path / "songs" / "train" / "a", seconds=2.0, seed=1)
    shards.preprocess(tmp_path / "songs", tmp_path / "out", replace(small, copies=2), workers=1)
    found = columns.read(tmp_path / "out", manifests.read(tmp_path / "out")["splits"]["train"]["index"])
    rows = list(zip(found["window"].tolist(), found["copy"].tolist(), strict=True))
    assert len(set(rows)) == len(rows) > 3 and rows == sorted(rows)


def test_members_share_one_folder_alone(small: Data, tmp_path: Path, new_song: Callable[..., Path]) -> None:
    new_song(tmp_path / "songs" / "train" / "a", seconds=1.0)
    with pytest.raises(AssertionError, match="last one"):
        shards.preprocess_all(tmp_path / "songs", [(tmp_path / "a", small), (tmp_path / "b", small)], 1, member=0)


def test_two_songs_of_one_name_are_named(tmp_path: Path) -> None:
    for name in ("z/train/001.npz", "z/train/train/001.npz", "z/test/a-1.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(tmp_path / name, np.zeros((64, 32)))
    with pytest.raises(ValueError, match=r"z has two songs called train \(train and train/train\): rename one"):
        shards.keyed_songs(tmp_path / "z", False)


def test_a_held_out_song_with_the_title_of_a_training_song_is_named(
    new_song: Callable[..., Path], small: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be the same recording, some milliseconds later."""
    for number, name in enumerate(("train/Beyonc\u00e9", "train/Two", "test/beyonce\u0301")):
        new_song(tmp_path / "songs" / name, seconds=2.0, seed=number)
    assert shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1) == []
    assert "is in train and in test: if it is the same recording, remove one" in capsys.readouterr().err
