"""One update: its gradients, what it changes, and that neither ranks nor micro-batches change it."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from p2p_dist.model import losses
from p2p_dist.model.discriminator import Discriminator
from p2p_dist.settings.presets import PRESETS
from p2p_dist.train import distributed, networks, nonfinite, step
from tests.train import on_ranks
from tests.train.small import small, thesis


@pytest.fixture(scope="module")
def reference():
    """Gradients of the first update of 8 pairs in float64, in one process."""
    from tests.rank_processes import run_on_ranks

    return run_on_ranks(1, on_ranks.one_step, small(), 8, 1, torch.float64)[0]


def assert_close(results, reference, limit):
    for result in results:
        for name in ("generator", "discriminator"):
            assert on_ranks.relative_error(result[name], reference[name]) < limit, name


def noise_of_the_place_in_the_share():
    """The mistake of drawing noise by place in the rank's share: every rank has the same."""
    honest = step.train_step
    step.train_step = lambda n, i, t, noise, *rest: honest(n, i, t, on_ranks.batch_of(small(), len(i))[2], *rest)


def test_two_ranks_equal_one(ranks, reference):
    assert_close(ranks(1, on_ranks.one_step, small(), 8), reference, 1e-5)
    two = ranks(2, on_ranks.one_step, small(), 8)
    assert_close(two, reference, 1e-5)
    assert torch.equal(two[0]["generator"], two[1]["generator"])


def test_two_ranks_equal_one_twins(ranks, reference):
    two = ranks(2, on_ranks.one_step, small(), 8, 1, torch.float32, noise_of_the_place_in_the_share)
    assert on_ranks.relative_error(two[0]["generator"], reference["generator"]) > 1e-3
    batched = small(model={"norm": "batch"})  # statistics of a rank's share: the exception that its docstring tells
    one, two = ranks(1, on_ranks.one_step, batched, 8)[0], ranks(2, on_ranks.one_step, batched, 8)[0]
    assert on_ranks.relative_error(two["generator"], one["generator"]) > 1e-3


def test_uneven_shares_equal_one_process(ranks, reference):
    """4 pairs on 3 processes are 2 + 1 + 1: the averaged gradient and losses are those of the whole batch."""
    for size, one in ((8, reference), (4, None), (16, None)):
        one = one or ranks(1, on_ranks.one_step, small(), size, 1, torch.float64)[0]
        three = ranks(3, on_ranks.one_step, small(), size)
        assert_close(three, one, 1e-5)
        for result in three:
            assert result["averaged"] == pytest.approx(one["averaged"], rel=1e-5), size
    parts = ranks(3, on_ranks.one_step, small(micro_batch_size=1), 4)
    assert_close(parts, ranks(1, on_ranks.one_step, small(), 4, 1, torch.float64)[0], 1e-5)


def no_sync_never():
    step.reduced = lambda module, now: contextlib.nullcontext()


def test_micro_batches_equal_the_whole(ranks, reference):
    for world_size, size in ((1, 3), (2, 1), (2, 3)):
        parts = ranks(world_size, on_ranks.one_step, small(micro_batch_size=size), 8)
        assert_close(parts, reference, 1e-5)
    whole = ranks(2, on_ranks.one_step, small(), 8)[0]
    assert whole["terms"].keys() == parts[0]["terms"].keys()
    assert parts[0]["terms"] == pytest.approx(whole["terms"], rel=1e-4)


def test_micro_batches_reduce_once(ranks):
    """One bucket of each network a step: the discriminator's is not reduced again in the generator's half."""
    assert ranks(2, on_ranks.one_step, small(), 8, 2)[0]["reductions"] == 2
    assert ranks(2, on_ranks.one_step, small(micro_batch_size=2), 8, 2)[0]["reductions"] == 2
    twin = ranks(2, on_ranks.one_step, small(micro_batch_size=2), 8, 2, torch.float32, no_sync_never)
    assert twin[0]["reductions"] == 4


def never_eval():
    Discriminator.eval = Discriminator.train


def test_one_power_iteration_a_step(ranks):
    """Bit for bit, whatever the ranks and parts; the frozen discriminator of the generator's half takes none."""
    first = ranks(1, on_ranks.one_step, small(), 8)[0]["buffers"]
    assert len(first) == 10
    for world_size, size, sabotage in ((2, None, None), (1, 2, None), (1, 2, never_eval)):
        config = small(micro_batch_size=size)
        other = ranks(world_size, on_ranks.one_step, config, 8, 1, torch.float32, sabotage)[0]["buffers"]
        same = all(torch.equal(first[name], other[name]) for name in first)
        assert same == (sabotage is None), (world_size, size)


