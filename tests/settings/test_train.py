"""Settings of the training."""

from p2p_dist.settings.config import Train


def test_an_epoch_is_one_pass_over_the_windows():
    train = Train(epochs=3, global_batch_size=4, keep_every=1)
    assert train.total_steps(10) == 8  # 30 windows in fours
    assert [step for step in range(1, 9) if train.is_kept(step, 10)] == [3, 5, 8]
    assert Train(epochs=None, steps=7).total_steps(10) == 7
