"""Settings of the songs and of their spectrograms."""

from __future__ import annotations

import pytest

from p2p_dist.settings.config import Data


def test_settings_that_make_no_sense_are_refused() -> None:
    for bad in ({"silent_share": 1.5}, {"copies": -1}, {"representation": "thesis", "copies": 1}):
        with pytest.raises(ValueError, match=r"silent-share|copies"):
            Data(**bad)  # type: ignore[arg-type]
