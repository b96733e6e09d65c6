"""Tensors that a module makes without its rows and then fills with what rows computed.

`out = torch.zeros(1, T, H); out[:, t] = h` works on a batch, because the tensor has a place for every row.
Under batching it has none, until each row is given a copy of its own. Only tensors that are written to need
that (a causal mask for each row would be a waste), and which these are is not known when they are made. So
a pass that fails at such a write is begun again, and looks out for where in the module's code the tensor
was made; from then on what is made there has a copy for each row.
"""

from types import CodeType, FrameType
from typing import Any, TypeAlias, final

from torch import Tensor

Site: TypeAlias = tuple[CodeType, int]
"""A function's code and the position of a call in it."""

_SKIPPED = frozenset({"torch.overrides", "torch.nn.functional"})


class NeedsOwnCopy(RuntimeError):
    """A pass failed because a tensor needs a copy for each row; begun again, it will have one."""


@final
class OwnCopies:
    """What a module writes into: tensors made somewhere in its code, its inputs.

    Attributes:
        inputs: whether a pass needs copies of the rows, which are the caller's own: true until one has
            shown that it does not.
    """

    def __init__(self) -> None:
        self.inputs = True
        self._sites: set[Site] = set()
        self._looking = False
        self._made: dict[int, tuple[Tensor, Site]] = {}

    @property
    def watching(self) -> bool:
        """Whether `wanted` is to be asked about every tensor that is made without the rows."""
        return self._looking or bool(self._sites)

    def wanted(self, made: Tensor, inputs: tuple[Any, ...], frame: FrameType | None) -> bool:
        """Tell whether `made`, which an operation gave its caller's `frame`, needs a copy for each row."""
        if made._base is not None or any(made is one for one in inputs):  # noqa: SLF001
            return False
        while frame is not None and frame.f_back is not None and frame.f_globals.get("__name__") in _SKIPPED:
            frame = frame.f_back
        if frame is None:
            return False
        site = (frame.f_code, frame.f_lasti)
        if self._looking:
            self._made[id(made)] = (made, site)
        return site in self._sites

    def learn(self, target: Tensor) -> bool:
        """Take note of a write into `target` that failed; tell whether to begin again."""
        if not self._looking:
            self._looking = True
            return True
        base = target if target._base is None else target._base  # noqa: SLF001
        found = self._made.get(id(base))
        if found is None or found[1] in self._sites:
            return False
        self._sites.add(found[1])
        return True

    def begin(self) -> None:
        """Forget the tensors of the pass before."""
        self._made.clear()

    def end(self) -> None:
        """Forget the tensors of a pass that is over, and stop looking."""
        self._made.clear()
        self._looking = False
