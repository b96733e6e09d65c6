"""Dropout whose mask depends on (key of the step, row, call), and not on what else is in a microbatch."""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

# Constants of splitmix64 (Steele, Lea and Flood, 2014), as signed numbers.
_GOLDEN = -7046029254386353131
_FIRST = -4658895280553007687
_SECOND = -7723592293110705685


def row_keys(key: int, rows: int, device: torch.device | None = None) -> Tensor:
    """Return one key (B,) for each row of a batch, derived from the key of the step."""
    return _mix(torch.arange(rows, dtype=torch.int64, device=device) * _GOLDEN + key)


@final
@dataclass(frozen=True, kw_only=True)
class RowKeys:
    """The keys of some rows of a batch, made when a dropout asks for them.

    Attributes:
        key: of the step.
        start: first row.
        stop: row after the last one.
        device: where the keys are wanted.
    """

    key: int
    start: int
    stop: int
    device: torch.device | None = None

    @cached_property
    def tensor(self) -> Tensor:
        """The keys (B,)."""
        return row_keys(self.key, self.stop, self.device)[self.start :]


def call_key(key: Tensor, call: int) -> Tensor:
    """Return the key of a row's `call`-th dropout, from 1, given the key of the row."""
    # As a tensor, because a Python number beyond 64 bits is refused where a tensor's wraps around.
    return key + torch.full_like(key, call) * _SECOND


def drop_elements(
    key: Tensor, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Do `torch.nn.functional.dropout` with a mask of `key`."""
    return _drop(key, x, x.shape, p, training, inplace)


def drop_channels(
    key: Tensor, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Do `torch.nn.functional.dropout1d` and its kin, on (1, C, ...), with a mask of `key`."""
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
