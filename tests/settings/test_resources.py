"""Where a run runs."""

import pytest

from p2p_dist.settings import config, presets, resources


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:30", 90), ("1:30:00", 5400), ("2-0", 172800), ("2-00:30", 174600), ("2-00:00:01", 172801)],
)
def test_times_as_slurm_writes_them(text, seconds):
    assert config.seconds_of(text) == seconds


def test_a_range_of_nodes_is_two_settings(tmp_path):
    """If it failed: a training that may have 1 to 4 nodes always waits for 4, or a run of an earlier version is not read."""
    assert resources.sizes_of("1-4") == (4, 1) and resources.sizes_of("12-999999999") == (999_999_999, 12)
    assert resources.sizes_of("4-4") == (4, None), "which is a number"
    assert resources.Resources(nodes=2, least_nodes=2).sizes == (2,)
    path = tmp_path / "mine.yaml"
    for written, sizes in (("{nodes: 1-4}", (1, 4)), ("{nodes: '2-3'}", (2, 3)), ("{nodes: 3}", (3,)), ("{}", (1,))):
        path.write_text(f"resources: {written}")
        found = presets.from_yaml(path)
        assert found.resources.sizes == sizes
        path.write_text(presets.to_yaml(found))
        assert presets.from_saved(path) == found, "and the record is read again"
    assert resources.sizes_in_words((1, 4)) == "1-4" and resources.sizes_in_words((4,)) == "4"


@pytest.mark.parametrize(
    "text", ["4-1", "0-2", "1-", "-4", "-", "1 - 4", "1-4-8", "1-1000000000", "a-b", "1--4", "\u0661-\u0664", "1-4\n", "True-4"]
)
def test_what_is_no_range_of_nodes_is_refused(text):
    with pytest.raises(ValueError, match="nodes must be a number, or the fewest and the most, as 1-4, not ") as refused:
        resources.sizes_of(text)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="nodes must be a whole number, not True"):
        resources.Resources(nodes=True)
