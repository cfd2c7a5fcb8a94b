"""librosa as plain Python: compiling its loops takes half a minute in a new environment, and tests give it seconds of sound."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numba


def _uncompiled(*arguments: Any, **_: Any) -> Any:
    """Instead of a decorator of numba, with options or without. What librosa decorates so computes with arrays, too."""
    return arguments[0] if arguments and callable(arguments[0]) else lambda function: function


def _elementwise(*_: Any, **__: Any) -> Any:
    """Instead of `numba.vectorize`, which makes ufuncs: those may also be given the array to write to, as the last argument."""

    def decorate(function: Any) -> Any:
        def call(*arrays: Any) -> Any:
            inputs = function.__code__.co_argcount
            if len(arrays) == inputs:
                return function(*arrays)
            arrays[inputs][...] = function(*arrays[:inputs])
            return arrays[inputs]

        return call

    return decorate


with mock.patch.multiple(numba, jit=_uncompiled, stencil=_uncompiled, guvectorize=_uncompiled, vectorize=_elementwise):
    import librosa
    import librosa.core.audio
    import librosa.feature.inverse
    import librosa.onset

__all__ = ["librosa"]
