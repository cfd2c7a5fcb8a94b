"""A bank of drum strokes, cut whole from the stems of training songs: for each song a kit, for each class its strokes.

A stroke keeps all of its spectrum: strokes that are filtered into bands no longer sound like drums. A bank is one
safetensors file with the strokes as FLAC or Opus. Files are untrusted: names, counts and lengths are checked, and decoding
stops at the length that the file declares. A song is played with one kit, so the others are not decoded.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.audio import memory
from p2p_dist.audio.drum_classes import CLASSES, Onset
from p2p_dist.audio.pattern_features import FRAME, mel_powers
from p2p_dist.audio.stems import resample
from p2p_dist.common import files

RATE = 44100
"""Samples a second of the strokes of a bank."""

LONGEST = 1.0  # seconds
BEFORE = 0.003
"""Seconds of a stroke before its attack."""

WINDOW = 6.0
"""Seconds over which a level is measured."""

MOST_BYTES = 256 << 20
"""Of the file of a bank."""

_FEWEST = 4  # strokes in a window where drums play
_FADE = 0.02  # seconds, at the end
_SHORTEST = 0.06  # seconds to the next stroke, without which a stroke is not cut
_MIXED = 0.03  # seconds within which strokes of two classes sound as one
_QUIETEST = 0.1  # strength: quieter strokes are full of the sound before them
_FORMAT = "p2p_dist strokes 1"
_BIT_RATE = 128_000  # of Opus, bits a second: the sound is mono
_MOST_KITS, _MOST_STROKES, _MOST_SAMPLES = 1000, 256, 1 << 27  # the last in the whole bank: 512 MiB


@dataclass(frozen=True)
class Stroke:
    """sound: float32 (samples,) at RATE, from 3 ms before the attack. strength: as in `Onset`."""

    sound: np.ndarray
    strength: float


@dataclass(frozen=True)
class Kit:
    """The strokes of one song, with their levels relative to each other.

    strokes: by class; a class may have none. rates: strokes a second of each class, in the order of CLASSES, where the drums
    play, and at last of all classes, of which strokes at one time count once. offset: level of its drums (`playing_level`)
    relative to its input (`input_level`), dB.
    """

    strokes: Mapping[str, list[Stroke]]
    rates: tuple[float, ...]
    offset: float


class _Coded(Mapping[str, list[Stroke]]):
    """Strokes of a kit by class, decoded when they are first asked for."""

    def __init__(self, decoders: dict[str, Callable[[], list[Stroke]]]) -> None:
        self.decoders = decoders
        self.decoded: dict[str, list[Stroke]] = {}

    def __getitem__(self, kind: str) -> list[Stroke]:
        if kind not in self.decoded:
            self.decoded[kind] = self.decoders[kind]()
        return self.decoded[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self.decoders)

    def __len__(self) -> int:
        return len(self.decoders)


@dataclass(frozen=True)
class Bank:
    """Kits by the name of their song."""

    kits: dict[str, Kit]

    @property
    def rates(self) -> np.ndarray:
        """Median over the kits of their rates, (len(CLASSES) + 1,)."""
        return np.median([kit.rates for kit in self.kits.values()], axis=0)

    @property
    def offset(self) -> float:
        """Median over the kits of the level of drums relative to the input, dB."""
        return float(np.median([kit.offset for kit in self.kits.values()]))


def frame_powers(song: np.ndarray | Iterable[np.ndarray], rate: int) -> np.ndarray:
    """Sum over the mel bands of the power of each frame of `pattern_features.FRAME` seconds, (frames,).

    Bands of equal area weigh low and middle frequencies more: the level of drums is mostly that of kick and snare.

    Args:
        song: mono float32 (samples,), or blocks of it.
    """
    frames = [power.sum(axis=0) for power in mel_powers(song, rate)]
    return np.concatenate(frames).astype(np.float64) if frames else np.zeros(0)


def playing_level(frames: np.ndarray, times: np.ndarray) -> float:
    """Level of drums where they play, dB, see `level_of_windows`.

    Args:
        frames: of `frame_powers`. times: of the strokes, seconds.
    """
    size = round(WINDOW / FRAME)
    powers = np.array([frames[begin : begin + size].mean() for begin in range(0, len(frames), size)])
    return level_of_windows(powers, strokes_of_windows(times))


def strokes_of_windows(times: np.ndarray) -> np.ndarray:
    """Number of strokes in each stretch of six seconds."""
    return np.bincount((np.maximum(times, 0) // WINDOW).astype(np.int64))


def level_of_windows(powers: np.ndarray, counts: np.ndarray) -> float:
    """Median in dB of the powers of windows with at least four strokes, of all if none has so many; -120 for silence."""
    number = min(len(powers), len(counts))
    playing = powers[:number][counts[:number] >= _FEWEST]
    middle = np.median(playing if len(playing) else powers) if len(powers) else 0.0
    return 10 * float(np.log10(max(middle, 1e-12)))


def playing_rate(times: np.ndarray) -> float:
    """Mean number of strokes a second in stretches of six seconds with at least four of them; 0 where there are none."""
    counts = strokes_of_windows(times)
    return float(counts[counts >= _FEWEST].mean()) / WINDOW if (counts >= _FEWEST).any() else 0.0


def input_level(song: np.ndarray | Iterable[np.ndarray], rate: int) -> float:
    """Level of a song without drums where it is loud, dB: of the frame that a tenth of all frames exceed; -120 for silence.

    Of the levels that were tried, this one tells best how loud the drums are.

    Args:
        song: mono float32 (samples,), or blocks of it.
    """
    frames = frame_powers(song, rate)
    if not frames.any():
        return -120.0
    sounding = frames[frames > 1e-8 * frames.max()]  # of a song that is mostly silent, almost the level of its sound counts
    loud = max(np.percentile(frames, 90), np.percentile(sounding, 90) * 10**-0.1)
    return 10 * float(np.log10(max(loud, 1e-12)))


def cut_kit(
    drums: np.ndarray, heard: np.ndarray, rate: int, onsets: Sequence[Onset], most: int = 16, *, loud: bool = True
) -> Kit:
    """Cut a kit from a song.

    A stroke lasts until the next one, at most a second, and fades.

    Args:
        drums, heard: the stem and the song without it, float32 (samples,), mono. onsets: of the stem. most: strokes of a class.
        loud: take those first that are at least as loud as the median of their class, and of these those that ring longest;
            False: those without a stroke of another class, and of these those that ring longest. In a busy song these are the
            quietest.
    """
    heard_well = [onset for onset in onsets if onset.strength > _QUIETEST]
    all_times = sorted({onset.time for onset in heard_well})
    level = playing_level(frame_powers(drums, rate), np.array(all_times))
    sound = (resample(drums, rate, RATE) * 10 ** (-level / 20)).astype(np.float32)
    times = np.array([onset.time for onset in onsets])
    strokes: dict[str, list[Stroke]] = {}
    for kind in CLASSES:
        middle = float(np.median([onset.strength for onset in heard_well if onset.kind == kind] or [0]))
        found = []
        for onset in heard_well:
            if onset.kind == kind:
                mixed = any(other.kind != kind for other in _near(onsets, times, onset.time))
                later = times[times > onset.time + _MIXED]
                rings = min(float(later[0] - onset.time) if len(later) else LONGEST, LONGEST)
                # A kick or snare with a hat is still one; a hat with a kick is heard as a kick.
                if rings >= _SHORTEST and not (mixed and kind == "hat"):
                    found.append((onset.strength < middle if loud else mixed, -rings, onset))
        found.sort(key=lambda one: one[:2])
        strokes[kind] = [Stroke(_cut(sound, onset.time, -rings), onset.strength) for _, rings, onset in found[:most]]
    together = playing_rate(np.array(all_times))
    counts = [sum(onset.kind == kind for onset in heard_well) for kind in CLASSES]
    rates = (*(together * count / max(len(all_times), 1) for count in counts), together)
    return Kit(strokes, rates, level - input_level(heard, rate))


def _near(onsets: Sequence[Onset], times: np.ndarray, time: float) -> Sequence[Onset]:
    begin, end = np.searchsorted(times, (time - _MIXED, time + _MIXED))
    return onsets[begin:end]


def _cut(sound: np.ndarray, time: float, seconds: float) -> np.ndarray:
    """Cut a stroke, with a fade at both ends."""
    before = round(BEFORE * RATE)
    attack = round(time * RATE)
    part = np.pad(sound, (before, 0))[attack : attack + before + round((seconds - BEFORE) * RATE)].copy()
    fade = min(round(_FADE * RATE), len(part))
    part[len(part) - fade :] *= np.cos(np.linspace(0, np.pi / 2, fade, dtype=np.float32)) ** 2
    part[:before] *= np.linspace(0, 1, before, dtype=np.float32)[: len(part)]
    return part


def save(path: Path, bank: Bank, codec: str = "flac") -> None:
    """Write a bank, the same bytes each time. codec: `flac` (16 bits) or `opus`, half of its size."""
    from safetensors.numpy import save as to_bytes

    from p2p_dist.audio.sound_file import flac

    tensors: dict[str, np.ndarray] = {}
    kits = []
    for number, (name, kit) in enumerate(bank.kits.items()):
        peaks: dict[str, float] = {}
        kits.append({"name": name, "rates": list(kit.rates), "offset": kit.offset, "peak": peaks})
        for kind, strokes in kit.strokes.items():
            if strokes:
                whole = np.concatenate([stroke.sound for stroke in strokes])
                peak = float(np.abs(whole).max()) or 1.0
                coded = {"flac": flac, "opus": _opus}[codec](whole * np.float32(0.99 / peak), RATE)
                peaks[kind] = peak
                tensors[f"{number}.{kind}.sound"] = np.frombuffer(coded, np.uint8)
                tensors[f"{number}.{kind}.samples"] = np.array([len(stroke.sound) for stroke in strokes], np.int64)
                tensors[f"{number}.{kind}.strength"] = np.array([stroke.strength for stroke in strokes], np.float32)
    # One entry: several would be written in any order.
    files.write_bytes(path, to_bytes(tensors, {"bank": json.dumps({"format": _FORMAT, "kits": kits})}))


def _opus(sound: np.ndarray, rate: int) -> bytes:
    """Encode a stroke as Opus. soundfile is not used, because it gives each stream a random number."""
    import av

    sound, rate = resample(sound, rate, 48000), 48000  # the only rate of Opus that is near
    file = io.BytesIO()
    with av.open(file, "w", format="ogg", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("libopus", rate=rate, layout="mono")
        stream.bit_rate = _BIT_RATE
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for begin in range(0, len(sound), rate // 50):
            frame = av.AudioFrame.from_ndarray(sound[None, begin : begin + rate // 50], format="flt", layout="mono")
            frame.sample_rate, frame.pts = rate, begin
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def load(path: Path) -> Bank:
    """Read a bank. Its sound is decoded where it is used; that it can't be is said there in the same way.

    Raises:
        ValueError: it is not a bank, or damaged. The message names the file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("bank", "{}"))
            if header.get("format") != _FORMAT:
                raise ValueError(f"not a bank of strokes ({_FORMAT})")
            listed = header["kits"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if sum(float(value.sum()) for name, value in tensors.items() if name.endswith(".samples")) > _MOST_SAMPLES:
            raise ValueError("the strokes are too long to be a bank")
        if not isinstance(listed, list) or not 0 < len(listed) <= _MOST_KITS:
            raise ValueError("the list of kits is not usable")
        kits = {str(one["name"]): _kit(path, number, one, tensors) for number, one in enumerate(listed)}
    except (
        *(SafetensorError, KeyError, TypeError, AttributeError, json.JSONDecodeError),
        *(RecursionError, OverflowError),  # lists too deep, numbers too large
    ) as error:
        raise ValueError(f"{path}: not a bank of strokes, or damaged ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Bank(kits)


def _kit(path: Path, number: int, listed: dict, tensors: dict[str, np.ndarray]) -> Kit:  # type: ignore[type-arg]
    rates, offset = [float(rate) for rate in listed["rates"]], float(listed["offset"])
    if len(rates) != len(CLASSES) + 1 or not all(0 <= rate < 100 for rate in rates) or not -200 < offset < 200:
        raise ValueError("a kit's rates or its level are not possible")
    decoders: dict[str, Callable[[], list[Stroke]]] = {}
    for kind in CLASSES:
        decoders[kind] = list
        if f"{number}.{kind}.sound" in tensors:
            peak = float(listed["peak"][kind])
            sound, samples, strength = (tensors[f"{number}.{kind}.{part}"] for part in ("sound", "samples", "strength"))
            _check(samples, strength, peak)
            decoders[kind] = functools.partial(_decode, path, sound, samples, strength, peak)
    return Kit(_Coded(decoders), tuple(rates), offset)


def _check(samples: np.ndarray, strength: np.ndarray, peak: float) -> None:
    longest = round((LONGEST + 1) * RATE)
    if samples.shape != strength.shape or samples.ndim != 1 or not 0 < len(samples) <= _MOST_STROKES:
        raise ValueError("the strokes of a kit do not match their list")
    whole = samples.dtype.kind in "iu"
    if not whole or not (samples > 0).all() or not (samples <= longest).all() or not 0 < peak < 1e4:
        raise ValueError("a stroke's length or its level is not possible")
    if not ((strength >= 0) & (strength <= 1)).all():
        raise ValueError("a stroke's strength is not possible")


def _decode(path: Path, sound: np.ndarray, samples: np.ndarray, strength: np.ndarray, peak: float) -> list[Stroke]:
    import soundfile

    total = int(samples.sum())
    try:
        with soundfile.SoundFile(memory.descriptor(sound.astype(np.uint8, copy=False).tobytes())) as file:
            if file.channels != 1 or file.samplerate not in (RATE, 48000):
                raise ValueError(f"{path}: strokes are not mono sound at 44.1 or 48 kHz")
            whole = resample(file.read(-(-total * file.samplerate // RATE), dtype="float32"), file.samplerate, RATE)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: strokes can't be decoded ({error.error_string})") from error
    if len(whole) < total - 1 or not np.isfinite(whole).all():
        raise ValueError(f"{path}: the sound of strokes is truncated or not finite")
    whole = np.pad(whole, (0, max(total - len(whole), 0))) * np.float32(peak / 0.99)
    ends = np.cumsum(samples)
    return [Stroke(whole[end - n : end], float(s)) for end, n, s in zip(ends, samples, strength, strict=True)]
