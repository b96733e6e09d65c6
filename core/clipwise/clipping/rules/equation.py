"""Products of torch, written with one letter for each axis."""

from collections.abc import Sequence
from string import ascii_letters
from types import EllipsisType
from typing import Any

from torch import Tensor

ROWS = "Z"
"""The letter of the rows. Those of an equation are exchanged for others, so that it is free."""

_FREE = ascii_letters.replace(ROWS, "")


def einsum_equation(*operands: Any) -> tuple[list[str], str, tuple[Tensor, ...]]:
    """Return the letters of every operand and of the output of a call of `torch.einsum`, and the operands.

    An ellipsis is written out, and an output that is not given is found as `torch.einsum` does.
    """
    if isinstance(operands[0], str):
        tensors = tuple(operands[1]) if isinstance(operands[1], tuple | list) else tuple(operands[1:])
        inputs, arrow, given = operands[0].replace(" ", "").partition("->")
        names: list[list[Any]] = [_names(term) for term in inputs.split(",")]
        output = _names(given) if arrow else None
    else:
        count = len(operands) // 2
        tensors = tuple(operands[0 : 2 * count : 2])
        names = [list(term) for term in operands[1 : 2 * count : 2]]
        output = list(operands[-1]) if len(operands) % 2 else None
    hidden = max(tensor.dim() - len(term) + 1 for tensor, term in zip(tensors, names, strict=True))
    hidden = hidden if any(Ellipsis in term for term in names) else 0
    dots = [("dots", i) for i in range(hidden)]
    written = [
        _written(term, dots[hidden - (tensor.dim() - len(term) + 1) :] if Ellipsis in term else [])
        for tensor, term in zip(tensors, names, strict=True)
    ]
    if output is None:
        flat = [name for term in names for name in term if name is not Ellipsis]
        output = [Ellipsis, *sorted(name for name in set(flat) if flat.count(name) == 1)]
    letters = dict(zip(dict.fromkeys(name for term in written for name in term), _FREE, strict=False))
    terms = ["".join(letters[name] for name in term) for term in written]
    return terms, "".join(letters[name] for name in _written(output, dots)), tensors


def _names(term: str) -> list[str | EllipsisType]:
    before, dots, after = term.partition("...")
    return [*before, *([Ellipsis] if dots else []), *after]


def _written(term: Sequence[Any], dots: Sequence[Any]) -> list[Any]:
    return [name for one in term for name in (dots if one is Ellipsis else [one])]


def matmul_equation(left: int, right: int) -> tuple[list[str], str]:
    """Return the letters of the product of tensors of `left` and `right` axes."""
    batch = _FREE[3 : 3 + max(left, right) - 2]
    one = "i" if left == 1 else batch[len(batch) - (left - 2) :] + "ai"
    other = "i" if right == 1 else batch[len(batch) - (right - 2) :] + "ib"
    return [one, other], batch + "a" * (left > 1) + "b" * (right > 1)