def forget_to_equalise():
    networks.equalise = lambda module, ranks: None


def test_ranks_stay_equal(ranks):
    """After 8 steps every parameter and buffer, bit for bit, though the ranks were seeded differently."""
    for sabotage in (None, forget_to_equalise):
        first, second = ranks(2, on_ranks.one_step, small(), 4, 8, torch.float32, sabotage, True)
        same = all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
        same = same and all(torch.equal(first["average"][name], second["average"][name]) for name in first["average"])
        assert same == (sabotage is None)


def test_bf16(ranks, reference):
    """Numbers change, within bf16's 8 bits; on two ranks with bf16 gradients too, in any layout."""
    assert_close(ranks(1, on_ranks.one_step, small(precision="bf16"), 8), reference, 0.15)
    two = ranks(2, on_ranks.one_step, small(gradient_precision="bf16"), 8)
    assert_close(two, reference, 0.01)
    assert torch.equal(two[0]["generator"], two[1]["generator"])
    assert on_ranks.relative_error(two[0]["generator"], reference["generator"]) > 1e-4, "it did travel in bf16"
    assert_close(ranks(1, on_ranks.one_step, small(layout="channels_last"), 8), reference, 1e-5)


def beta_alone():
    from p2p_dist.model.generator import BatchNorm

    honest = BatchNorm.forward
    BatchNorm.forward = lambda self, x: (
        self.bias[:, None, None].expand(x.shape) if x.shape[0] * x.shape[2] * x.shape[3] == 1 else honest(self, x)
    )


def test_thesis_at_batch_1_on_two_ranks(ranks):
    """DDP waits for the gradient of every parameter, also of the norm that has nothing to normalise."""
    first, second = ranks(2, on_ranks.one_step, thesis(), 2, 3)
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    with pytest.raises(AssertionError, match="a parameter has no gradient"):
        ranks(2, on_ranks.one_step, thesis(), 2, 3, torch.float32, beta_alone)


