"""The norm of an exported program: for any number of windows what the thesis's batch norm is for one."""

import torch

from p2p_dist.generate.program import EachWindow
from p2p_dist.model.generator import BatchNorm


def norms():
    torch.manual_seed(0)
    norm = BatchNorm(3)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(3))
        norm.bias.copy_(torch.randn(3))
    return norm, EachWindow(norm)


def test_each_window_is_normalised_as_if_it_were_alone():
    norm, each = norms()
    windows = torch.randn(4, 3, 5, 6) * torch.tensor([0.05, 1, 3, 10])[:, None, None, None]
    alone = torch.cat([norm(window[None]) for window in windows])
    assert torch.allclose(each(windows), alone, atol=1e-5) and not torch.allclose(each(windows), norm(windows), atol=0.1)


def test_of_one_value_the_bias_remains_exactly():
    _, each = norms()
    assert torch.equal(each(torch.randn(2, 3, 1, 1)), each.bias[None, :, None, None].expand(2, 3, 1, 1))
