"""Write a generator as a program of torch.export, which runs without this package: `torch.export.load("model.pt2").module()`.

Its arguments are input (windows, channels, mels, frames) and, if the network uses it, noise (windows, noise_channels, mels,
frames), for any number of windows; with a sketch also, by name, guide (windows, guide_channels, mels, frames). It returns
the output, shaped like the input. All are scaled as in model/generator.py. It needs torch 2.9 or later.
"""

from __future__ import annotations

import io

import torch
from torch import nn

from p2p_dist.model.generator import BatchNorm, Generator
from p2p_dist.settings.config import Data


class EachWindow(nn.Module):
    """The thesis's batch norm for a batch of any size: each window is normalised separately.

    Group norm is not used: it subtracts the mean last, which is less exact for 1 x 1 values, whose result must be the bias.
    """

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.epsilon = norm.weight, norm.bias, norm.eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + self.epsilon) * self.weight[:, None, None] + self.bias[:, None, None]


def export(generator: Generator, data: Data) -> bytes:
    """Return the content of the program's file. This changes the generator: do not use it afterwards.

    Args:
        data: the settings with the size of its windows.
    """
    _replace_batch_norms(generator)
    size = (data.mels, data.frames)
    inputs = [torch.zeros(2, data.picture_channels, *size)]  # 2, because torch treats a size of 1 as constant
    if generator.noise_channels:
        inputs.append(torch.zeros(2, generator.noise_channels, *size))
    named = {"guide": torch.zeros(2, generator.guide_channels, *size)} if generator.guide_channels else {}
    windows = torch.export.Dim("windows", min=1)
    with torch.no_grad():
        program = torch.export.export(
            generator.eval().requires_grad_(False),
            tuple(inputs),
            named,
            dynamic_shapes={name: {0: windows} for name in [*("input", "noise")[: len(inputs)], *named]},
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # contains paths of this machine
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def _replace_batch_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, BatchNorm):
            setattr(module, name, EachWindow(child))
        else:
            _replace_batch_norms(child)
