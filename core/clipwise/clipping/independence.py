"""The leave-one-out probe: a row's gradient must not change when other rows do."""

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clipwise.clipping.batch import Rows
from clipwise.clipping.losses import Loss
from clipwise.clipping.parameters import parameters_of
from clipwise.clipping.refusals import refusal_of
from clipwise.clipping.whole_model import require_row_losses
from clipwise.errors import ClipwiseError, UnsupportedModule

TOLERANCE = 1e-4
"""Relative. Kernels that depend on the batch's size move a row by 1e-7; mixing moves it by far more."""


def require_independent(module: nn.Module, loss: Loss, rows: Rows) -> None:
    """Check that a row's gradient is the same before, and behind, two different companions.

    Both places are looked at: what runs along the rows, like a recurrent layer, moves only later rows. Up to
    three rows are looked at: the one that holds a batch's largest number is its own maximum.

    Args:
        module: run as it is, in the mode that it is in; its buffers stay as they are.
        loss: `(outputs, targets) -> (B,)`; it is checked too.
        rows: at least one row; companions are other rows, or the first one changed.

    Raises:
        UnsupportedModule: if it is not; the path is the innermost part that mixes samples, if one can be
            found.
    """
    for subject, place in product(range(min(3, rows.size)), (0, 1)):
        turned = _turned(rows, subject)
        pairs = [_pair(turned, _companion(turned, i), place) for i in range(2)]
        beside_one, beside_other = (_gradient_at(module, loss, pair, place) for pair in pairs)
        if not _same(beside_one, beside_other):
            raise UnsupportedModule(
                _mixing_path(module, pairs, place),
                "the gradient of one row changes when another row of the batch does, so it mixes samples; "
                "compute statistics over a row's own axes, and keep the first axis of every tensor for the "
                "rows",
            )


def _turned(rows: Rows, by: int) -> Rows:
    """Return `rows` with the row at `by` as the first one."""
    return Rows(
        args=tuple(tensor.roll(-by, 0) for tensor in rows.args),
        kwargs={name: tensor.roll(-by, 0) for name, tensor in rows.kwargs.items()},
        targets=tuple(tensor.roll(-by, 0) for tensor in rows.targets),
        weights=rows.weights.roll(-by, 0),
    )


def _companion(rows: Rows, which: int) -> Rows:
    """Return a row that differs from the first; another for each `which`."""
    if rows.size > 2:
        return rows.slice(1 + which, 2 + which)
    first = rows.slice(0, 1)
    if which == 0:
        return first
    return Rows(
        args=tuple(map(_changed, first.args)),
        kwargs={name: _changed(tensor) for name, tensor in first.kwargs.items()},
        targets=first.targets,
        weights=first.weights,
    )


def _changed(tensor: Tensor) -> Tensor:
    # Integers may be indices, so only 0 is known to be allowed.
    return -2 * tensor + 0.5 if tensor.is_floating_point() else torch.zeros_like(tensor)


def _pair(rows: Rows, companion: Rows, place: int) -> Rows:
    """Return two rows: the first of `rows` at `place`, the companion at the other one."""

    def join(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([b, a[:1]] if place else [a[:1], b])

    return Rows(
        args=tuple(map(join, rows.args, companion.args)),
        kwargs={name: join(tensor, companion.kwargs[name]) for name, tensor in rows.kwargs.items()},
        targets=tuple(map(join, rows.targets, companion.targets)),
        weights=join(rows.weights, companion.weights),
    )


def _gradient_at(module: nn.Module, loss: Loss, rows: Rows, place: int) -> tuple[Tensor, ...]:
    parameters = parameters_of(module)
    trained = {name: tensor.requires_grad_() for name, tensor in parameters.trained.items()}
    # One seed, so that dropout gives the row one mask beside either companion.
    with torch.random.fork_rng(devices=()), torch.enable_grad():
        torch.manual_seed(0)
        outputs = functional_call(
            module, parameters.named(trained), rows.args, rows.kwargs, tie_weights=False
        )
        losses = require_row_losses(loss(outputs, *rows.targets), 2)
        try:
            gradients = torch.autograd.grad(
                losses[place], list(trained.values()), allow_unused=True, materialize_grads=True
            )
        except RuntimeError as error:
            if "use_reentrant" in str(error):
                raise refusal_of(error, module) from error
            raise
    return (losses[place].detach(), *(gradient.detach() for gradient in gradients))


def _same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    if len(a) != len(b):
        return False
    return all(_close(one, other) for one, other in zip(a, b, strict=True))


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return bool((a == b).all())
    size = torch.maximum(a.abs().amax(), b.abs().amax()) if a.numel() else torch.zeros(())
    return bool(((a - b).abs() <= TOLERANCE * size + torch.finfo(a.dtype).tiny).all())


def _mixing_path(module: nn.Module, pairs: list[Rows], place: int) -> str:
    """Return the first part, in order of completion, whose row at `place` depends on the other.

    Looks at a copy of the module, so that no hook is ever on the original.
    """
    try:
        double = copy.deepcopy(module)
        beside_one, beside_other = (_rows_at(double, pair, place) for pair in pairs)
    except ClipwiseError:
        raise
    except Exception:  # a module that cannot be copied, or keeps no order: the path stays unknown
        return ""
    for (path, one), (_, other) in zip(beside_one, beside_other, strict=False):
        if not _same(one, other):
            return path
    return ""


def _rows_at(module: nn.Module, rows: Rows, place: int) -> list[tuple[str, tuple[Tensor, ...]]]:
    seen: list[tuple[str, tuple[Tensor, ...]]] = []

    def record(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple | list) else (output,)
            kept = (t for t in tensors if isinstance(t, Tensor) and t.ndim and t.shape[0] == rows.size)
            seen.append((path, tuple(tensor[place].detach().clone() for tensor in kept)))

        return hook

    handles = [part.register_forward_hook(record(path)) for path, part in module.named_modules()]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            module(*rows.args, **rows.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen
