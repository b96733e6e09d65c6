"""The rule of every operation that has none of its own: `vmap` of `vjp` over that operation alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import vjp, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from clipwise.clipping.contributions import Contribution, Dense
from clipwise.clipping.rules.rule import Meeting, Rule

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode

_WRITERS = frozenset(
    {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__imatmul__", "__ipow__", "__setitem__"}
)


def writes(func: Callable[..., Any]) -> bool:
    """Tell whether `func` writes into its first argument."""
    name = getattr(func, "__name__", "").partition(".")[0]
    return name in _WRITERS or (name.endswith("_") and not name.endswith("__"))


def forward(
    capture: CaptureMode, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Meeting:
    """Run `func` as it is; what it writes in place is written to a copy first."""
    flat, spec = tree_flatten((args, kwargs))
    data = [i for i, value in enumerate(flat) if capture.is_data(value)]
    where = [i for i, value in enumerate(flat) if capture.is_weight(value)]
    physical = [capture.physical(flat[i]) for i in data]
    beside = next((tensor for tensor in physical if tensor.requires_grad), None)
    target = flat[0] if writes(func) else None
    if target is not None and not capture.is_data(target):
        raise RuntimeError("vmap: inplace arithmetic writes a sample's values into a tensor made without it")
    run = list(flat)
    with capture.whole_batch():
        for i in where:
            run[i] = capture.detached(flat[i], beside)
    if target is not None:
        run[0] = target.clone()
        # What is kept is what was there before.
        physical[0] = capture.physical(target.clone())
    run_args, run_kwargs = tree_unflatten(run, spec)
    outputs = func(*run_args, **run_kwargs)
    results, shape = tree_flatten(outputs if target is None else run[0])
    if target is None and not all(map(capture.is_data, filter(_is_tensor, results))):
        # It took no more than a shape from the data: what it made is a derived weight still.
        derived = tree_flatten(func(*args, **kwargs))[0]
        results = [made if capture.is_data(made) else one for one, made in zip(derived, results, strict=True)]
    places = [i for i, value in enumerate(results) if _has_place(capture, value)]
    for i in places:
        results[i] = capture.placed(results[i])

    def finish() -> Any:
        if target is not None:
            target.copy_(results[0])
            return target if outputs is not None else None
        return tree_unflatten(results, shape)

    constants = [None if i in data or i in where else value for i, value in enumerate(flat)]
    saved = (
        tuple(tensor.detach() for tensor in physical),
        _Call(func, spec, tuple(data), tuple(where), tuple(constants), tuple(places), target is not None),
        tuple(capture.axis(results[i]) for i in places),
    )
    return Meeting(
        weights=tuple(flat[i] for i in where),
        saved=saved,
        places=tuple(capture.unwrapped(results[i]) for i in places),
        finish=finish,
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _has_place(capture: CaptureMode, value: Any) -> bool:
    return capture.is_data(value) and capture.unwrapped(value).requires_grad


class _Call:
    """An operation as a function of its weights and of one row's data."""

    def __init__(
        self,
        func: Callable[..., Any],
        spec: Any,
        data: tuple[int, ...],
        where: tuple[int, ...],
        constants: tuple[Any, ...],
        places: tuple[int, ...],
        writes: bool,
    ) -> None:
        self._func, self._spec, self._data, self._where = func, spec, data, where
        self._constants, self._places, self._writes = constants, places, writes

    def __call__(self, weights: tuple[Tensor, ...], row: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        flat = list(self._constants)
        for i, value in zip(self._data, row, strict=True):
            flat[i] = value
        for i, value in zip(self._where, weights, strict=True):
            flat[i] = value
        if self._writes:
            flat[0] = flat[0].clone()
        args, kwargs = tree_unflatten(flat, self._spec)
        outputs = self._func(*args, **kwargs)
        results = tree_flatten(flat[0] if self._writes else outputs)[0]
        return tuple(results[i] for i in self._places)


def contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return what `vmap(vjp)` gives, summed over the rows of a unit."""
    rows, call, places = saved
    fixed = tuple(weight.detach() for weight in weights)
    missing = [gradient is None for gradient in gradients]
    if all(missing):
        return [None] * len(weights)

    def pulled(row: tuple[Tensor, ...], row_gradients: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        outputs, pull, *_ = vjp(lambda *values: call(values, row), *fixed)
        filled = tuple(
            torch.zeros_like(output) if gradient is None else gradient.to(output.dtype)
            for output, gradient in zip(outputs, row_gradients, strict=True)
        )
        found: tuple[Tensor, ...] = pull(filled)
        return found

    axes = tuple(None if lost else axis for lost, axis in zip(missing, places, strict=True))
    found = vmap(pulled, in_dims=(0, axes), randomness="different")(rows, tuple(gradients))
    return [Dense(_summed(gradient, units)) for gradient in found]


def _summed(gradient: Tensor, units: int) -> Tensor:
    if gradient.shape[0] == units:
        return gradient
    return gradient.reshape(units, -1, *gradient.shape[1:]).sum(1)


any_operation = Rule(name="any operation", forward=forward, contributions=contributions)
