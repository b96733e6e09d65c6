"""Activation checkpointing, done without: what it would compute again is kept.

It would be computed again outside of the batching and of the modes that a pass runs under. Keeping it costs
memory that the size of a chunk bounds. Of hooks on saved tensors only the innermost count, so an operation
that runs under hooks that do nothing never reaches those of checkpointing, and nothing is changed for
anybody else.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import checkpoint

_NOTHING = nullcontext()
_innermost: Callable[[bool], Any] = torch._C._autograd._top_saved_tensors_default_hooks  # noqa: SLF001


def kept() -> AbstractContextManager[Any]:
    """Return what an operation runs in, so that its tensors are kept."""
    hooks = _innermost(True)
    if hooks is None or hooks[0].__module__ != checkpoint.__name__:
        return _NOTHING
    return saved_tensors_hooks(_itself, _itself)


def _itself(tensor: Tensor) -> Tensor:
    return tensor
