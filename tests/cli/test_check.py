"""The check command: what it refuses."""

import pytest

from p2p_dist.cli import check


def test_what_scaling_refuses():
    with pytest.raises(ValueError, match="write numbers of nodes as in"):
        check.main(["scaling", "--nodes", "two"])
    with pytest.raises(ValueError, match="at least one node"):
        check.main(["scaling", "--nodes", "0,1"])
