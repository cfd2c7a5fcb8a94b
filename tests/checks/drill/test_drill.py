"""What the drill refuses before it begins."""

from __future__ import annotations

import pytest

from p2p_dist.cli import check


def test_a_number_of_processes_that_does_not_divide():
    with pytest.raises(ValueError, match="use 1, 2 or 4"):
        check.main(["drill", "--processes", "3"])
