"""A batch as the engine sees it: inputs, targets and weights, row by row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from clipwise.errors import InvalidInput

Inputs: TypeAlias = Tensor | tuple[Tensor, ...] | list[Tensor] | Mapping[str, Tensor]
Batch: TypeAlias = tuple[Inputs, Tensor | None] | tuple[Inputs, Tensor | None, Tensor | None]
"""`(inputs, targets)` or `(inputs, targets, sample_weights)`; every tensor has B rows.

Inputs are one tensor, a tuple (positional arguments) or a mapping (keyword arguments) of tensors.
Weights scale a row's loss before clipping. A row of weight 0 is padding and contributes nothing.
"""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A checked batch of `size` rows.

    Attributes:
        args: positional inputs of the module, each (B, ...).
        kwargs: inputs by name, each (B, ...).
        targets: () or one tensor (B, ...).
        weights: (B,).
        unweighted: whether all weights are known to be 1, so that there is no padding.
    """

    args: tuple[Tensor, ...]
    kwargs: dict[str, Tensor]
    targets: tuple[Tensor, ...]
    weights: Tensor
    unweighted: bool = False

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.weights.shape[0]

    @property
    def target(self) -> Tensor | None:
        """What the loss gets beside the outputs."""
        return self.targets[0] if self.targets else None

    def slice(self, start: int, stop: int) -> "Rows":
        """Return the rows from `start` to `stop`."""
        return Rows(
            args=tuple(tensor[start:stop] for tensor in self.args),
            kwargs={name: tensor[start:stop] for name, tensor in self.kwargs.items()},
            targets=tuple(tensor[start:stop] for tensor in self.targets),
            weights=self.weights[start:stop],
            unweighted=self.unweighted,
        )

    def take(self, index: Tensor) -> "Rows":
        """Return the rows with the given indices."""
        return Rows(
            args=tuple(tensor[index] for tensor in self.args),
            kwargs={name: tensor[index] for name, tensor in self.kwargs.items()},
            targets=tuple(tensor[index] for tensor in self.targets),
            weights=self.weights[index],
            unweighted=self.unweighted,
        )

    def cloned(self) -> "Rows":
        """Return a copy, which may be written into."""
        return Rows(
            args=tuple(tensor.clone() for tensor in self.args),
            kwargs={name: tensor.clone() for name, tensor in self.kwargs.items()},
            targets=tuple(tensor.clone() for tensor in self.targets),
            weights=self.weights,
            unweighted=self.unweighted,
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """Return every tensor of the batch."""
        return (*self.args, *self.kwargs.values(), *self.targets, self.weights)


def as_rows(batch: Any) -> Rows:
    """Check `batch` and return its rows.

    Raises:
        InvalidInput: if it is no `Batch`, or its parts have different numbers of rows.
    """
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        raise InvalidInput("a batch is (inputs, targets) or (inputs, targets, sample_weights)")
    inputs, targets, weights = (*batch, None)[:3]
    args, kwargs = _arguments(inputs)
    target = () if targets is None else (_tensor(targets, "targets"),)
    named = [("inputs", tensor) for tensor in args]
    named += [(f"input '{name}'", tensor) for name, tensor in kwargs.items()]
    if not named:
        raise InvalidInput("a batch's inputs are empty; give at least one tensor")
    named += [("targets", tensor) for tensor in target]
    for name, tensor in named:
        if tensor.ndim == 0:
            raise InvalidInput(f"{name} of a batch have no dimension of rows; give a tensor (B, ...)")
    size = named[0][1].shape[0]
    row_weights = _weights(weights, size, named[0][1].device)
    for name, tensor in named:
        if tensor.shape[0] != size:
            raise InvalidInput(f"{name} of a batch have {tensor.shape[0]} rows, the first input has {size}")
    return Rows(args=args, kwargs=kwargs, targets=target, weights=row_weights, unweighted=weights is None)


def _arguments(inputs: Any) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    if isinstance(inputs, Mapping):
        return (), {str(name): _tensor(value, f"input '{name}'") for name, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(_tensor(value, "inputs") for value in inputs), {}
    return (_tensor(inputs, "inputs"),), {}


def _weights(weights: Any, size: int, device: torch.device) -> Tensor:
    if weights is None:
        return torch.ones(size, device=device)
    tensor = _tensor(weights, "sample_weights")
    if tensor.shape != (size,):
        raise InvalidInput(
            f"sample_weights have shape {tuple(tensor.shape)}; give one number per row: ({size},)"
        )
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())


def _tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if type(value).__module__ == "numpy":
        return torch.as_tensor(value)
    raise InvalidInput(f"{name} of a batch are a {type(value).__name__}; give tensors or NumPy arrays")
