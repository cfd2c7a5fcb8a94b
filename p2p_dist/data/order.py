"""The order of the samples in an epoch: a seeded bijection of the sample numbers, evaluated only at the requested positions.

`feistel` is a generalised Feistel network with cycle walking (Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002).
For N samples, a = ceil(sqrt(N)) and b = ceil(N / a). A position x < a * b is split into x mod a and x div a. An even round r
adds h_r(second part) to the first, modulo a; an odd round adds h_r(first part) to the second, modulo b. Each round can be
inverted, so all together are a bijection of 0 .. a * b - 1. There are 8 rounds, and 32 if N is less than 1024, because one
round mixes small numbers little. If the result is N or more, the network is applied to it again until it is less than N, which
gives a bijection of 0 .. N - 1. Since a * b - N < a, few positions need a second application.

h_r(y) = mix(y + k_r modulo 2^64) div 2, where mix is the finaliser of SplitMix64 (Steele, Lea and Flood, Fast Splittable
Pseudorandom Number Generators, 2014). The keys k_r are the 64-bit little-endian words of SHAKE-256 of the ASCII text
"p2p_dist order 1: SEED EPOCH N". All arithmetic is unsigned 64-bit, so the order is the same on every machine and with every
version of numpy.

`sorted_order` is the order for datasets of manifest schema 3: all samples, sorted by one random number each.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

_STEPS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST, _HALVE = np.uint64(31), np.uint64(1)


def feistel(seed: int, epoch: int, samples: int, positions: np.ndarray) -> np.ndarray:
    """Return the sample numbers at these positions of an epoch, int64 of the same shape.

    Args:
        samples: number of samples in the split, at least 1.
        positions: from 0 to samples - 1.
    """
    assert samples < 1 << 62 and (not len(positions) or 0 <= positions.min() <= positions.max() < samples)
    text = f"p2p_dist order 1: {seed} {epoch} {samples}"
    rounds = 8 if samples >= 1024 else 32
    keys = np.frombuffer(hashlib.shake_256(text.encode("ascii")).digest(8 * rounds), "<u8").astype(np.uint64)
    first = math.isqrt(samples - 1) + 1
    sides = np.array([first, -(-samples // first)], np.uint64)
    numbers = _network(positions.astype(np.uint64), sides, keys)
    while (beyond := numbers >= np.uint64(samples)).any():
        numbers[beyond] = _network(numbers[beyond], sides, keys)
    return numbers.astype(np.int64)


def _network(numbers: np.ndarray, sides: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Apply the network once. sides: a and b."""
    second, first = np.divmod(numbers, sides[0])
    for number, key in enumerate(keys):
        if number % 2:
            second += _mixed(first + key)  # less than 2^63 + 2^31: no overflow
            second %= sides[1]
        else:
            first += _mixed(second + key)
            first %= sides[0]
    return second * sides[0] + first


def _mixed(values: np.ndarray) -> np.ndarray:
    """Apply the finaliser of SplitMix64 and halve the result, in place."""
    for shift, factor in _STEPS:
        values ^= values >> shift
        values *= factor
    values ^= values >> _LAST
    values >>= _HALVE
    return values


def sorted_order(seed: int, epoch: int, samples: int) -> np.ndarray:
    """Return the order of all samples in one epoch, (samples,), for datasets of manifest schema 3.

    Sorts the raw output of Philox, which numpy guarantees to be the same in every version; shuffles are not guaranteed.
    """
    random = np.random.Philox(key=[seed, epoch]).random_raw(samples)
    return np.argsort(random, kind="stable")
