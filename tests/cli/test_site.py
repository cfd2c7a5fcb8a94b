"""The site command: what cannot be compared is said in words. What it compares: tests/jobs/slurm/test_site_check.py."""

import pytest

from p2p_dist.cli import site


@pytest.mark.parametrize(
    ("name", "said"),
    [("leonard", "; did you mean leonardo?"), ("no/such.yaml", r"; those in .*hpc/sites: daint, frontier, .*, snellius$")],
)
def test_a_file_that_is_not_there_is_named(name, said):
    with pytest.raises(ValueError, match=f"{name} is neither a file nor the name of a site{said}"):
        site.main(["check", name])
