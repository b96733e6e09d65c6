"""Memory of instantiated gradients on a processor: made in pieces, and used again by the next chunk.

What is allocated anew comes from the system page by page, and the page faults of a large tensor take as long
as the product that fills it (18.7 ms against 8.9 ms for 64 gradients of 768 x 192). An ordinary step knows no
tensors of this size, so the allocator gives them back as soon as they are freed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from typing import final

import torch
from torch import Tensor

from clipwise.clipping.large_tensors import empty

PART_BYTES = 16 * 2**20
"""Gradients of one tensor: without a workspace, malloc gives larger ones (32 MiB) back at once."""
CACHED_BYTES = 8 * 2**20
"""Gradients that are made at a time, so that their norms are read from the processor's cache."""
BLOCK = 16 * 2**20
"""Numbers that a workspace asks for at a time, where nothing asks it for more."""
ALIGNED = 16
"""Every tensor begins at a multiple of so many numbers."""


@final
class Workspace:
    """Keeps the memory that the chunks of one call, and of the next, take in turn.

    A chunk takes tensors one after another, and the next one begins again where the first began: nothing
    of a chunk may be used after it.
    """

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []
        self._reached: list[int] = []
        self._taken: list[bool] = []
        self._place = self._used = 0

    def __reduce__(self) -> tuple[type["Workspace"], tuple[()]]:
        """Be empty in a copy or in a file: what is here are gradients of rows."""
        return Workspace, ()

    @property
    def held(self) -> int:
        """Bytes that have been in use and are kept."""
        return 4 * sum(self._reached)

    @contextmanager
    def chunk(self) -> Iterator[None]:
        """Begin a chunk, whose contributions take their memory from here."""
        self._place = self._used = 0
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def end(self) -> None:
        """Let go of what no chunk has taken since the last end."""
        taken = [place for place, one in enumerate(self._taken) if one]
        self._blocks = [self._blocks[place] for place in taken]
        self._reached = [self._reached[place] for place in taken]
        self._taken = [False] * len(taken)

    def clear(self) -> None:
        """Let go of everything."""
        self._blocks.clear()
        self._reached.clear()
        self._taken.clear()
        self._place = self._used = 0

    def take(self, numel: int) -> Tensor:
        """Return memory (numel,) in float32; it holds anything."""
        while self._place < len(self._blocks) and self._used + numel > self._blocks[self._place].numel():
            self._place, self._used = self._place + 1, 0
        if self._place == len(self._blocks):
            self._blocks.append(empty(max(numel, BLOCK)))
            self._reached.append(0)
            self._taken.append(False)
        found = self._blocks[self._place][self._used : self._used + numel]
        self._used += -(-numel // ALIGNED) * ALIGNED
        self._reached[self._place] = max(self._reached[self._place], self._used)
        self._taken[self._place] = True
        return found


_CURRENT: ContextVar[Workspace | None] = ContextVar("workspace", default=None)


def new_part(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return memory of `shape`, for gradients of the type and device of `like`; it holds anything."""
    if torch.compiler.is_compiling() or like.dtype != torch.float32 or like.device.type != "cpu":
        return like.new_empty(shape)
    workspace = _CURRENT.get()
    if workspace is None:
        return like.new_empty(shape)
    return workspace.take(prod(shape)).view(shape)


def steps(size: int, step: int) -> list[tuple[int, int]]:
    """Return the beginnings and ends of slices of `size` things, of at least one and about `step` each."""
    step = max(1, step)
    return [(start, min(start + step, size)) for start in range(0, size, step)]
