"""Make the picture in the README: the listening page of the demo while it plays.

python -m tests.browser.picture runs/drums-demo/page/index.html .github/page.png
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser.tab import Tab, chromium

WIDTH, HEIGHT, AT = 1006, 860, 1.5
"""Pixels, and the second of the song at which the picture is taken."""


def take(tab: Tab, out: Path) -> None:
    """Open the page, play it up to `AT`, and write what is then seen as a PNG."""
    tab.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    tab.open(WIDTH, height=HEIGHT)
    tab.play()
    tab.wait("return player.position() >= arguments[0] && views.shown?.length === 2", AT)
    shown = Image.open(io.BytesIO(tab.driver.get_screenshot_as_png()))
    shown.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)


def main(page: str, out: str) -> None:
    """Take the picture of a page with a browser of its own."""
    with tempfile.TemporaryDirectory() as profile:
        browsers = chromium(Path(profile))
        take(Tab(next(browsers), Path(page).absolute()), Path(out))
        next(browsers, None)


if __name__ == "__main__":
    main(*sys.argv[1:])
