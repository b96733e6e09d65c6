"""Large tensors on a processor, without most of the page faults of their memory.

NumPy asks the system for huge pages where a tensor has several megabytes, and takes zeros that the system has
made already; torch's own allocator on a processor does neither.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LARGE_BYTES = 4 * 2**20
"""NumPy asks for huge pages from this size on."""
_TYPES = {torch.float32: np.float32, torch.float64: np.float64}


def zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros of `shape`."""
    size = torch.Size(shape)
    if device.type != "cpu" or dtype not in _TYPES or size.numel() * dtype.itemsize < LARGE_BYTES:
        return torch.zeros(size, dtype=dtype, device=device)
    return _made(lambda: np.zeros(size, _TYPES[dtype]))


def empty(numel: int) -> Tensor:
    """Return memory (numel,) in float32 on the processor; it holds anything."""
    return _made(lambda: np.empty(numel, np.float32))


def _made(array: Callable[[], npt.NDArray[Any]]) -> Tensor:
    try:
        return torch.from_numpy(array())
    except MemoryError as error:  # what asks for less and tries again knows torch's own error
        raise torch.OutOfMemoryError(f"can't allocate memory: {error}") from error
