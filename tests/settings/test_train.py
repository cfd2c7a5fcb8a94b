"""Settings of the training."""

import doctest

import pytest

from p2p_dist.settings import train
from p2p_dist.settings.config import Train


def test_examples():
    assert doctest.testmod(train).failed == 0


@pytest.mark.parametrize("asked", ["", "0", "0-3", "3-2", "3-", "-3", "3-4-5", "a", "3 - 4", "1" * 16, "3\n"])
def test_steps_to_profile(asked):
    with pytest.raises(ValueError, match=r"train.profile must be a step or a range of steps, as in 200-210"):
        Train(profile=asked)


def test_an_epoch_is_one_pass_over_the_windows():
    three = Train(epochs=3, global_batch_size=4, keep_every=1)
    assert three.total_steps(10) == 8  # 30 windows in fours
    assert [step for step in range(1, 9) if three.is_kept(step, 10)] == [3, 5, 8]
    seven = Train(epochs=None, steps=7, global_batch_size=4)
    assert seven.total_steps(10) == 7 and [step for step in range(1, 8) if seven.is_kept(step, 10)] == [7], "the last one"


def test_kits_are_of_the_songs_that_are_named_letter_by_letter():
    some = Train(kits="EVR - [ab]?")
    assert [some.gives_kit(name) for name in ("EVR - a1", "EVR - b2", "EVR - a", "evr - a1", "EVR - c1", "x EVR - a1")] == [
        *(True, True, False, False, False, False),
    ]
    assert Train().gives_kit("any\nsong")
    assert Train(kits="Alpha [live]").gives_kit("Alpha [live]"), "brackets of the name itself"