def test_paper_order():
    """The generator is judged by the updated discriminator, and the discriminator by nothing of the generator's half."""
    config = thesis()
    built = networks.build(config, on_ranks.CPU)
    input, target, _ = on_ranks.batch_of(config, 2)
    seen = []
    honest = losses.adversarial_loss
    weights = [parameter.detach().clone() for parameter in built.discriminator.parameters()]

    def spy(generated, kind):
        seen.append(all(not torch.equal(a, b) for a, b in zip(weights, built.discriminator.parameters(), strict=True)))
        gradients = [parameter.grad.clone() for parameter in built.discriminator.parameters()]
        seen.append(gradients)
        assert not any(parameter.requires_grad for parameter in built.discriminator.parameters())
        return honest(generated, kind)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "adversarial_loss", spy)
        step.train_step(built, input, target, None, config.train, 1)
    assert seen[0]
    assert all(torch.equal(a, b.grad) for a, b in zip(seen[1], built.discriminator.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in built.discriminator.parameters())


def test_from_a_bad_step_on_the_moving_average_stays():
    """It is not at the weights after one update, so it would move to them."""
    config = small(ema=0.9)
    built = networks.build(config, on_ranks.CPU)
    whole = on_ranks.batch_of(config, 2)
    spoiled = [whole[0] * torch.nan, *whole[1:]]
    step.train_step(built, *whole, config.train, 1)
    before = {name: tensor.clone() for name, tensor in built.average.items()}
    assert not all(torch.equal(before[name], parameter) for name, parameter in built.generator.named_parameters())
    for number, batch in ((2, spoiled), (3, whole)):
        step.train_step(built, *batch, config.train, number)
        assert all(torch.equal(built.average[name], tensor) for name, tensor in before.items())


def test_the_generator_runs_once(monkeypatch):
    calls = []
    for size, wanted in ((None, [4]), (2, [2, 2, 2, 2])):
        config = small(micro_batch_size=size)
        built = networks.build(config, on_ranks.CPU)
        built.generator.register_forward_hook(lambda module, arguments, output: calls.append(len(output)))
        calls.clear()
        step.train_step(built, *on_ranks.batch_of(config, 4), config.train, 1)
        assert calls == wanted


def test_each_term_counts_by_its_weight():
    """The generator's loss is the sum that the help of the settings describes; a term of weight 0 is not computed."""
    config = small(l1_weight=3.0, difference_weight=0.7, compressed_weight=5.0, flux_weight=0.3, feature_weight=2.0)
    weights = {"adversarial": 1, "l1": 3, "difference": 3 * 0.7, "compressed": 3 * 5, "flux": 3 * 0.3, "feature": 2}
    terms, _ = step.train_step(networks.build(config, on_ranks.CPU), *on_ranks.batch_of(config, 2), config.train, 1)
    assert terms["generator"].item() == pytest.approx(sum(w * terms[name].item() for name, w in weights.items()))
    terms, _ = step.train_step(networks.build(small(), on_ranks.CPU), *on_ranks.batch_of(config, 2), small().train, 1)
    assert not {"compressed", "flux"} & terms.keys()


def test_a_guide_reaches_every_micro_batch():
    """Whole or in parts, with each pair's own guide, the gradients are the same; with another guide they are not."""
    found = []
    guide = torch.rand(4, 3, small().data.mels, small().data.frames) * 2 - 1
    for size, seen in ((None, guide), (3, guide), (None, guide.flip(0))):
        config = small(model={"sketch": True, "beat_phase": True}, micro_batch_size=size)
        built = networks.build(config, on_ranks.CPU)
        step.train_step(built, *on_ranks.batch_of(config, 4), config.train, 1, guide=seen)
        found.append(on_ranks.gradients(built.generator))
    assert on_ranks.relative_error(found[1], found[0]) < 1e-4
    assert on_ranks.relative_error(found[2], found[0]) > 1e-2


def test_mid_and_side():
    """Two pictures a window: both are heard, made and judged."""
    config = dataclasses.replace(small(), data=dataclasses.replace(PRESETS["tiny"].data, channels="mid-side"))
    built = networks.build(config, on_ranks.CPU)
    input, target, noise = on_ranks.batch_of(config, 2)
    _, flags = step.train_step(built, input.repeat(1, 2, 1, 1), target.repeat(1, 2, 1, 1), noise, config.train, 1)
    assert not flags.any()
    assert built.generator.last[1].weight.shape[0] == 2
    assert built.generator.down[0].convolution.weight.shape[1] == 2 + 1
    assert built.discriminator.convolutions[0].weight.shape[1] == 2 + 2


@pytest.mark.parametrize("name", ["plain", "thesis"])
def test_compiled_networks(monkeypatch, name):
    """`train.compile` reaches both networks, past DDP too, and changes no name of a weight.

    Each is compiled whole: nothing in it breaks the graph, and after the first update nothing is compiled again.
    """
    shallow = {"depth": 2, "dropout": 0.0}
    config = small(name, model=shallow, compile=True)
    compiled = []
    honest = torch.nn.Module.compile

    def whole(module, **how):
        compiled.append((type(module).__name__, how))
        honest(module, backend="eager", fullgraph=True, **how)

    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(torch.nn.Module, "compile", whole)
    built, plain = networks.build(config, on_ranks.CPU), networks.build(small(name, model=shallow), on_ranks.CPU)
    assert compiled == [("Generator", {"dynamic": False}), ("Discriminator", {"dynamic": False})]
    assert built.state()["generator"].keys() == plain.state()["generator"].keys()
    input, target, noise = on_ranks.batch_of(config, 2)
    noise = noise if config.model.noise_channels else None
    terms, _ = step.train_step(built, input, target, noise, config.train, 1)
    expected, _ = step.train_step(plain, input, target, noise, config.train, 1)
    assert terms["generator"].item() == pytest.approx(expected["generator"].item(), rel=1e-3)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == {"plain": 4, "thesis": 3}[name], "the generator, and the discriminator in each of its uses"
    for number in range(2, 13):
        step.train_step(built, input, target, noise, config.train, number)
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"] and not counters["recompile_limit"]


class ReadsOfTheDevice(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: reading a value of a tensor."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal):
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["plain", "thesis"])
def test_no_value_is_read_in_a_step(name):
    config = small(name)
    built = networks.build(config, on_ranks.CPU)
    input, target, noise = on_ranks.batch_of(config, 2)
    with ReadsOfTheDevice() as reads:
        _, flags = step.train_step(built, input, target, noise if config.model.noise_channels else None, config.train, 1)
    assert reads.count == 0
    with reads:
        assert not flags.any()
    assert reads.count == 1


READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "__array__")


