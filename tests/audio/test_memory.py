"""Sound in memory is read and written by descriptor, so an exception in a signal's handler is not lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import memory
from p2p_dist.audio.sound_file import flac


@pytest.fixture(params=["in memory", "in a temporary file"], autouse=True)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in a temporary file":
        monkeypatch.delattr(os, "memfd_create", raising=False)


def test_what_is_written_is_read_again() -> None:
    sound = np.round(np.random.default_rng(0).uniform(-1, 1, (5000, 2)) * 2**14) / 2**15
    content = flac(sound, 22050)
    read, rate = soundfile.read(memory.descriptor(content), always_2d=True)
    assert rate == 22050
    np.testing.assert_array_equal(read, sound)


def test_a_file_begins_with_its_content_and_can_be_written_by_its_descriptor() -> None:
    with memory.file(b"abc") as opened:
        assert opened.read() == b"abc"
        os.pwrite(opened.fileno(), b"d", 3)
        opened.seek(0)
        assert opened.read() == b"abcd"


def test_no_descriptor_is_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        soundfile.read(memory.descriptor(flac(np.zeros(100), 8000)))
        with pytest.raises(soundfile.LibsndfileError):
            soundfile.read(memory.descriptor(b"no sound"))
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 20


def test_ctrl_c_while_sound_is_encoded_is_not_lost() -> None:
    """With an io.BytesIO it was printed and ignored, and the sound was truncated without an error."""
    sound = np.random.default_rng(0).uniform(-1, 1, 2_000_000)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    begin = time.monotonic()
    flac(sound, 44100)
    once = time.monotonic() - begin
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for share in np.linspace(0.1, 0.8, 8):
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, share * once)
                for _ in range(20):
                    flac(sound, 44100)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
