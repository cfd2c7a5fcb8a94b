"""The next batch is read by a thread: the same batches, errors where the batch is asked for, nothing waits for it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from p2p_dist.common import files
from p2p_dist.data.index import Index
from p2p_dist.data.prefetch import Prefetcher
from p2p_dist.data.stream import Stream
from p2p_dist.settings.config import Data

READER = "prefetch"


def stream_of(dataset: Path, data: Data, batch: int = 4) -> Stream:
    return Stream(Index(dataset, "train"), data, seed=1, global_batch_size=batch)


def test_the_next_batch_is_read_while_the_caller_works(dataset: Path, small: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, read = stream_of(dataset, small), threading.Event()
    stream.batch(0)
    real = stream.index.read_into

    def read_into(rows, numbers):  # type: ignore[no-untyped-def]
        assert threading.current_thread().name == READER
        yield from real(rows, numbers)
        if numbers.tolist() == stream.samples(stream.positions(2)).tolist():
            read.set()

    monkeypatch.setattr(stream.index, "read_into", read_into)
    stream.batch(1)
    assert read.wait(20), "the batch of step 2 was not asked for"


def test_batches_are_the_same_in_any_order_of_steps(dataset: Path, small: Data) -> None:
    """Also such as are read again, as where a loss was not finite, and with a batch that a caller keeps."""
    one, steps = stream_of(dataset, small), [0, 1, 2, 1, 7, 7, 8, 0]
    kept = [one.batch(step) for step in steps]
    for step, batch in zip(steps, kept, strict=True):
        alone = stream_of(dataset, small).batch(step)
        assert all(torch.equal(a, b) for a, b in zip(batch, alone, strict=True))


def test_the_memory_of_two_batches_is_used_again(dataset: Path, small: Data) -> None:
    stream = stream_of(dataset, small)
    places = {stream.batch(step)[0].data_ptr() for step in range(12)}
    assert len(stream._scaled._memory) <= 2 and places <= {memory.ctypes.data for memory in stream._scaled._memory}
    kept = [stream.batch(step) for step in range(20, 24)]
    assert len({batch[0].data_ptr() for batch in kept}) == 4 and len(stream._scaled._memory) == 2


def test_an_error_is_that_of_the_batch_that_was_asked_for(dataset: Path, small: Data, tmp_path: Path) -> None:
    """A damaged sample of the batch after: this one is given, the next call raises, with the message of the reading."""
    folder = Path(shutil.copytree(dataset, tmp_path / "copy"))
    stream = stream_of(folder, small)
    number = next(n for n in stream.samples(stream.positions(1)) if n not in stream.samples(stream.positions(0)))
    sample = stream.index.sample(int(number))
    content = bytearray((folder / sample.shard).read_bytes())
    content[sample.target + 9] ^= 1
    (folder / sample.shard).write_bytes(content)
    with pytest.raises(files.DamagedError) as direct:
        Index(folder, "train").read(np.array([number]))
    stream.batch(0)
    for _ in range(2):  # it can be asked for again, and fails again
        with pytest.raises(files.DamagedError) as error:
            stream.batch(1)
        assert str(error.value) == str(direct.value)
    stream.batch(0)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == READER]


def test_the_thread_ends_with_its_stream(dataset: Path, small: Data) -> None:
    before = readers()
    stream = stream_of(dataset, small)
    stream.batch(0)
    (thread,) = [thread for thread in readers() if thread not in before]
    del stream
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()


def test_a_signal_is_handled_while_a_batch_is_waited_for() -> None:
    """A request to stop, or the second Ctrl-C, must not wait for a file system that does not answer."""
    asked = threading.Event()
    before = signal.signal(signal.SIGUSR2, lambda *_: asked.set())
    try:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR2))
        timer.start()
        assert Prefetcher().result(0, lambda: asked.wait(20)) is True
    finally:
        timer.join()
        signal.signal(signal.SIGUSR2, before)


def hang() -> None:
    prefetcher: Prefetcher[bool] = Prefetcher()
    prefetcher.start(0, lambda: threading.Event().wait())


def test_a_process_ends_while_its_thread_reads() -> None:
    process = multiprocessing.get_context("fork").Process(target=hang)
    process.start()
    process.join(20)
    assert process.exitcode == 0
