"""Where a run runs."""

import pytest

from p2p_dist.settings import config


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:30", 90), ("1:30:00", 5400), ("2-0", 172800), ("2-00:30", 174600), ("2-00:00:01", 172801)],
)
def test_times_as_slurm_writes_them(text, seconds):
    assert config.seconds_of(text) == seconds
