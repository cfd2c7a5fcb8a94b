"""Generate a stem for a song: run the generator on the windows, join the outputs, and convert them to audio."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from p2p_dist.audio.invert import stem_for
from p2p_dist.common.files import DamagedError
from p2p_dist.data.pairs import CEILING, FLOOR, Pictures, stitch
from p2p_dist.data.stream import from_network, to_network
from p2p_dist.generate.drummer import Guide
from p2p_dist.generate.phase import mel_to_audio_on
from p2p_dist.model.generator import Generator
from p2p_dist.settings.config import Data, Model
from p2p_dist.train.seeding import number_from

BATCH = 16
"""Batch size for generation, in windows; with batch norm it is 1."""


def build_generator(weights: dict[str, torch.Tensor], model: Model, picture_channels: int, device: torch.device) -> Generator:
    """Build a generator with these weights. There is no eval mode: norms and drop-out work as in training.

    Raises:
        DamagedError: the weights do not fit this network.
    """
    generator = Generator(model, picture_channels)
    try:
        generator.load_state_dict(weights)
    except RuntimeError as error:
        raise DamagedError(f"the weights do not fit this network ({str(error).splitlines()[-1].strip()})") from error
    return generator.to(device)


def loudest_windows(pictures: Pictures, seconds: float, data: Data) -> Pictures:
    """Return the consecutive windows, about `seconds` long, in which the target is loudest. 0 seconds: all windows.

    Its first frame, `starts[0]`, stays that of the whole song; `frames` is where it ends.
    """
    per_window = data.window_hop * data.hop_length / data.sample_rate
    first_window = data.frames * data.hop_length / data.sample_rate
    count = 1 + max(0, round((seconds - first_window) / per_window)) if seconds else len(pictures.starts)
    count = min(count, len(pictures.starts))
    loudness = pictures.targets.astype(np.float32).mean(axis=(1, 2, 3))
    sums = np.convolve(loudness, np.ones(count), "valid")
    chosen = slice(int(sums.argmax()), int(sums.argmax()) + count)
    end = min(int(pictures.starts[chosen][-1]) + data.frames, pictures.frames)
    return dataclasses.replace(
        pictures,
        inputs=pictures.inputs[chosen],
        targets=pictures.targets[chosen],
        starts=pictures.starts[chosen],
        references=pictures.references[chosen],
        frames=end,
    )


def generate(
    generator: Generator, pictures: Pictures, data: Data, name: str, seed: int = 0, guide: Guide | None = None
) -> np.ndarray:
    """Generate the spectrograms of all windows, dB, float32 (windows, channels, mels, frames).

    Noise is drawn once for the whole song, from `name` and `seed`, and cut at the same places as the song, so it is equal in
    overlapping windows, and the same for every checkpoint.

    Args:
        guide: of this song, for a generator with a sketch.

    Raises:
        ValueError: see `outputs`.
    """
    noise = None
    if generator.noise_channels:
        random = torch.Generator().manual_seed(number_from("generate", seed, name))
        width = int(pictures.starts[-1]) + data.frames
        noise = torch.randn((generator.noise_channels, data.mels, width), generator=random)
    torch.manual_seed(number_from("generate", seed, name))  # of the thesis's drop-out
    found = []
    size = batch_size(generator)
    for first in range(0, len(pictures.starts), size):
        starts = [int(start) for start in pictures.starts[first : first + size]]
        cut = None if noise is None else torch.stack([noise[..., start : start + data.frames] for start in starts])
        found.append(outputs(generator, pictures.inputs[first : first + size], starts, data, cut, guide))
    return np.concatenate(found)


def batch_size(generator: Generator) -> int:
    """Return the batch size for generation. With batch norm it is 1, as in the thesis's training."""
    return 1 if generator.batch_norm else BATCH


def outputs(
    generator: Generator,
    windows: np.ndarray,
    starts: Sequence[int],
    data: Data,
    noise: torch.Tensor | None,
    guide: Guide | None,
) -> np.ndarray:
    """Run the generator on some windows.

    Args:
        windows: the input's spectrograms, dB (windows, channels, mels, frames). starts: their first frames in the song.
        noise: (windows, channels, mels, frames), for a generator with noise. guide: of this song, for one with a sketch.

    Returns:
        dB, float32, shaped like `windows`.

    Raises:
        ValueError: the outputs are not finite, and would spoil the mix, the song in it as well. Finite weights can do this, if
            they are so large that sums overflow.
    """
    device = next(generator.parameters()).device
    low, high = FLOOR, CEILING[data.representation]
    with torch.inference_mode():
        input = to_network(torch.from_numpy(windows).to(device).float(), low, high)
        seen = None if guide is None else torch.stack([guide.cut(start) for start in starts]).to(device)
        output = generator(input, None if noise is None else noise.to(device), seen)
        found: np.ndarray = from_network(output, low, high).cpu().numpy()
    if not np.isfinite(found).all():
        raise ValueError(
            "the generator's output is not finite (NaN or infinite values), as with weights that are far too large: use "
            "another checkpoint or model"
        )
    return found


def to_stem(
    outputs: np.ndarray,
    pictures: Pictures,
    song: np.ndarray,
    rate: int,
    data: Data,
    iterations: int,
    device: torch.device | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Convert the windows' spectrograms to a stem that fits `song`, the part of the input in the windows.

    Args:
        outputs: dB (windows, channels, mels, frames). song: (samples, channels) at `rate`.
        iterations: of Griffin-Lim. device: a GPU to compute it on, for other phases and the same measures; None: the processor.
        is_over: see `audio.invert.griffin_lim`.

    Returns:
        float32, shaped like `song`. The song itself is never part of it.
    """
    first = int(pictures.starts[0])
    shifted = dataclasses.replace(pictures, starts=pictures.starts - first, frames=pictures.frames - first)
    samples = -(-len(song) * data.sample_rate // rate)
    mid, *side = (
        stem_for(song, rate, mel_to_audio_on(device, mel, samples, data, iterations, is_over), data.sample_rate)
        for mel in stitch(outputs, shifted, data)
    )
    if side and song.shape[1] == 2:
        mid += side[0] * np.array([1, -1], np.float32)  # left is mid + side, right is mid - side
    return mid
