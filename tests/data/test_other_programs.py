"""Other programs read a dataset as they read any: Hugging Face's `datasets`, plain webdataset, the code in DATASET.md."""

from __future__ import annotations

import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.data import manifest as manifests
from p2p_dist.data import pairs
from p2p_dist.data.index import Index

FIELDS = {"song", "split", "task", "window", "copy", "first_frame", "reference"}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """`datasets.load_dataset`, with its cache here and no network."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="of the extra dev")
    datasets.disable_progress_bars()
    return partial(datasets.load_dataset, cache_dir=str(tmp_path / "cache"))


def test_hugging_face_finds_splits_and_pairs(dataset: Path, load, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = load(str(dataset))
    named = {"train": "train", "validation": "valid", "test": "test"}
    assert set(found) == set(named)
    for split, ours in named.items():
        stored = Index(dataset, ours)
        rows = {row["__key__"]: row for row in found[split]}
        assert len(rows) == len(stored) > 0
        for number in (0, len(stored) - 1):
            row = rows[stored.sample(number).key]
            for place, side in enumerate(("input", "target")):
                np.testing.assert_array_equal(np.array(row["npz"][side], np.float16), stored.read(np.array([number]))[0, place])
            assert row["json"].keys() == FIELDS and row["json"]["copy"] == 0 and row["json"]["split"] == ours


def test_hugging_face_loses_no_pair_where_it_reads_every_tar(dataset: Path, load) -> None:  # type: ignore[no-untyped-def]
    found = load("webdataset", data_files=str(dataset / "*.tar"), split="train")
    assert len(found) == sum(map(manifests.windows, manifests.read(dataset)["splits"].values()))
    assert all(row["npz"] is not None for row in found)


def test_hugging_face_finds_the_sound(dataset: Path, load) -> None:  # type: ignore[no-untyped-def]
    """To decode it, `datasets` needs torchcodec."""
    import datasets

    assert datasets.get_dataset_config_names(str(dataset)) == ["pairs", "audio"]
    found = datasets.load_dataset_builder(str(dataset), "audio", **load.keywords).config.data_files
    assert {split: [Path(path) for path in paths] for split, paths in found.items()} == {
        "validation": list(dataset.glob("audio/audio-valid-*")),
        "test": list(dataset.glob("audio/audio-test-*")),
    }


@pytest.fixture
def served(dataset: Path) -> Iterator[str]:
    """The dataset behind a web server of its own."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(dataset)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("place", ["disk", "http"])
def test_plain_webdataset_reads_every_split(place: str, dataset: Path, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both ways of its documentation; in the second, two nodes share the shards."""
    import webdataset

    if place == "http" and shutil.which("curl") is None:
        pytest.skip("webdataset opens http:// by curl")
    where = {"disk": dataset, "http": served}[place]
    for split, part in manifests.read(dataset)["splits"].items():
        urls = [f"{where}/{shard['name']}" for shard in part["shards"]]
        one_by_one = webdataset.WebDataset(urls, shardshuffle=False, nodesplitter=webdataset.split_by_node).decode()
        keys = {sample["__key__"]: sample["npz"]["target"].shape for sample in one_by_one}
        found = Index(dataset, split)
        assert keys == {found.sample(number).key: found.shape for number in range(len(found))}
        monkeypatch.setenv("WORLD_SIZE", "2")
        of_nodes: list[str] = []
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            shardlist = webdataset.SimpleShardList(urls)
            steps = (webdataset.split_by_node, webdataset.split_by_worker, webdataset.tarfile_to_samples(), webdataset.decode())
            of_nodes += [sample["__key__"] for sample in webdataset.DataPipeline(shardlist, *steps)]
        monkeypatch.delenv("WORLD_SIZE")
        monkeypatch.delenv("RANK")
        assert sorted(of_nodes) == sorted(keys)


def test_the_code_in_the_card_turns_a_picture_back_into_sound(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As somebody has it who has the folder alone."""
    (code,) = re.findall(r"```python\n(.*?)```", (dataset / "DATASET.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 10 and "p2p_dist" not in code
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    monkeypatch.chdir(copy)
    defined: dict[str, object] = {}
    exec(code, defined)
    found = Index(dataset, "train")
    sample = defined["sample"]
    (number,) = (n for n in range(len(found)) if found.sample(n).key == sample["__key__"])  # type: ignore[index]
    stored = found.read(np.array([number]))[0, 1, 0]
    ours = pairs.silent_to_zero(stored, sample["json"]["reference"])  # type: ignore[index]
    np.testing.assert_allclose(defined["power"], ours, rtol=1e-5)
    sound, rate = soundfile.read(copy / "target.wav")
    assert rate == 22050 and len(sound) == 31 * 256
    assert 0.1 < np.square(sound).mean() / _power_of_target(sample, rate, len(sound)) < 10


def _power_of_target(sample, rate: int, samples: int) -> float:  # type: ignore[no-untyped-def]
    """Of the drums of the song itself, in this window."""
    from tests.data.conftest import song_sound

    number = {"A": 0, "C": 1}[sample["json"]["song"]]
    begin = sample["json"]["first_frame"] * 256
    drums = song_sound(1.5 + 0.4 * number, rate, seed=number)["drums"].mean(axis=1)
    return float(np.square(drums[begin : begin + samples]).mean())


def test_a_window_of_the_reference_is_0_db(dataset: Path) -> None:
    """What DATASET.md says of the numbers, computed by librosa from the song's own files."""
    import librosa
    import webdataset

    from tests.data.conftest import song_sound

    stems = song_sound(1.5, 22050, seed=0)
    sides = {"target": stems["drums"], "input": stems["bass"] + stems["other"] + stems["vocals"]}
    power = {
        side: librosa.feature.melspectrogram(
            y=sound.mean(axis=1), sr=22050, n_fft=1024, hop_length=256, n_mels=32, pad_mode="constant"
        )
        for side, sound in sides.items()
    }
    (shard,) = manifests.read(dataset)["splits"]["train"]["shards"]
    for sample in webdataset.WebDataset(str(dataset / shard["name"]), shardshuffle=False).decode():
        note = sample["json"]
        if note["song"] == "A":
            assert note["reference"] == pytest.approx(max(np.quantile(power["input"], 0.999), 1e-3), rel=1e-3)
            for side, whole in power.items():
                part = whole[:, note["first_frame"] : note["first_frame"] + 32]
                expected = np.clip(10 * np.log10(np.maximum(part, 1e-10) / note["reference"]), -80, 25)
                stored = sample["npz"][side][0, :, : part.shape[1]].astype(float)
                np.testing.assert_allclose(stored, expected, atol=0.1)
                assert (sample["npz"][side][0, :, part.shape[1] :] == -80).all()
