"""Small networks."""

from __future__ import annotations

from p2p_dist.settings.presets import PRESETS

TINY = PRESETS["tiny"].model
