"""librosa as plain Python: compiling its loops takes half a minute in a new environment, and tests give it seconds of sound."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numba


def _uncompiled(*arguments: Any, **_: Any) -> Any:
    """Instead of a decorator of numba, with options or without. What librosa decorates so computes with arrays, too."""
    return arguments[0] if arguments and callable(arguments[0]) else lambda function: function


with mock.patch.multiple(numba, jit=_uncompiled, stencil=_uncompiled, guvectorize=_uncompiled, vectorize=_uncompiled):
    import librosa
    import librosa.core.audio
    import librosa.feature.inverse
    import librosa.onset

__all__ = ["librosa"]
