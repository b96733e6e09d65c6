"""Dropout whose mask depends on (key of the step, row, call), and not on what else is in a microbatch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

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


def as_tensor(keys: Tensor | RowKeys) -> Tensor:
    """Return the keys (B,) themselves."""
    return keys if isinstance(keys, Tensor) else keys.tensor


def call_key(key: Tensor, call: int) -> Tensor:
    """Return the key of a row's `call`-th dropout, from 1, given the key of the row."""
    # As a tensor, because a Python number beyond 64 bits is refused where a tensor's wraps around.
    return key + torch.full_like(key, call) * _SECOND


def drop_elements(key: Tensor, x: Tensor, p: float = 0.5) -> Tensor:
    """Do `torch.nn.functional.dropout` with a mask of `key`."""
    return _scaled(x, _kept(key, x, x.shape, p), p)


def drop_channels(key: Tensor, x: Tensor, p: float = 0.5) -> Tensor:
    """Do `torch.nn.functional.dropout1d` and its kin, on (1, C, ...), with a mask of `key`."""
    return _scaled(x, _kept(key, x, _channels(x), p), p)


def drop_alpha(key: Tensor, x: Tensor, p: float = 0.5) -> Tensor:
    """Do `torch.nn.functional.alpha_dropout` with a mask of `key`."""
    return _saturated(x, _kept(key, x, x.shape, p), p)


def drop_alpha_channels(key: Tensor, x: Tensor, p: float = 0.5) -> Tensor:
    """Do `torch.nn.functional.feature_alpha_dropout`, on (1, C, ...), with a mask of `key`."""
    return _saturated(x, _kept(key, x, _channels(x), p), p)


def attend(
    key: Tensor | None,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    p: float,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Do `scaled_dot_product_attention` with a dropout mask of `key`, or without dropout."""
    if enable_gqa:
        repeats = query.shape[-3] // keys.shape[-3]
        keys, values = (tensor.repeat_interleave(repeats, -3) for tensor in (keys, values))
    size = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query * size) @ keys.transpose(-2, -1)
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    weights = torch.softmax(scores, -1)
    return (weights if key is None else drop_elements(key, weights, p)) @ values


DROPOUTS: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    functional.dropout: drop_elements,
    torch.dropout: drop_elements,
    torch.dropout_: drop_elements,
    functional.dropout1d: drop_channels,
    functional.dropout2d: drop_channels,
    functional.dropout3d: drop_channels,
    torch.feature_dropout: drop_channels,
    torch.feature_dropout_: drop_channels,
    functional.alpha_dropout: drop_alpha,
    torch.alpha_dropout: drop_alpha,
    torch.alpha_dropout_: drop_alpha,
    functional.feature_alpha_dropout: drop_alpha_channels,
    torch.feature_alpha_dropout: drop_alpha_channels,
    torch.feature_alpha_dropout_: drop_alpha_channels,
}
"""Every form of dropout of torch, and the same with a mask of a key."""


def dropped(
    func: Callable[..., Tensor],
    next_key: Callable[[], Tensor],
    input: Tensor,  # noqa: A002
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    train: bool | None = None,
) -> Tensor:
    """Do `func`, one of `DROPOUTS`, as it was called; a key is asked for where anything is dropped."""
    if not (training if train is None else train) or p == 0:
        return input
    found = DROPOUTS[func](next_key(), input, p)
    if inplace or func.__name__.endswith("_"):
        return input.copy_(found)
    return found


def _channels(x: Tensor) -> torch.Size:
    return torch.Size((*x.shape[:2], *(1 for _ in x.shape[2:])))


def _kept(key: Tensor, x: Tensor, shape: torch.Size, p: float) -> Tensor:
    return _uniform(key, shape, x.device) >= p


def _scaled(x: Tensor, kept: Tensor, p: float) -> Tensor:
    return torch.where(kept, x / (1.0 - p), 0.0) if p < 1 else torch.zeros_like(x)


# Where the SELU saturates (Klambauer et al., 2017).
_SATURATION = 1.7580993408473766


def _saturated(x: Tensor, kept: Tensor, p: float) -> Tensor:
    """Return what was kept beside saturated elements, shifted and scaled to the mean and variance of x."""
    if p == 1:
        return torch.zeros_like(x)
    scale = 1.0 / math.sqrt((_SATURATION**2 * p + 1.0) * (1.0 - p))
    return torch.where(kept, x, -_SATURATION) * scale + _SATURATION * scale * p


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
