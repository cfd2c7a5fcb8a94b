"""A long song needs no more memory than a short one: what numpy and Python hold while all files of a song are made."""

import tracemalloc
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from p2p_dist.audio import beats, decode, tempo
from p2p_dist.evaluate.report import overview, song_page, tracks
from p2p_dist.generate import inference, phase, request, song, stem_and_mix, windows
from p2p_dist.generate.model import find_model
from tests.generate.conftest import run, runs, sound, write

__all__ = ["run", "runs"]


class AtOnce:
    """An executor without threads, of which chance tells how many are at work at once."""

    def __init__(self, workers):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, **_):
        pass


SECOND = 22050 * np.dtype(np.float32).itemsize
"""Bytes of a second of one channel, at the rate of song and model."""


@pytest.fixture
def small_blocks(monkeypatch):
    """What is done block by block is done in small ones, and what is large for a song of any length is small."""
    monkeypatch.setattr(song.phase, "sound", partial(phase.sound, iterations=2, block=16))
    for module, name, value in (
        (phase, "ThreadPoolExecutor", AtOnce),
        (decode, "_BLOCK", 1 << 12),
        (stem_and_mix, "BLOCK", 1 << 12),
        (tracks, "_BLOCK", 1 << 12),
        (tracks, "SEGMENT", 0.5),
        (tracks, "_MEASURED", 1.0),
        (overview, "_MOST_COLUMNS", 20),
        (beats, "_LENGTH", 1 << 10),
        (tempo, "_WINDOW", 100),
        (tempo, "_STEP", 50),
        (tempo, "_LEAST", 100),
        (inference, "BATCH", 1),
        (windows.Loudness, "_DROPPED", 19),
    ):
        monkeypatch.setattr(module, name, value)


def test_memory_does_not_depend_on_the_length_of_the_song(runs, small_blocks, monkeypatch):
    model = find_model(None)
    generator = model.generator(torch.device("cpu"))
    peaks: list[int] = []
    real = stem_and_mix.write

    def note() -> None:
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()

    def write_stem_and_mix(*asked):
        note()
        return real(*asked)

    def write_page(*asked):
        note()
        song_page.write(*asked)

    def of_parts(seconds: float) -> np.ndarray:
        """Bytes held at most before the files are written, as they are, and as the page is."""
        (asked,) = request.find([write(Path(f"{seconds}.wav"), sound(seconds))], Path("made") / str(seconds))
        peaks.clear()
        tracemalloc.start()
        song.make(asked, model, generator, request.Options(), write_page)
        note()
        tracemalloc.stop()
        return np.array(peaks)

    monkeypatch.setattr(stem_and_mix, "write", write_stem_and_mix)
    of_parts(0.5)  # fills caches
    more = (of_parts(7.0) - of_parts(4.5)) / 2.5  # of two songs in which all blocks are in use at once, and that have a tempo
    assert len(more) == 3 and (more < SECOND / 2).all(), more / SECOND
