"""What a step must do, counted on meta tensors: kernels, FLOPs, bytes, memory, and the least time that a card needs for it."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from p2p_dist.model.discriminator import Discriminator
from p2p_dist.model.generator import Generator
from p2p_dist.settings.config import Config
from p2p_dist.train.networks import Networks
from p2p_dist.train.step import Share, discriminator_backward, generator_backward

aten = torch.ops.aten

CARDS = {
    "H100 PCIe": (756e12, 378e12, 51e12, 2.0e12),
    "H100 NVL": (835e12, 417e12, 60e12, 3.9e12),
    "H100": (989.4e12, 494.7e12, 66.9e12, 3.35e12),
    "H200": (989.4e12, 494.7e12, 66.9e12, 4.8e12),
    "A100-SXM4-80GB": (312e12, 156e12, 19.5e12, 2.04e12),
    "A100": (312e12, 156e12, 19.5e12, 1.555e12),
    "MI250X": (191.5e12, 47.9e12, 47.9e12, 1.638e12),
}
"""Dense FLOP/s in bf16, TF32 and float32, and bytes/s of the memory, by a part of the name, from the makers' data sheets.
MI250X: of one of its two dies, which is one device to torch; it has no TF32."""


def card(name: str) -> dict[str, float] | None:
    """The data sheet of a card, None where it is not known.

    >>> card("NVIDIA H200")["bytes"], card("a CPU")
    (4800000000000.0, None)
    """
    found = next((sheet for part, sheet in CARDS.items() if part in name), None)
    return dict(zip(("bf16", "tf32", "fp32", "bytes"), found, strict=True)) if found else None


@dataclass
class Count:
    """Of one step in float32: calls that compute (a kernel each, at least), FLOPs, the most bytes held at once, and the
    convolutions and matrix products as (FLOPs, bytes read and written once)."""

    kernels: int
    flops: int
    memory: int
    layers: list[tuple[int, int]]
    parameters: int

    def floor(self, flops_per_second: float, bytes_per_second: float, is_bf16: bool) -> float:
        """Seconds that no program on such a card can do without, summed layer by layer: each convolution either computes or
        moves its tensors, whichever takes longer; what stands between them is taken to cost nothing, except the optimisers,
        which read and write weight, gradient and two moments."""
        width = 0.5 if is_bf16 else 1.0
        layers = sum(max(flops / flops_per_second, width * size / bytes_per_second) for flops, size in self.layers)
        return layers + self.parameters * 4 * 7 / bytes_per_second


class _Watch(TorchDispatchMode):
    """Counts calls, and the bytes of all storages that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.flops = self.now = self.most = 0
        self.layers: list[tuple[int, int]] = []
        self.known: dict[int, int] = {}

    def hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known[key] = size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)

        def release() -> None:
            self.known.pop(key, None)
            self.now -= size

        weakref.finalize(storage, release)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        tensors = [one for one in torch.utils._pytree.tree_leaves(answer) if isinstance(one, torch.Tensor)]
        before = len(self.known)
        for tensor in tensors:
            self.hold(tensor)
        if len(self.known) > before or func._schema.is_mutable:  # else a view
            self.kernels += 1
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            flops = int(count(*args, **(kwargs or {}), out_val=answer))
            read = [one for one in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
            self.flops += flops
            self._layer(func, flops, read, tensors)
        return answer

    def _layer(self, func: Any, flops: int, read: list[torch.Tensor], written: list[torch.Tensor]) -> None:
        def size(tensors: list[torch.Tensor]) -> int:
            return sum(one.numel() * one.element_size() for one in tensors)

        if func.overloadpacket is aten.convolution_backward and len(written) > 1:
            # Two convolutions: towards the input, and towards the weight.
            gradient, input, weight = read[:3]
            self.layers.append((flops // 2, size([gradient, weight, input])))
            self.layers.append((flops - flops // 2, size([gradient, input, weight])))
        else:
            self.layers.append((flops, size(read) + size(written)))


def count(config: Config, batch: int) -> Count:
    """Count one step of `batch` pairs. The optimisers' kernels and the copies for undoing are not in it; their memory is."""
    with torch.device("meta"):
        pictures, data = config.data.picture_channels, config.data
        generator, discriminator = Generator(config.model, pictures), Discriminator(config.model, pictures)
        picture = torch.zeros(batch, pictures, data.mels, data.frames)
        noise = None
        if config.model.noise_channels:
            noise = torch.zeros(batch, config.model.noise_channels, data.mels, data.frames)
    built = Networks.bare(generator, discriminator)
    parameters = [*generator.parameters(), *discriminator.parameters()]
    share = Share(picture, picture, noise)
    with _Watch() as watch:
        for tensor in (picture, *([] if noise is None else [noise])):
            watch.hold(tensor)
        for parameter in parameters:
            watch.hold(parameter)
        # Two moments each; the copies for undoing are two of all that the discriminator has.
        moments = [torch.empty(parameter.shape, device="meta") for parameter in parameters for _ in range(2)]
        kept = [torch.empty(parameter.shape, device="meta") for parameter in discriminator.parameters() for _ in range(6)]
        average = [torch.empty(p.shape, device="meta") for p in generator.parameters()] if config.train.ema else []
        output = generator(picture, noise)
        discriminator_backward(built, share, output, config.train.adversarial_loss, 1.0)
        discriminator.requires_grad_(False)
        generator_backward(built, share, output, config.train, 1.0)
        assert len(moments) + len(kept) + len(average) > 0
    held = sum(parameter.numel() for parameter in parameters)
    return Count(watch.kernels, watch.flops, watch.most, watch.layers, held)
