"""What the drill refuses before it begins."""

from __future__ import annotations

import pytest

from p2p_dist.cli import check


@pytest.mark.parametrize("processes", ["0", "5"])
def test_more_processes_than_pairs(processes):
    with pytest.raises(ValueError, match="use 1 to 4"):
        check.main(["drill", "--processes", processes])
