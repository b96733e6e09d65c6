"""How much a computation makes of the rounding of its operations."""

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

STEP = 2.0**-30


@final
class Rounding(TorchDispatchMode):
    """Within it, every floating-point result is off by up to `STEP`, relatively, at random.

    Source: Monte Carlo arithmetic (Parker, 1997).
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        if func.is_view:
            return results
        for value in tree_leaves(results):
            if isinstance(value, Tensor) and value.is_floating_point() and 0 not in value.stride():
                noise = torch.rand(value.shape, generator=self._generator, dtype=torch.float64)
                value.mul_(1 + (2 * STEP * (noise - 0.5)).to(value.dtype))
        return results


def amplification(computed: Callable[[], dict[str, Tensor]]) -> dict[str, float]:
    """Return how many times `STEP` each result moves, relatively, if every operation is off by `STEP`."""
    exact = computed()
    moved = dict.fromkeys(exact, 0.0)
    for seed in range(3):
        with Rounding(seed):
            shaken = computed()
        for name, value in exact.items():
            size = float(value.norm())
            change = float((shaken[name] - value).norm())
            moved[name] = max(moved[name], change / size / STEP if size else float("inf") * bool(change))
    return moved
