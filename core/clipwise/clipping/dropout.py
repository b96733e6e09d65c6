"""Dropout whose mask depends on (key of the step, row, call), and not on what else is in a microbatch."""

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Constants of splitmix64 (Steele, Lea and Flood, 2014), as signed numbers.
_GOLDEN = -7046029254386353131
_FIRST = -4658895280553007687
_SECOND = -7723592293110705685


def row_keys(key: int, rows: int, device: torch.device | None = None) -> Tensor:
    """Return one key (B,) for each row of a batch, derived from the key of the step."""
    return _mix(torch.arange(rows, dtype=torch.int64, device=device) * _GOLDEN + key)


@final
class KeyedDropout(TorchFunctionMode):
    """Within it, the dropout functions of torch draw their masks from the key of a single row.

    Dropout inside of composite operations (attention, recurrent layers) is drawn by torch: different
    for every row, and dependent on the microbatch.
    """

    def __init__(self, key: Tensor) -> None:
        super().__init__()
        self._key = key
        self._calls = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if "input" in kwargs:
            args = (kwargs.pop("input"), *args)
        drop = _DROPOUTS.get(func)
        if drop is None:
            return func(*args, **kwargs)
        self._calls += 1
        return drop(self._key + self._calls * _SECOND, *args, **kwargs)


def _elements(key: Tensor, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return _drop(key, x, x.shape, p, training, inplace)


def _channels(key: Tensor, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    shape = torch.Size((*x.shape[:2], *(1 for _ in x.shape[2:])))
    return _drop(key, x, shape, p, training, inplace)


def _drop(key: Tensor, x: Tensor, shape: torch.Size, p: float, training: bool, inplace: bool) -> Tensor:
    if not training or p == 0:
        return x
    kept = _uniform(key, shape, x.device) >= p
    dropped = torch.where(kept, x / (1.0 - p), 0.0) if p < 1 else torch.zeros_like(x)
    return x.copy_(dropped) if inplace else dropped


def _uniform(key: Tensor, shape: torch.Size, device: torch.device) -> Tensor:
    """Return float32 numbers in [0, 1) of `shape`, a function of `key` alone."""
    index = torch.arange(shape.numel(), dtype=torch.int64, device=device).reshape(shape)
    return _shift(_mix(key + index * _GOLDEN), 40).float() * 2.0**-24


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    # int64 shifts keep the sign; the mask makes the shift a logical one.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


_DROPOUTS: dict[Any, Callable[..., Tensor]] = {
    functional.dropout: _elements,
    torch.dropout: _elements,
    functional.dropout1d: _channels,
    functional.dropout2d: _channels,
    functional.dropout3d: _channels,
}
