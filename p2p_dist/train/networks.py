"""The state of a training that a step changes: both networks, their optimisers, the moving average."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from p2p_dist.common import linux
from p2p_dist.model.discriminator import Discriminator
from p2p_dist.model.generator import Generator
from p2p_dist.settings.config import Config, Train
from p2p_dist.train.distributed import Ranks, equalise, wrap


def choose_precision(asked: str, device: str, has_bf16: bool) -> str:
    """Resolve `train.precision auto` at the start of a run: bf16 on GPUs that compute in it, fp32 on a CPU.

    On a CPU bf16 is faster only with avx512_bf16 or AMX, and not for small networks. There it must be set explicitly. Without
    such units it is emulated, which takes 10 to 30 times as long: see `warn_of_emulation`.

    >>> choose_precision("auto", "cuda", True), choose_precision("auto", "cpu", True)
    ('bf16', 'fp32')
    """
    if asked != "auto":
        return asked
    return "bf16" if device == "cuda" and has_bf16 else "fp32"


def warn_of_emulation(precision: str, device: str, cpuinfo: str) -> str | None:
    """Return a warning if the training would emulate bf16; `cpuinfo` is the text of /proc/cpuinfo.

    >>> warn_of_emulation("bf16", "cuda", "flags : fpu"), warn_of_emulation("fp32", "cpu", "flags : fpu")
    (None, None)
    >>> warn_of_emulation("bf16", "cpu", "")  # not known
    """
    if precision != "bf16" or device != "cpu" or not cpuinfo or linux.computes_in_bf16(cpuinfo):
        return None
    return (
        "warning: this processor has no units for bf16 (avx512_bf16 or amx_bf16), so a step takes 10 to 30 times as long as in "
        "fp32: start a new run with --train.precision fp32"
    )


def choose_layout(asked: str, precision: str, is_rocm: bool) -> str:
    """Resolve `train.layout auto`: channels_last for bf16, because its fast convolutions need it; fp32 gains nothing from it.

    Not on ROCm, where MIOpen has used slow kernels for channels_last. Measure before you set it there.

    >>> choose_layout("auto", "bf16", is_rocm=False), choose_layout("auto", "bf16", is_rocm=True)
    ('channels_last', 'contiguous')
    """
    if asked != "auto":
        return asked
    return "channels_last" if precision == "bf16" and not is_rocm else "contiguous"


@dataclass
class Networks:
    """The networks and all other state that a step changes.

    generator, discriminator: the modules. parallel_*: the same, wrapped in DDP if there are several processes.
    average: the moving average of the generator's parameters, by name, or empty.
    precision: fp32 or bf16, of the networks' forward and backward; weights and optimisers are always float32.
    bad: 0-dimensional, on the device: 1 from the first step with a value that is not finite. It blocks all later updates.
    """

    generator: Generator
    discriminator: Discriminator
    parallel_generator: nn.Module
    parallel_discriminator: nn.Module
    generator_optimiser: torch.optim.Adam
    discriminator_optimiser: torch.optim.Adam
    average: dict[str, torch.Tensor]
    precision: str
    bad: torch.Tensor
    kept: list[torch.Tensor] = field(default_factory=list)
    turn: int = 0

    @classmethod
    def bare(cls, generator: Generator, discriminator: Discriminator) -> Networks:
        """Networks that can run forward and backward in float32 on their own, but not be updated."""
        none = torch.optim.Adam(generator.parameters())
        bad = torch.zeros(())
        return cls(generator, discriminator, generator, discriminator, none, none, {}, "fp32", bad)

    def autocast(self) -> torch.autocast:
        """Return the autocast context of a forward pass. Losses are computed outside it, in float32."""
        return torch.autocast(self.bad.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _undoable(self) -> list[torch.Tensor]:
        """Return all tensors that the discriminator's update changes: weights, moments, spectral norm's vectors. Each is a view
        in memory order, (elements,)."""
        moments = [tensor for state in self.discriminator_optimiser.state.values() for tensor in state.values()]
        changed = [*(t.detach() for t in self.discriminator.parameters()), *moments, *self.discriminator.buffers()]
        return [in_memory_order(tensor) for tensor in changed]

    def keep(self) -> None:
        """Copy, on the device, the tensors that the discriminator's update in the next step changes.

        The paper's order updates the discriminator before the generator's gradients are known. If these are not finite,
        `undo` restores the discriminator. Two copies alternate, because the host learns of a bad step one step later.
        """
        changed = self._undoable()
        if not self.kept:
            self.kept = [torch.empty(sum(tensor.numel() for tensor in changed), device=self.bad.device) for _ in range(2)]
        self.turn = 1 - self.turn
        torch.cat(changed, out=self.kept[self.turn])  # one kernel instead of dozens

    def undo(self, steps: int) -> None:
        """Restore the discriminator to its state before the last step (1) or the one before it (2).

        Generator and moving average need no restoring: `bad` blocked their update.
        """
        changed = self._undoable()
        kept = self.kept[self.turn if steps == 1 else 1 - self.turn]
        for tensor, values in zip(changed, kept.split([tensor.numel() for tensor in changed]), strict=True):
            tensor.copy_(values)

    def state(self) -> dict[str, Any]:
        """Return the training state as nested dictionaries of tensors, independent of the torch version."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "generator_optimiser": moments_of(self.generator, self.generator_optimiser),
            "discriminator_optimiser": moments_of(self.discriminator, self.discriminator_optimiser),
            "average": self.average,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load what `state` returned, in place: every tensor keeps its memory."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        for module, optimiser, name in (
            (self.generator, self.generator_optimiser, "generator_optimiser"),
            (self.discriminator, self.discriminator_optimiser, "discriminator_optimiser"),
        ):
            for parameter, moments in moments_of(module, optimiser).items():
                for key, tensor in moments.items():
                    tensor.copy_(state[name][parameter][key])
        for name, tensor in self.average.items():
            tensor.copy_(state["average"][name])

    def to_evaluate(self) -> dict[str, torch.Tensor]:
        """Return the generator's weights to evaluate: the moving average if there is one."""
        return {**self.generator.state_dict(), **self.average}


def moments_of(module: nn.Module, optimiser: torch.optim.Adam) -> dict[str, dict[str, torch.Tensor]]:
    """Return the optimiser's state (step, exp_avg, exp_avg_sq) by parameter name, in the shapes of the parameters."""
    found = {}
    for (name, parameter), view in zip(module.named_parameters(), optimiser.param_groups[0]["params"], strict=True):
        state = optimiser.state[view]
        shaped = {key: state[key].as_strided(parameter.shape, parameter.stride()) for key in ("exp_avg", "exp_avg_sq")}
        found[name] = {"step": state["step"], **shaped}
    return found


def in_memory_order(tensor: torch.Tensor) -> torch.Tensor:
    """Return a view of a tensor's elements in memory order, (elements,)."""
    return tensor.as_strided((tensor.numel(),), (1,))


def build(config: Config, ranks: Ranks, precision: str | None = None) -> Networks:
    """Build both networks from the seed, and broadcast rank 0's weights and buffers, so that all ranks are equal.

    Args:
        precision: the precision of the run when it is resumed; None for a new run.
    """
    device = ranks.device.type
    if precision is None:
        has_bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = choose_precision(config.train.precision, device, has_bf16)
    layout = choose_layout(config.train.layout, precision, torch.version.hip is not None)
    torch.manual_seed(config.train.seed)
    generator = Generator(config.model, config.data.picture_channels).to(ranks.device)
    discriminator = Discriminator(config.model, config.data.picture_channels).to(ranks.device)
    for module in (generator, discriminator):
        equalise(module, ranks)
        if layout == "channels_last":
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.train.compile:
            # dynamic=False: the discriminator gets two batch sizes (real and generated pairs together, then generated ones
            # alone). By default torch would then compile for dynamic sizes, which is slower.
            module.compile(dynamic=False)
    average = {}
    if config.train.ema:
        average = {name: tensor.detach().clone() for name, tensor in generator.named_parameters()}
    return Networks(
        generator,
        discriminator,
        wrap(generator, ranks, config.train.gradient_precision),
        wrap(discriminator, ranks, config.train.gradient_precision),
        new_adam(generator, config.train),
        new_adam(discriminator, config.train),
        average,
        precision,
        torch.zeros((), device=ranks.device),
    )


def new_adam(module: nn.Module, train: Train) -> torch.optim.Adam:
    """Create fused Adam, on any device: the fastest, and the only variant that can skip a step without synchronisation.

    It updates views of the weights in memory order. Its CPU kernel copies other layouts, such as channels_last, and then
    takes three times as long. `update` passes the gradients as the same views.
    """
    views = [nn.Parameter(in_memory_order(parameter.detach())) for parameter in module.parameters()]
    optimiser = torch.optim.Adam(
        views,
        lr=train.learning_rate,
        betas=(train.beta1, 0.999),
        eps=train.epsilon,
        fused=True,
    )
    for view in views:  # now, not in the first step, so that it can be copied, saved and loaded
        optimiser.state[view] = {
            "step": torch.zeros((), device=view.device),
            "exp_avg": torch.zeros_like(view),
            "exp_avg_sq": torch.zeros_like(view),
        }
    return optimiser


FLAGGED = ("cuda", "cpu")
"""Types of devices on which fused Adam reads `found_inf` itself. On a Mac's GPU the host reads it, and waits for the device."""


def update(module: nn.Module, optimiser: torch.optim.Adam, bad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Step the optimiser, unless `bad` is set or a gradient is not finite. The flag stays on the device, as `found_inf`.

    After DDP's all-reduce the gradients are the same on every rank, and so is the result.

    Returns:
        the new value of `bad`, and the norm of the gradient.
    """
    views = optimiser.param_groups[0]["params"]
    for view, parameter in zip(views, module.parameters(), strict=True):
        assert parameter.grad is not None, "a parameter has no gradient, so DDP would wait for it"
        # Otherwise elements of weight and gradient would be silently mixed up.
        assert parameter.grad.is_contiguous() == parameter.is_contiguous(), "memory layouts differ"
        view.grad = in_memory_order(parameter.grad)
    norm = torch.nn.utils.get_total_norm(view.grad for view in views)
    bad = torch.maximum(bad, (~torch.isfinite(norm)).to(bad.dtype))
    if bad.device.type in FLAGGED:
        optimiser.found_inf = bad  # type: ignore[attr-defined]
        optimiser.step()
    elif not bad:
        optimiser.step()
    optimiser.zero_grad()  # drops the views' references to the gradients, so that the next step can free them
    return bad, norm
