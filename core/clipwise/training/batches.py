"""From drawn rows to tensors: physical batches, all of one padded size."""

import math
from collections.abc import Iterator
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LARGEST_PHYSICAL_BATCH = 1024


class Rows(Protocol):
    """Encoded rows that can be sampled at random."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def take(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return the inputs (B, ...) and targets (B,) of the rows at `indices`, in that order."""
        ...


def physical_size(expected: float, *, varies: bool, microbatch_size: int | None = None) -> int:
    """Return how many rows every physical batch has.

    Args:
        expected: the expected size of a logical batch.
        varies: whether its size is random. Room for three standard deviations is then left, so that
            nearly every logical batch fits into as few physical ones as the average does.
        microbatch_size: an upper limit; None leaves the choice here.
    """
    room = math.ceil(expected + 3 * math.sqrt(expected)) if varies else math.ceil(expected)
    limit = microbatch_size or LARGEST_PHYSICAL_BATCH
    return max(1, math.ceil(room / math.ceil(room / limit)))


@final
class PhysicalBatches:
    """Cuts logical batches into physical ones of one size, padded with rows of weight 0.

    Kernels choose their order of summation by the size of what they are given: with one size the sum
    over a row does not change when other rows join (trap 39). An empty logical batch is one physical
    batch of padding.

    Args:
        rows: where the rows come from.
        indices: which of them are drawn from; positions of a logical batch count within these.
        size: rows of every physical batch.
        dtype: of the inputs, and of the targets where those are not classes.
        device: where the model is.
    """

    def __init__(
        self,
        rows: Rows,
        indices: npt.NDArray[np.int64],
        *,
        size: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self._device = device
        self._rows = rows
        self._indices = indices
        self._size = size
        self._dtype = dtype

    def __len__(self) -> int:
        return len(self._indices)

    def cut(self, positions: npt.NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield `(inputs, targets, weights)` of the rows at `positions`; weights are 1, and 0 for padding."""
        for start in range(0, max(1, len(positions)), self._size):
            yield self._padded(self._indices[positions[start : start + self._size]])

    def _padded(self, indices: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        inputs, targets = self._rows.take(indices)
        weights = torch.zeros(self._size, dtype=self._dtype)
        weights[: len(indices)] = 1.0
        return self._tensor(inputs), self._tensor(targets), weights.to(self._device)

    def _tensor(self, values: npt.NDArray[Any]) -> Tensor:
        whole = values.dtype.kind in "iu"
        padded = torch.zeros((self._size, *values.shape[1:]), dtype=torch.int64 if whole else self._dtype)
        padded[: len(values)] = torch.from_numpy(values)
        return padded.to(self._device)
