"""The limits of the networks' settings: the last value that is taken, and the first that is refused."""

import pytest

from p2p_dist.settings.config import Model

LIMITS = [
    ("channels", 1, 0, "channels must be greater than 0"),
    ("max_channels", 1, 0, "max-channels must be greater than 0"),
    ("depth", 1, 0, "depth must be from 1 to 16"),
    ("depth", 16, 17, "depth must be from 1 to 16"),
    ("dropout", 0.0, -0.1, "dropout must be from 0 to below 1"),
    ("dropout", 0.99, 1.0, "dropout must be from 0 to below 1"),
    ("noise_channels", 0, -1, "noise-channels must be 0 or more"),
    ("leaky_slope", -10.0, float("inf"), "leaky-slope must be from -10 to 10"),
    ("discriminator_channels", 1, 0, "discriminator-channels must be greater than 0"),
    ("upsample", "transposed", "bilinear", "upsample must be one of folded, nearest, transposed"),
    ("norm", "batch", "layer", "norm must be one of group, batch"),
    ("discriminator_norm", "batch", "group", "discriminator-norm must be one of spectral, batch"),
]


@pytest.mark.parametrize(("name", "taken", "refused", "said"), LIMITS)
def test_limits(name, taken, refused, said):
    assert getattr(Model(**{name: taken}), name) == taken
    with pytest.raises(ValueError, match=rf"^model\.{said}"):
        Model(**{name: refused})
