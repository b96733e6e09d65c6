"""The slow oracle: clipped sums by a plain loop over units, with nothing but autograd."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from clipwise.clipping.dropout import row_keys
from clipwise.clipping.row_mode import RowMode

Clip: TypeAlias = Callable[[dict[str, float]], dict[str, float]]
"""From one unit's norms by parameter to its factors by parameter."""


def flat(max_norm: float) -> Clip:
    """Return clipping by the joint norm."""

    def clip(norms: dict[str, float]) -> dict[str, float]:
        joint = sum(norm**2 for norm in norms.values()) ** 0.5
        return dict.fromkeys(norms, 1.0 if joint <= max_norm else max_norm / joint)

    return clip


def automatic(max_norm: float, stability: float) -> Clip:
    """Return normalisation of the joint norm."""

    def clip(norms: dict[str, float]) -> dict[str, float]:
        joint = sum(norm**2 for norm in norms.values()) ** 0.5
        return dict.fromkeys(norms, max_norm / (joint + stability))

    return clip


def per_group(bounds: dict[tuple[str, ...], float]) -> Clip:
    """Return clipping of the named parameters by their joint norm, each group with its bound."""

    def clip(norms: dict[str, float]) -> dict[str, float]:
        factors = {}
        for names, bound in bounds.items():
            factors |= flat(bound)({name: norms[name] for name in names})
        return factors

    return clip


def per_parameter(max_norm: float) -> Clip:
    """Return clipping of each parameter by its own norm, with one bound for each."""
    return lambda norms: {name: flat(max_norm)({name: norm})[name] for name, norm in norms.items()}


def storages(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the trainable parameters by first name; those that are one storage together."""
    places: dict[tuple[Any, ...], str] = {}
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            place = (parameter.data_ptr(), parameter.shape, parameter.stride())
            found.setdefault(places.setdefault(place, name), []).append(parameter)
    return found


def unit_gradient(
    module: nn.Module,
    loss: Callable[..., Tensor],
    inputs: Any,
    targets: Tensor,
    weights: Tensor,
    unit: Sequence[int],
    keys: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the gradient of the weighted, summed loss of the rows of one unit."""
    named = storages(module)
    total = torch.zeros((), dtype=weights.dtype)
    for i in unit:
        if weights[i] == 0:
            continue
        with nullcontext() if keys is None else RowMode(keys[i]):
            if isinstance(inputs, dict):
                outputs = module(**{name: value[i : i + 1] for name, value in inputs.items()})
            elif isinstance(inputs, tuple):
                outputs = module(*(value[i : i + 1] for value in inputs))
            else:
                outputs = module(inputs[i : i + 1])
            total = total + loss(outputs, targets[i : i + 1])[0] * weights[i]
    if not total.requires_grad:
        return {name: torch.zeros_like(parameters[0]) for name, parameters in named.items()}
    flat = [parameter for parameters in named.values() for parameter in parameters]
    grads = iter(torch.autograd.grad(total, flat, allow_unused=True))
    found = {name: torch.zeros_like(parameters[0]) for name, parameters in named.items()}
    for name, parameters in named.items():
        for grad in (next(grads) for _ in parameters):
            found[name] = found[name] if grad is None else found[name] + grad
    return found


def clipped_sum(
    module: nn.Module,
    loss: Callable[..., Tensor],
    batch: tuple[Any, ...],
    max_norm: float | Clip | None,
    *,
    group: int = 1,
    key: int | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the sum of the units' clipped gradients and their norms before clipping, (G,), in float64."""
    clip = flat(max_norm) if isinstance(max_norm, int | float) else max_norm
    inputs, targets, weights = batch
    rows = targets.shape[0]
    keys = None if key is None else row_keys(key, rows)
    total = {name: torch.zeros_like(group_[0]) for name, group_ in storages(module).items()}
    norms = []
    for start in range(0, rows, group):
        unit = range(start, start + group)
        grads = unit_gradient(module, loss, inputs, targets, weights, unit, keys)
        own = {name: float(grad.double().norm()) for name, grad in grads.items()}
        factors = dict.fromkeys(own, 1.0) if clip is None else clip(own)
        for name, grad in grads.items():
            total[name] = total[name] + factors[name] * grad
        norms.append(torch.cat([grad.double().flatten() for grad in grads.values()]).norm())
    return total, torch.stack(norms) if norms else torch.zeros(0, dtype=torch.float64)


def relative_error(a: Tensor, b: Tensor) -> float:
    """Return `||a - b|| / ||b||`, or `||a||` where b is zero."""
    size = float(b.double().norm())
    return float((a.double() - b.double()).norm()) / (size or 1.0)
