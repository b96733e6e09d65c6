"""One call at a time on a module: while it runs, its buffers, or its parameters, are replaced by others."""

from collections.abc import Callable
from functools import wraps
from threading import Lock, RLock
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_GUARD = Lock()


class HasModule(Protocol):
    """What works on a module."""

    module: nn.Module


P = ParamSpec("P")
Owner = TypeVar("Owner", bound=HasModule)
Result = TypeVar("Result")


def in_turn(method: Callable[Concatenate[Owner, P], Result]) -> Callable[Concatenate[Owner, P], Result]:
    """Let a method wait until no other thread is in such a method for the same module."""

    @wraps(method)
    def waiting(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        with _GUARD:
            lock = _LOCKS.setdefault(self.module, RLock())
        with lock:
            return method(self, *args, **kwargs)

    return waiting
