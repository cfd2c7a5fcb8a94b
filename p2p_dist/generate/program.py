"""Write a generator as a program of torch.export, which runs without its class: `torch.export.load("model.pt2").module()`.

It takes input (windows, pictures, mels, frames) and, where the network has any, noise (windows, noise_channels, mels, frames),
for any number of windows, and gives the output, shaped like the input; all from -1 to 1, as in model/generator.py. The
interface is that of torch 2.9 and later.
"""

from __future__ import annotations

import io

import torch
from torch import nn

from p2p_dist.model.generator import BatchNorm, Generator
from p2p_dist.settings.config import Data


class EachWindow(nn.Module):
    """The thesis's batch norm, which knows one window at a time, for any number of windows: each by itself.

    Not a group norm, which subtracts last: where 1 x 1 values must become the bias, it leaves 30 times their rounding.
    """

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.epsilon = norm.weight, norm.bias, norm.eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + self.epsilon) * self.weight[:, None, None] + self.bias[:, None, None]


def export(generator: Generator, data: Data) -> bytes:
    """The file of the program. The generator is changed: use it for nothing else.

    Args:
        data: the size of its pictures.
    """
    _replace_batch_norms(generator)
    size = (data.mels, data.frames)
    inputs = [torch.zeros(2, data.picture_channels, *size)]  # torch takes a size of 1 for one that never changes
    if generator.noise_channels:
        inputs.append(torch.zeros(2, generator.noise_channels, *size))
    windows = torch.export.Dim("windows", min=1)
    with torch.no_grad():
        program = torch.export.export(
            generator.eval().requires_grad_(False), tuple(inputs), dynamic_shapes=tuple({0: windows} for _ in inputs)
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of this machine
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def _replace_batch_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, BatchNorm):
            setattr(module, name, EachWindow(child))
        else:
            _replace_batch_norms(child)
