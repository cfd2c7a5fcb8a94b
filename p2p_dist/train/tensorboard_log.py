"""Write the values of metrics.jsonl, and spectrograms, for TensorBoard. Only this module imports it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from p2p_dist.common import console, files
from p2p_dist.data.stream import Stream, to_network
from p2p_dist.train.guided import Guided
from p2p_dist.train.networks import Networks
from p2p_dist.train.seeding import noise_at, number_from

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PICTURES = 4


def _writer(folder: Path, purge_step: int | None) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "train.tensorboard needs the package tensorboard: pip install 'p2p_dist[tensorboard]', or omit --train.tensorboard"
        ) from error
    return SummaryWriter(str(folder), purge_step=purge_step)


def write_curves(folder: Path, runs: dict[str, dict[str, list[tuple[int, float]]]]) -> None:
    """Replace the curves for TensorBoard. runs: name of the run -> name of the curve -> (step, value).

    Raises:
        ValueError: TensorBoard is not installed.
    """
    files.remove_tree(folder)
    for name, curves in runs.items():
        writer = _writer(folder / name, None)
        for tag, points in curves.items():
            for step, value in points:
                writer.add_scalar(tag, value, step)
        writer.close()


class Board:
    """Writes event files; one is opened at every start of the run.

    Args:
        step: the step that this start continues from. TensorBoard drops values of later steps that an earlier start wrote,
            so no curve has two values for one step.
        noise_channels, seed: of the run's model and training. guided: its guides, if the model has any.

    Raises:
        ValueError: TensorBoard is not installed; the message says how to install it.
    """

    def __init__(
        self, folder: Path, step: int, stream: Stream, noise_channels: int, seed: int, guided: Guided | None = None
    ) -> None:
        self.writer = _writer(folder, step + 1)
        self.refused = False
        device = stream.device
        numbers = np.arange(min(PICTURES, len(stream.index)))
        pairs = torch.from_numpy(stream.index.read(numbers)).to(device).float()
        self.input, self.target = to_network(pairs, stream.low, stream.high).unbind(1)
        self.seed = number_from("pictures", seed)
        shape = (noise_channels, *self.input.shape[2:])
        self.noise = noise_at(numbers, self.seed, shape).to(device) if noise_channels else None
        self.guide = guided.at(numbers, numbers).to(device) if guided is not None else None

    def numbers(self, row: dict[str, Any]) -> None:
        """Write the numbers of one line of metrics.jsonl."""
        with self._unless_refused():
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self.writer.add_scalar(name, value, row["step"])
            self.writer.flush()

    def pictures(self, step: int, networks: Networks) -> None:
        """Write an image with a row of input, target and output for each of a few fixed windows, with fixed noise. Low
        bands are at the bottom. Only the first channel is shown."""
        torch.manual_seed(self.seed)  # for drop-out; the next training step sets its own seed
        with torch.no_grad(), networks.autocast():
            output = torch.func.functional_call(
                networks.generator, networks.to_evaluate(), (self.input, self.noise, self.guide)
            )
        rows = torch.cat((self.input, self.target, output.to(self.input.dtype)), dim=-1)[:, :1]
        whole = torch.cat(rows.flip(-2).unbind(0), dim=-2)
        with self._unless_refused():
            self.writer.add_image("input, target, output", ((whole + 1) / 2).clamp(0, 1).cpu(), step)
            self.writer.flush()

    def close(self) -> None:
        """Write buffered events."""
        with self._unless_refused():
            self.writer.close()

    @contextlib.contextmanager
    def _unless_refused(self) -> Iterator[None]:
        """Disable TensorBoard output for this start if it cannot be written (disk full)."""
        try:
            yield
        except OSError as error:
            if not self.refused:
                console.complain(f"warning: {console.describe(error)}; TensorBoard gets no more data until the next start")
            self.refused = True
