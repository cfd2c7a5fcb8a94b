"""Songs as files: folders of stems, and stem files of AAC streams."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import soundfile

from p2p_dist.audio import layouts
from p2p_dist.settings.config import STEMS


def source(path: Path) -> layouts.Source:
    return layouts.source_at(path, "train") or layouts.Source(path.name, "train", path)


def write_stems(folder: Path, rate: int = 44100, channels: int = 2, samples: int = 4410, suffix: str = ".wav") -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    for name in STEMS:
        soundfile.write(folder / f"{name}{suffix}", random.uniform(-0.5, 0.5, (samples, channels)), rate, subtype="PCM_16")
    return folder


def write_stem_file(
    path: Path, sounds: list[np.ndarray], rates: list[int] | None = None, tags: list[dict[str, str]] | None = None
) -> Path:
    """A stem file of AAC streams, each (samples, 2); the encoder puts 1024 samples before them, an edit list hides those."""
    with av.open(str(path), "w", format="mp4") as file:
        streams = [file.add_stream("aac", rate=rate, layout="stereo") for rate in rates or [44100] * len(sounds)]
        for stream, tag in zip(streams, tags or [], strict=bool(tags)):  # before the header is written
            stream.metadata.update(tag)
        for stream, sound in zip(streams, sounds, strict=True):
            stream.bit_rate = 256_000
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T, np.float32), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = stream.rate, 0
            for part in (frame, None):
                file.mux(stream.encode(part))
    return path


def clicks(samples: int = 30_000) -> list[np.ndarray]:
    """Five streams of noise with one click each, at sample 5000, 6000, ..."""
    sounds = [0.02 * np.random.default_rng(n).standard_normal((samples, 2)) for n in range(5)]
    for number, sound in enumerate(sounds):
        sound[5000 + 1000 * number] = 0.9
    return sounds


def cut_by_edit_list(whole: Path, path: Path, samples: int, streams: Sequence[int] = range(5)) -> Path:
    """The same packets, of which an edit list leaves out the first samples; of fewer than none, they begin later."""
    with av.open(str(whole)) as old, av.open(str(path), "w", format="mp4") as new:
        if hasattr(new, "add_stream_from_template"):
            copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams.audio}
        else:  # PyAV 13
            copies = {stream.index: new.add_stream(template=stream) for stream in old.streams.audio}
        for packet in old.demux():
            if packet.dts is not None:
                if packet.stream.index in streams:
                    packet.pts, packet.dts = packet.pts - samples, packet.dts - samples
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    return path
