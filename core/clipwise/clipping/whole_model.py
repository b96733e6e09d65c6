"""The `torch.func` rule: per-unit gradients of a whole module, by `vmap` of `grad`.

A row reaches the module as a batch of one, so that modules that need a batch axis (Flatten, GroupNorm)
work, and nothing that a row computes can depend on another row.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from clipwise.clipping.batch import Rows
from clipwise.clipping.losses import Loss
from clipwise.clipping.parameters import Parameters
from clipwise.clipping.process_settings import no_fast_path, plain_attention
from clipwise.clipping.refusals import refusal_of
from clipwise.clipping.row_mode import RowMode
from clipwise.errors import ClipwiseError, InvalidInput

Row = tuple[tuple[Tensor, ...], dict[str, Tensor], tuple[Tensor, ...], Tensor, Tensor]
"""Positional inputs, inputs by name, targets, weight and dropout key: of one row, or stacked."""


@dataclass(frozen=True, kw_only=True)
class UnitGradients:
    """What the units of one chunk computed.

    Attributes:
        grads: canonical name to gradients (G, *shape) of the units' weighted, summed losses.
        losses: unweighted losses of the rows, (G * k,).
    """

    grads: dict[str, Tensor]
    losses: Tensor


def unit_gradients(
    module: nn.Module, loss: Loss, parameters: Parameters, rows: Rows, keys: Tensor, *, group: int
) -> UnitGradients:
    """Return the gradients of every unit of `group` consecutive rows.

    Args:
        module: any module; it is called with substituted parameters and left as it was.
        loss: `(outputs, targets) -> (B,)`.
        parameters: those of the module.
        rows: a number of rows that `group` divides.
        keys: dropout keys, (B,).
        group: rows per unit.

    Raises:
        UnsupportedModule: if `torch.func` cannot take the module.
    """

    def row_loss(trained: dict[str, Tensor], row: Row) -> tuple[Tensor, Tensor]:
        value = _loss_of_row(module, loss, parameters, trained, row)
        # A padding row's loss may be anything: 0 * inf is NaN, so it is replaced and not scaled.
        weight = row[3]
        return torch.where(weight == 0, torch.zeros_like(value), value) * weight, value

    stacked: Row = (rows.args, rows.kwargs, rows.targets, rows.weights, keys)
    per_row = vmap(grad(row_loss, has_aux=True), in_dims=(None, 0), randomness="different")
    with no_fast_path, plain_attention:
        try:
            grads, losses = per_row(parameters.trained, stacked)
        except (ClipwiseError, torch.OutOfMemoryError):
            raise
        except RuntimeError as error:
            if "can't allocate memory" in str(error):
                raise
            raise _explain(error, module, loss, parameters, stacked) from error
    if group > 1:
        padding = rows.weights == 0
        grads = {name: _sum_of_groups(gradient, padding, group) for name, gradient in grads.items()}
    return UnitGradients(grads=grads, losses=losses.detach())


def _sum_of_groups(gradient: Tensor, padding: Tensor, group: int) -> Tensor:
    """Return the sums (G, *shape) of the gradients (G * k, *shape) without those of padding."""
    mask = padding.reshape(-1, *(1 for _ in gradient.shape[1:]))
    kept = torch.where(mask, torch.zeros_like(gradient), gradient)
    return kept.reshape(-1, group, *gradient.shape[1:]).sum(1)


def _loss_of_row(
    module: nn.Module, loss: Loss, parameters: Parameters, trained: dict[str, Tensor], row: Row
) -> Tensor:
    args, kwargs, targets, _, key = row
    with RowMode(key):
        outputs = functional_call(
            module,
            parameters.named(trained),
            tuple(tensor.unsqueeze(0) for tensor in args),
            {name: tensor.unsqueeze(0) for name, tensor in kwargs.items()},
            tie_weights=False,
        )
        value = loss(outputs, *(target.unsqueeze(0) for target in targets))
    return require_row_losses(value, 1).squeeze(0)


def require_row_losses(value: Any, rows: int) -> Tensor:
    """Return what a loss gave, if it is one number for each row.

    Raises:
        InvalidInput: if it did not.
    """
    if not isinstance(value, Tensor) or value.shape != (rows,):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise InvalidInput(
            f"for {rows} rows the loss returned {shape}; it must return one number per row, ({rows},): "
            "use reduction='none' and take the mean over each row's own positions"
        )
    return value


def _explain(
    error: Exception, module: nn.Module, loss: Loss, parameters: Parameters, stacked: Row
) -> Exception:
    """Return the module's own error if it also fails on a plain row, else a refusal with its path."""
    args, kwargs, targets, weights, keys = stacked
    row: Row = (
        tuple(tensor[0] for tensor in args),
        {name: tensor[0] for name, tensor in kwargs.items()},
        tuple(tensor[0] for tensor in targets),
        weights[0],
        keys[0],
    )
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            _loss_of_row(module, loss, parameters, parameters.trained, row)
    except RuntimeError as own:
        return own
    return refusal_of(error, module)
