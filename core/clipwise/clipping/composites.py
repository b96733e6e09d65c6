"""Functions of torch that are written in Python, opened up.

While a `TorchFunctionMode` looks at such a function, the mode is off inside of it. A copy whose globals
say that nobody is looking lets the mode see what the function itself calls. Source: the protocol of
`torch.overrides`.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

_MODULES = ("torch.nn.functional", "torch.functional")
_COPIES: dict[Any, Callable[..., Any] | None] = {}


def unguarded(func: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return a copy of a Python function of torch that does not hand itself to a mode, or None."""
    try:
        return _COPIES[func]
    except KeyError:
        found = _COPIES[func] = _copied(func)
        return found
    except TypeError:
        return None


def _copied(func: Callable[..., Any]) -> Callable[..., Any] | None:
    wrapped = getattr(func, "__wrapped__", func)
    if not isinstance(wrapped, FunctionType) or not wrapped.__module__ not in _MODULES:
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
