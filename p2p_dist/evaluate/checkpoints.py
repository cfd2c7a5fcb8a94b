"""Evaluate every checkpoint of a run on held-out songs: measures, audio, spectrograms.

evaluations/baselines.json         measures that need no network, see baselines/results.py
evaluations/step-00012000/         metrics.json, audio/SONG-{stem,mix}.flac, spectrograms/SONG.png
evaluations/ranking.json           see ranking.py
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from p2p_dist.audio import flac
from p2p_dist.audio.spectrogram import power_to_db
from p2p_dist.common import console, files, linux, records, schemas
from p2p_dist.data import manifest, pairs
from p2p_dist.evaluate import held_out_songs, ranking
from p2p_dist.evaluate.baselines import results
from p2p_dist.evaluate.baselines.results import Reference
from p2p_dist.evaluate.claims import claim_checkpoints
from p2p_dist.evaluate.held_out_songs import Excerpt, HeldOut, peak
from p2p_dist.evaluate.measures import averages
from p2p_dist.evaluate.measures.kinds import Row
from p2p_dist.evaluate.measures.measure import Measured, measure
from p2p_dist.evaluate.measures.table import MEASURES
from p2p_dist.evaluate.report import png
from p2p_dist.generate import drummer, inference
from p2p_dist.model.generator import Generator
from p2p_dist.run.rundir import RunDir, check_links, check_still_ours, is_evaluation
from p2p_dist.settings.config import Config, Data, Evaluate
from p2p_dist.train import checkpoint


def evaluate(
    run: RunDir,
    config: Config,
    only: Collection[int] = (),
    songs: list[HeldOut] | None = None,
    out: Path | None = None,
) -> int:
    """Evaluate the checkpoints that have no evaluation yet, oldest first. Several processes share them.

    Args:
        only: steps of the checkpoints; empty for all. songs: the songs to measure on; None for the held-out songs.
        out: the folder for the evaluations; None for that of the run.

    Returns:
        the number of checkpoints that this process evaluated.

    Raises:
        ValueError: there is no held-out song or no such checkpoint; or a requested checkpoint is damaged (then all others
            have been evaluated).
    """
    check_links(run)
    out = run.evaluations if out is None else out
    songs = held_out(run.shards, config.evaluate) if songs is None else songs
    drums = drummer.load(run.pattern, config.data, config.model) if config.model.sketch else None
    heard = read_excerpts(songs, config, drums)
    # Processes that share the work (tasks of a job, jobs of an array) start at different songs.
    place = int(os.environ.get("RANK", "0")) + int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    # Otherwise status.json belongs to the training, if both run at the same time.
    alone = "P2P_CLAIMS" not in os.environ and out == run.evaluations
    told = run.status if alone else None
    known = results.measure_baselines(out, run.shards, heard, config.data, config.evaluate, place, told)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    mine = 0
    damaged = []
    with console.Progress("evaluate", 1, status=told) as progress:
        for item, left in claim_checkpoints(run, config.train, only, out):
            try:
                weights = checkpoint.load_generator(item)
                generator = inference.build_generator(weights, config.model, config.data.picture_channels, device)
            except FileNotFoundError:
                continue  # the training has removed it meanwhile
            except files.DamagedError as error:
                console.complain(
                    f"warning: the checkpoint of step {item.step}: {error}; it was renamed to damaged-... and is not evaluated"
                )
                item.set_aside()
                damaged.append(str(error))
                continue
            result = out / item.path.name
            _clear(result)
            try:
                with files.new_folder(result) as folder:
                    mean = evaluate_generator(folder, item.step, generator, heard, known, config.data, config.evaluate)
                    check_still_ours()
            except OSError:
                if is_evaluation(result):
                    continue  # another launch was first; its evaluation stays
                raise
            mine += 1
            progress.total = max(mine, left)
            figures = [f"{m.label} {v:.3g}" for n, m in MEASURES.items() if m.headline and (v := mean[n]) is not None]
            progress.update(mine, ", ".join([f"step {item.step}", *figures]))
    ranking.conclude(run, config, out)
    if damaged and only:
        raise ValueError(f"{damaged[0]}; it was renamed to damaged-...; all other checkpoints were evaluated")
    return mine


def read_excerpts(songs: list[HeldOut], config: Config, drums: drummer.Drummer | None = None) -> list[Excerpt]:
    """Read what is measured of each song. The songs of a split share `evaluate.windows`."""
    each = Counter(song.split for song in songs)
    return [
        held_out_songs.read_excerpt(
            song,
            config.data,
            config.evaluate.seconds,
            drums,
            measured=held_out_songs.measured_seconds(config.evaluate, each[song.split]),
        )
        for song in songs
    ]


def _clear(result: Path) -> None:
    """Remove an incomplete evaluation; a complete one stays."""
    if not result.exists() or is_evaluation(result):
        return
    aside = files.temporary_beside(result)
    with contextlib.suppress(FileNotFoundError):  # another process has removed it
        result.rename(aside)
        if is_evaluation(aside):  # another process has removed it and evaluated again meanwhile
            with contextlib.suppress(OSError):  # a third process has done it
                aside.rename(result)
        shutil.rmtree(aside, ignore_errors=True)


def held_out(dataset: Path, evaluate: Evaluate) -> list[HeldOut]:
    """Return the songs to measure: the reported songs, and the validation songs, on which the best checkpoint is chosen.

    Raises:
        ValueError: there is no song to report, or all were trained on.
    """
    reported, most, allowed = evaluate.split, evaluate.songs, evaluate.allow_overlap
    if not allowed:
        manifest.check_unseen(manifest.read(dataset), reported)
    found = held_out_songs.from_shards(dataset, reported, most, allowed)
    if not found:
        raise ValueError(
            f"{dataset} has no {reported} songs: evaluation needs songs that are not trained on; put them into {reported}/"
        )
    return (
        found
        if reported == ranking.CHOOSING
        else [*found, *held_out_songs.from_shards(dataset, ranking.CHOOSING, most, allowed)]
    )


def evaluate_generator(
    folder: Path,
    step: int,
    generator: Generator,
    heard: list[Excerpt],
    known: dict[str, Reference],
    data: Data,
    evaluate: Evaluate,
) -> Row:
    """Measure one generator. The network runs here, song by song; threads compute audio and measures.

    Raises:
        ValueError: its output is not finite. The message names the step.
    """
    reported, seeds, over = evaluate.split, range(evaluate.seeds), threading.Event()
    pool = ThreadPoolExecutor(linux.usable_cores())
    try:
        waiting: dict[str, list[Future[tuple[Measured, np.ndarray | None, float | None]]]] = {}
        for excerpt in heard:
            for seed in seeds:
                guide = None if excerpt.performance is None else excerpt.performance.guide(seed)
                try:
                    outputs = inference.generate(generator, excerpt.pictures, data, excerpt.song.key, seed, guide)
                except ValueError as error:
                    raise ValueError(f"the checkpoint of step {step} can't be evaluated: {error}") from error
                sounds = folder / "audio" if excerpt.song.split == reported and seed == 0 else None
                gain, is_over = known[excerpt.song.key].gain, over.is_set
                job = pool.submit(_sound_and_measures, outputs, excerpt, sounds, gain, data, evaluate.iterations, is_over)
                waiting.setdefault(excerpt.song.key, []).append(job)
        measured, gains = {}, {}
        for excerpt in heard:
            done = [job.result() for job in waiting.pop(excerpt.song.key)]
            measured[excerpt.song.key] = [one for one, _, _ in done]
            gains[excerpt.song.key] = done[0][2]
            if (played := done[0][1]) is not None:
                _draw(folder / "spectrograms" / f"{excerpt.song.key}.png", played, excerpt, data)
    finally:
        over.set()
        pool.shutdown(wait=True, cancel_futures=True)  # else a thread could write into the folder after its removal
    content: dict[str, Any] = {"step": step, "songs": [], "splits": {}}
    for split in dict.fromkeys(excerpt.song.split for excerpt in heard):
        here = [excerpt for excerpt in heard if excerpt.song.split == split]
        rows = []
        for excerpt in here:
            song, first = excerpt.song, measured[excerpt.song.key][:1]  # its generation that is heard
            row, absent = averages.of_generations(first)
            where = {**excerpt.place(), **results.gain_for_json(gains[song.key])}
            of_song = {"output": row, "interval": averages.over_windows(first), "absent": absent}
            rows.append({"name": song.name, "key": song.key, **where, **of_song})
        whole = averages.average([measured[excerpt.song.key] for excerpt in here], [excerpt.real for excerpt in here])
        content["splits"][split] = {**results.plain(whole), "songs": rows}
    content["songs"] = content["splits"][reported].pop("songs")
    records.write(folder / "metrics.json", schemas.METRICS, content)
    mean = content["splits"][reported]["mean"]
    assert isinstance(mean, dict)
    return mean


def _sound_and_measures(
    outputs: np.ndarray,
    excerpt: Excerpt,
    sounds: Path | None,
    gain: float | None,
    data: Data,
    iterations: int,
    is_over: Callable[[], bool],
) -> tuple[Measured, np.ndarray | None, float | None]:
    """Measure one generation, and write its audio files if `sounds` names their folder.

    Args:
        gain: of the song's other files, dB. It is used for these too, unless they would clip.
        is_over: whether the result is no longer needed.

    Returns:
        the measures; of a stem that was written, what can be heard of it, (samples, channels), and the files' gain in dB.
    """
    stem = inference.to_stem(outputs, excerpt.pictures, excerpt.input, excerpt.rate, data, iterations, is_over=is_over)
    if is_over():
        raise CancelledError
    if sounds is None:
        return measure(stem, excerpt.truth), None, None
    assert gain is not None
    gain = min(gain, flac.quieter(peak(stem, excerpt.input + stem)))
    results.write_sound(sounds / f"{excerpt.song.key}-stem.flac", stem, excerpt, gain)
    results.write_sound(sounds / f"{excerpt.song.key}-mix.flac", excerpt.input + stem, excerpt, gain)
    # A copy, so that the whole stem is freed: it may be minutes of each song.
    return measure(stem, excerpt.truth), stem[excerpt.audible].copy(), gain


def _draw(path: Path, played: np.ndarray, excerpt: Excerpt, data: Data) -> None:
    """Draw what can be heard of a song. played: of the generated stem, (samples, channels)."""
    part = excerpt.audible
    shown = {"input": excerpt.input[part], "true stem": excerpt.target[part], "generated stem": played}
    reference = pairs.level_reference(pairs.mel_of(excerpt.input, excerpt.rate, data))
    panels = {n: power_to_db(pairs.mel_of(s, excerpt.rate, data), reference) for n, s in shown.items()}
    png.draw(path, panels, data)
