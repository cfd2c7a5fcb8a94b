"""The garbage collector while tests are imported: it walks all modules again and again, a quarter of that time, for nothing.

Importing this stops it, in a worker of pytest and in the process that ranks are forked from. `resume` starts it again.
"""

from __future__ import annotations

import gc
import os


def resume() -> None:
    """Collect garbage from here on, but leave out what is there already."""
    gc.freeze()
    gc.enable()


gc.disable()
os.register_at_fork(after_in_child=resume)
