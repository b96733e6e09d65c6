"""Functions of torch that are made of simpler ones, opened up.

While a `TorchFunctionMode` looks at such a function, the mode is off inside of it. A copy whose globals
say that nobody is looking lets the mode see what the function itself calls. Source: the protocol of
`torch.overrides`.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from clipwise.clipping.rules.aten import embedding

_MODULES = ("torch.nn.functional", "torch.functional")


def unguarded(func: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return what does the same as a function of torch by calling simpler ones, or None.

    That is a sum of products written as such, or a copy of a Python function that does not hand itself to
    a mode.
    """
    try:
        return _COPIES[func]
    except KeyError:
        found = _COPIES[func] = _copied(func)
        return found
    except TypeError:
        return None


def _copied(func: Callable[..., Any]) -> Callable[..., Any] | None:
    wrapped = getattr(func, "__wrapped__", func)
    if not isinstance(wrapped, FunctionType) or wrapped.__module__ not in _MODULES:
        return None
    guards = {name for name in wrapped.__globals__ if name.startswith("has_torch_function")}
    if not guards & set(wrapped.__code__.co_names):
        return None
    silenced = {**wrapped.__globals__, **dict.fromkeys(guards, _nobody)}
    copy = FunctionType(
        wrapped.__code__, silenced, wrapped.__name__, wrapped.__defaults__, wrapped.__closure__
    )
    copy.__kwdefaults__ = wrapped.__kwdefaults__
    return copy


def _nobody(*_args: Any) -> bool:
    return False


def _added(
    input: Tensor,  # noqa: A002
    one: Tensor,
    other: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Tensor:
    product = torch.matmul(one, other)
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else torch.add(product, input, alpha=beta)


def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = functional.bilinear(input1, input2, weight)
    return product if bias is None else product + bias


_bag: Any = _copied(functional.embedding_bag)


def _embedding_bag(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    offsets: Tensor | None = None,
    *args: Any,
    mode: str = "mean",
    padding_idx: int | None = None,
    **more: Any,
) -> Tensor:
    if mode != "max" or offsets is not None or args:
        found: Tensor = _bag(input, weight, offsets, *args, mode=mode, padding_idx=padding_idx, **more)
        return found
    looked_up = functional.embedding(input, weight)
    if padding_idx is None:
        return looked_up.max(1).values
    left_out = (input == padding_idx % weight.shape[0])[:, :, None]
    largest = torch.where(left_out, -torch.inf, looked_up).max(1).values
    return torch.where(left_out.all(1), 0.0, largest)


_COPIES: dict[Any, Callable[..., Any] | None] = {
    torch.addmm: _added,
    torch.addmv: _added,
    torch.baddbmm: _added,
    torch.bilinear: _bilinear,
    functional.embedding_bag: _embedding_bag,
    Tensor.addmm: _added,
    Tensor.addmv: _added,
    Tensor.baddbmm: _added,
    torch.ops.aten.addmm.default: _added,
    torch.ops.aten.addmv.default: _added,
    torch.ops.aten.baddbmm.default: _added,
    torch.ops.aten.bilinear.default: _bilinear,
    torch.ops.aten.embedding.default: embedding,
}
