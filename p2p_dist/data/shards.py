"""Songs to WebDataset tar shards: one song, one shard, so the bytes do not depend on who made them.

    manifest.json            written last: settings, and of every shard its size, sha256, samples and their offsets
    DATASET.md               what it holds, for people
    train-00003-title.tar    pairs: KEY.npz (input, target: float16 dB, stored) and KEY.json
    audio-test-00000-title.tar   held-out songs as sound: KEY.input.flac, KEY.target.flac, KEY.json
    parts/                   one record a finished song; a song with a record is not made again

Workers import neither torch nor librosa, and may be killed at any instant: a shard has its name only when it is whole.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import json
import multiprocessing
import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist import files, processes
from p2p_dist.audio import stems
from p2p_dist.config import Data, parse_task
from p2p_dist.data import index, pairs

PARTS = "parts"


@dataclass(frozen=True)
class Work:
    """One song to be made into shards."""

    source: stems.Source
    number: int
    """of the song in its split; with the title it makes the keys unique"""

    @property
    def key(self) -> str:
        """`00003-the-title`: ASCII without dots, since WebDataset cuts a key at its first dot."""
        return f"{self.number:05d}-{slug(self.source.name)}"


@dataclass(frozen=True)
class Result:
    """What became of one song: a record, or the reason why it was left out."""

    name: str
    seconds: float = 0.0
    error: str | None = None


def slug(title: str) -> str:
    """A title as at most 48 ASCII letters, digits and single dashes: for keys and file names, not for people."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48].strip("-") or "song"


def preprocess(
    root: Path, out: Path, data: Data, workers: int, on_song: Callable[[int, int, Result], None] = lambda *_: None
) -> list[Result]:
    """Make all shards of the songs under `root` in `out`, then the manifest. What is there already stays.

    Args:
        workers: processes; each takes a song at a time.
        on_song: called after each song with songs done, songs in all, and the result.

    Returns:
        The songs left out, each with its reason: a damaged song does not stop the others.

    Raises:
        ValueError: no song, none that could be read, or `out` was made by other settings.
        OSError: the machine refused, for instance a full disk; nothing half written stays.
    """
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, data)
    files.remove_garbage(out)
    files.remove_garbage(out / PARTS)
    work = _work(root)
    results = []
    todo = [item for item in work if not _is_finished(out, item)]
    done = len(work) - len(todo)
    if todo:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(
            min(workers, len(todo)), context, initializer=processes.die_with_parent
        ) as pool:
            futures = [pool.submit(make_song, item, out, data) for item in todo]
            try:
                for future in concurrent.futures.as_completed(futures):
                    results.append(future.result())
                    done += 1
                    on_song(done, len(work), results[-1])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    left_out = [result for result in results if result.error is not None]
    _finish(out, data, work, left_out)
    return left_out


def _work(root: Path) -> list[Work]:
    numbers = dict.fromkeys(stems.SPLITS, 0)
    work = []
    for source in stems.find_songs(root):
        work.append(Work(source, numbers[source.split]))
        numbers[source.split] += 1
    return work


def _claim(out: Path, data: Data) -> None:
    """Write down what `out` is made of, or refuse it if it was made of something else."""
    path = out / PARTS / "settings.json"
    wanted = json.loads(json.dumps(data.science()))
    if not path.is_file():
        files.write_json(path, wanted)
        return
    found = files.read_json(path)
    changed = [
        f"{name} is {found.get(name)!r} there, {value!r} here" for name, value in wanted.items() if found.get(name) != value
    ]
    if changed:
        raise ValueError(f"{out} was made by other settings ({'; '.join(changed)}): name another folder")


def _record(out: Path, item: Work) -> Path:
    return out / PARTS / f"{item.source.split}-{item.key}.json"


def _is_finished(out: Path, item: Work) -> bool:
    """Whether the song has its record and all that the record names."""
    if not _record(out, item).is_file():
        return False
    record = files.read_json(_record(out, item))
    shards = [shard for shard in (record["shard"], record["audio"]) if shard]
    return all((p := out / shard["name"]).is_file() and p.stat().st_size == shard["bytes"] for shard in shards)


def make_song(item: Work, out: Path, data: Data) -> Result:
    """Decode one song and write its shards and its record; runs in a worker."""
    source, split = item.source, item.source.split
    heard, made = parse_task(data.task)
    try:
        song = stems.load(source, (*heard, *made))
    except ValueError as error:
        return Result(source.name, error=str(error))
    input_sound, target_sound = pairs.heard_and_target(song, data.task)
    pictures = pairs.make(input_sound, target_sound, song.sample_rate, data)
    about = {"song": source.name, "split": split, "task": data.task}
    shards = [_write_shard(out, f"{split}-{item.key}.tar", _pair_samples(item.key, pictures, about))]
    if split != "train":
        sound = _sound_sample(item.key, song.sample_rate, input_sound, target_sound, about)
        shards.append(_write_shard(out, f"audio-{split}-{item.key}.tar", [sound]))
    rows = index.index_shard(out / shards[0]["name"])
    seconds = len(input_sound) / song.sample_rate
    record = {
        "song": source.name,
        "split": split,
        "key": item.key,
        "seconds": seconds,
        "sample_rate": song.sample_rate,
        "clipped": int((np.abs(input_sound + target_sound) > 1).sum()),
        "silent_windows": int((pictures.targets <= pairs.FLOOR + 0.5).all(axis=(1, 2, 3)).sum()),
        "padded_windows": int(pictures.starts[-1] + data.frames > pictures.frames),
        "dtype": rows[0]["dtype"],
        "shape": rows[0]["shape"],
        "shard": {**shards[0], "samples": len(rows)},
        "audio": shards[1] if len(shards) > 1 else None,
        "samples": [[row["key"], shards[0]["name"], row["input"], row["target"]] for row in rows],
    }
    files.write_json(_record(out, item), record)
    return Result(source.name, seconds)


def _pair_samples(key: str, pictures: pairs.Pictures, about: dict[str, Any]) -> list[dict[str, Any]]:
    samples = []
    for number, start in enumerate(pictures.starts):
        npz = io.BytesIO()
        np.savez(npz, input=pictures.inputs[number], target=pictures.targets[number])
        note = {**about, "window": number, "first_frame": int(start), "reference": float(pictures.references[number])}
        samples.append({"__key__": f"{key}-{number:05d}", "npz": npz.getvalue(), "json": _json(note)})
    return samples


def _sound_sample(
    key: str, rate: int, input_sound: np.ndarray, target_sound: np.ndarray, about: dict[str, Any]
) -> dict[str, Any]:
    """A song's input and target as flac of 24 bits, at its own rate and channels; `gain` undoes the scaling below 1."""
    import soundfile

    gain = max(1.0, float(np.abs(input_sound).max()), float(np.abs(target_sound).max()))
    sample: dict[str, Any] = {"__key__": key, "json": _json({**about, "gain": gain})}
    for name, sound in (("input", input_sound), ("target", target_sound)):
        flac = io.BytesIO()
        soundfile.write(flac, sound / gain, rate, format="FLAC", subtype="PCM_24")
        sample[f"{name}.flac"] = flac.getvalue()
    return sample


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()


def _write_shard(out: Path, name: str, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Write one tar whole or not at all; its name, size and sha256."""
    with files.replacing(out / name) as temporary, temporary.open("wb") as stream:
        with _tar_writer()(stream, mtime=0, encoder=False) as writer:
            for sample in samples:
                writer.write(sample)
    data = (out / name).read_bytes()
    return {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _tar_writer() -> Any:
    """webdataset's own TarWriter. It imports torch where it finds it (1 to 2 s a worker) and can do without."""
    hide = "webdataset" not in sys.modules and "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from webdataset.writer import TarWriter
    finally:
        if hide:
            del sys.modules["torch"]
    return TarWriter


def _finish(out: Path, data: Data, work: list[Work], left_out: list[Result]) -> None:
    """Merge the records into manifest.json and DATASET.md."""
    records = [files.read_json(_record(out, item)) for item in work if _is_finished(out, item)]
    if not records:
        reasons = "\n  ".join(result.error or "" for result in left_out)
        raise ValueError(f"none of {len(work)} songs could be read:\n  {reasons}")
    splits = {}
    for split in stems.SPLITS:
        part = [record for record in records if record["split"] == split]
        if part:
            splits[split] = {
                "songs": [{"name": r["song"], "key": r["key"], "seconds": r["seconds"]} for r in part],
                "shards": [record["shard"] for record in part],
                "audio": [record["audio"] for record in part if record["audio"]],
                "samples": [sample for record in part for sample in record["samples"]],
            }
    manifest = {
        "schema": index.SCHEMA,
        "settings": data.science(),
        "dtype": records[0]["dtype"],
        "shape": records[0]["shape"],
        "left_out": [{"song": result.name, "reason": result.error} for result in left_out],
        "splits": splits,
    }
    files.write_text(out / "DATASET.md", _card(manifest, records))
    files.write_json(out / index.MANIFEST, manifest)


def _card(manifest: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """The dataset in words and counts."""
    lines = [f"# Pairs of pictures for the task `{manifest['settings']['task']}`", ""]
    lines += ["| split | songs | minutes | windows | of them silent target | padded | clipped samples of the mix |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for split, part in manifest["splits"].items():
        of = [record for record in records if record["split"] == split]
        counts = [sum(record[name] for record in of) for name in ("silent_windows", "padded_windows", "clipped")]
        minutes = sum(record["seconds"] for record in of) / 60
        lines.append(f"| {split} | {len(of)} | {minutes:.1f} | {len(part['samples'])} | " + " | ".join(map(str, counts)) + " |")
    lines += ["", "Settings: " + ", ".join(f"{name} {value}" for name, value in manifest["settings"].items()) + "."]
    if manifest["left_out"]:
        lines += ["", "Left out:", ""] + [f"- {item['song']}: {item['reason']}" for item in manifest["left_out"]]
    lines += ["", "The licence of the songs holds for what is made of them. MUSDB18 is for non-commercial, educational use."]
    return "\n".join(lines) + "\n"
