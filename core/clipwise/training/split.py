"""Held-out rows: an independent coin for each row, fixed by its index."""

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
_BLOCK = 1_000_000


def split(rows: int, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Return the indices of the rows to train on, and of those held out, both ascending.

    A row's coin is a hash of the seed and the row's index. It depends on no row's values and on no
    other row, and so it is the same however many rows there are: a permutation would move all rows
    when one is added.

    Args:
        rows: number of rows.
        fraction: probability with which a row is held out.
        seed: the job's seed; another seed is another split.
    """
    held = np.empty(rows, dtype=bool)
    for start in range(0, rows, _BLOCK):
        stop = min(start + _BLOCK, rows)
        held[start:stop] = _uniform(np.arange(start, stop, dtype=np.uint64), seed) < fraction
    return np.flatnonzero(~held), np.flatnonzero(held)


def _uniform(index: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """Hash to [0, 1): SplitMix64 (Steele, Lea and Flood 2014), applied to the seed and then the index."""
    with np.errstate(over="ignore"):
        mixed = _mix(index + _mix(np.array([seed % 2**64], dtype=np.uint64)))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