def test_between_lines_of_numbers_only_flags_on_the_host_are_read(monkeypatch):
    """20 updates as the loop makes them, on a card: the one read is of the flags' copy in the host's memory."""
    config = small()
    built = networks.build(config, on_ranks.CPU)
    watch = nonfinite.Watch(built, None, on_ranks.CPU, None)
    batch = on_ranks.batch_of(config, 2)
    read = []

    def counted(name, honest):
        def spy(tensor, *arguments, **named):
            read.append((name, any(tensor is flags for flags in watch.host)))
            return honest(tensor, *arguments, **named)

        return spy

    for name in READS:
        monkeypatch.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
    for number in range(1, 21):
        _, flags = step.train_step(built, *batch, config.train, number)
        watch.after(number, flags)
    assert read == [("tolist", True)] * 19, "each update's flags while the next one is computed"
    bool(flags[0])
    assert read[19:] == [("__bool__", False)]


@pytest.mark.parametrize("name", ["plain", "thesis"])
def test_a_step_can_be_captured(name):
    """A captured graph does the same work on the same memory: what a step leaves for the next one lies where it lay.

    And no seed is set in it, which capturing does not allow; one that is set before gives the same mask.
    """
    config = small(name)
    batch = on_ranks.batch_of(config, 2)
    if not config.model.noise_channels:
        batch[2] = None
    found = []
    for outside in (False, True):
        built = networks.build(config, on_ranks.CPU)
        lies = [tensor.data_ptr() for tensor in (built.bad, *on_ranks.in_use(built))]
        for number in range(3):
            if outside:
                torch.manual_seed(number)
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(torch, "manual_seed", None)
                    step.train_step(built, *batch, config.train, None)
            else:
                step.train_step(built, *batch, config.train, number)
        assert [tensor.data_ptr() for tensor in (built.bad, *on_ranks.in_use(built))] == lies
        found.append(on_ranks.everything(built))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_drop_out_belongs_to_seed_step_and_rank():
    config = thesis(learning_rate=1e-9)
    found = []
    for seed in (1, 1, 2):
        built = networks.build(config, on_ranks.CPU)
        torch.manual_seed(len(found))  # whatever was drawn before
        step.train_step(built, *on_ranks.batch_of(config, 2)[:2], None, config.train, seed)
        found.append(on_ranks.gradients(built.generator))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_precision_and_layout_have_one_place_each():
    assert networks.choose_precision("fp32", "cuda", True) == "fp32"
    assert networks.choose_precision("auto", "cuda", False) == "fp32"
    assert networks.choose_precision("auto", "cpu", True) == "fp32", "even if it has units for bf16"
    assert networks.warn_of_emulation("bf16", "cpu", "flags : fpu avx512f") is not None
    assert networks.warn_of_emulation("bf16", "cpu", "flags : fpu amx_bf16") is None
    assert networks.choose_layout("contiguous", "bf16", False) == "contiguous"
    assert networks.choose_layout("auto", "fp32", False) == "contiguous"
    built = networks.build(small(precision="bf16"), on_ranks.CPU)
    assert built.precision == "bf16"
    assert built.generator.down[1].convolution.weight.is_contiguous(memory_format=torch.channels_last)
    moments = built.state()["generator_optimiser"]["down.1.convolution.weight"]
    assert moments["exp_avg"].is_contiguous(memory_format=torch.channels_last)
    assert networks.build(small(), on_ranks.CPU, "bf16").precision == "bf16", "what the run began with wins"


def test_no_buffer_that_a_rank_could_keep_for_itself():
    """No running statistics, no SyncBatchNorm (it refuses a CPU, and would change the thesis's statistics of one image)."""
    for config in (small(), thesis()):
        built = networks.build(config, on_ranks.CPU)
        parts = [*built.generator.modules(), *built.discriminator.modules()]
        assert not any(isinstance(part, torch.nn.SyncBatchNorm) for part in parts)
        assert not list(built.generator.buffers())
        assert all(name.endswith(("_u", "_v")) for name, _ in built.discriminator.named_buffers())


def test_ddp_broadcasts_no_buffers(ranks):
    """Row 22: DDP broadcasts buffers in the discriminator's second forward of a step.

    Seen: on a GPU an error in the backward, "modified by an inplace operation"; nothing on a CPU.
    Now: buffers are not broadcast, they advance equally on every rank.
    """
    assert ranks(2, ddp_settings) == [{"buffers": False, "views": True}] * 2


def ddp_settings():
    place, _ = distributed.start()
    parallel = networks.build(small(), place).parallel_discriminator
    name = "forward_sync_buffers" if hasattr(parallel, "forward_sync_buffers") else "broadcast_buffers"
    return {"buffers": getattr(parallel, name), "views": parallel.gradient_as_bucket_view}
