"""`einsum` and the products that are written as one: sums of products of data with one weight.

Each letter of the weight is one of three kinds. Letters of the output alone are rows R of the gradient,
letters of the data alone are columns C, letters of both are blocks S; what else the output has are
positions P, and the gradient of a unit is `sum_p g[s, p, r] x[s, p, c]`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clipwise.clipping.contributions import Arranged, Blocks, Contribution, Dense, Outer, widened
from clipwise.clipping.rules.equation import ROWS, einsum_equation
from clipwise.clipping.rules.rule import Meeting, Rule, as_place

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def einsum_forward(capture: CaptureMode, *operands: Any) -> Meeting | str:
    """Run `torch.einsum`, of either format."""
    terms, output, tensors = einsum_equation(*operands)
    return product_forward(capture, terms, output, tensors)


def product_forward(
    capture: CaptureMode, terms: Sequence[str], output: str, operands: Sequence[Tensor]
) -> Meeting | str:
    """Run the product of `operands`, one of which is a weight.

    Args:
        capture: the running capture.
        terms: letters of each operand's axes.
        output: letters of the result's axes.
        operands: as many as terms.
    """
    met = [i for i, operand in enumerate(operands) if capture.is_weight(operand)]
    if len(met) != 1:
        return "several weights meet in it"
    if any(len(set(term)) != len(term) for term in (*terms, output)):
        return "it takes a diagonal"
    terms, operands = _without_broadcasting(terms, operands)
    others = "".join(term for i, term in enumerate(terms) if i != met[0])
    if any(letter not in others and letter not in output for letter in terms[met[0]]):
        return "it sums its weight"
    run, letters = list(operands), list(terms)
    for i, operand in enumerate(operands):
        if capture.is_data(operand):
            run[i], letters[i] = capture.physical(operand), ROWS + terms[i]
    weight, named = operands[met[0]], letters.pop(met[0])
    rest = [operand for i, operand in enumerate(run) if i != met[0]]
    beside = next((one for one in rest if one.requires_grad), None)
    with capture.whole_batch():
        equation = ",".join((*letters, named)) + "->" + ROWS + output
        y = as_place(torch.einsum(equation, *rest, capture.detached(weight, beside)))
    saved = (tuple(one.detach() for one in rest), tuple(letters), named, ROWS + output)
    return Meeting(weights=(weight,), saved=saved, places=(y,), outputs=y)


def _without_broadcasting(
    terms: Sequence[str], operands: Sequence[Tensor]
) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Take away axes of size 1 that meet a longer one under the same letter."""
    sizes: dict[str, int] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, size in zip(term, operand.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    found = []
    for term, operand in zip(terms, operands, strict=True):
        lost = [i for i, letter in enumerate(term) if operand.shape[i] == 1 and sizes[letter] != 1]
        kept = "".join(letter for i, letter in enumerate(term) if i not in lost)
        found.append((kept, operand.squeeze(lost) if lost else operand))
    return tuple(term for term, _ in found), tuple(operand for _, operand in found)


def contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return `sum_p g[s, p, r] x[s, p, c]`, in the order of the weight's letters."""
    (operands, terms, weight, output), (g,) = saved, gradients
    if g is None:
        return [None]
    given = "".join(dict.fromkeys("".join(terms)))
    wanted = "".join(letter for letter in given if letter in output or letter in weight)
    x = operands[0]
    if len(operands) > 1 or wanted != terms[0]:
        with torch.no_grad():
            x = torch.einsum(",".join(terms) + "->" + wanted, *operands)
    blocks = [letter for letter in weight if letter in wanted and letter in output]
    rows = [letter for letter in weight if letter not in wanted]
    columns = [letter for letter in weight if letter not in output]
    positions = [letter for letter in output if letter not in weight and letter != ROWS]
    left = _folded(widened(g), output, blocks, positions, rows, units)
    right = _folded(widened(x), wanted, blocks, positions, columns, units)
    inner: Contribution
    if rows or columns:
        if not blocks and [*columns, *rows] == list(weight) and len(rows) == len(columns) == 1:
            return [Outer(right[0], left[0])]
        outer = Outer(left.flatten(0, 1), right.flatten(0, 1))
        inner = Blocks(outer, left.shape[0]) if blocks else outer
    else:
        inner = Dense((left * right).sum(2)[..., 0].t())
    made = "".join(blocks + rows + columns)
    if made == weight and inner.shape == weights[0].shape:
        return [inner]
    size = dict(zip(weight, weights[0].shape, strict=True))
    return [Arranged(inner, [size[letter] for letter in made], [made.index(letter) for letter in weight])]


def _folded(
    x: Tensor, letters: str, blocks: list[str], positions: list[str], last: list[str], units: int
) -> Tensor:
    """Return (S, G, P, last) from a tensor of rows with the given letters."""
    size = dict(zip(letters, x.shape, strict=True))
    order = [ROWS, *blocks, *positions, *last]
    x = x.permute([letters.index(letter) for letter in order])
    # Of a list: torch.compile does not take the product of a generator.
    s, p, n = (math.prod([size[letter] for letter in some]) for some in (blocks, positions, last))
    return x.reshape(units, -1, s, p, n).permute(2, 0, 1, 3, 4).reshape(s, units, -1, n)


def bilinear_forward(
    capture: CaptureMode,
    input1: Tensor,
    input2: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Meeting | str:
    """Run `y = x1 W x2 + b`, (..., I), (O, I, J), (..., J)."""
    if bias is not None:
        return "it has a bias"
    batch = _LETTERS[: input1.dim() - 1]
    terms = (batch + "i", batch + "j", "oij")
    return product_forward(capture, terms, batch + "o", (input1, input2, weight))


_LETTERS = "abcdefgh"
einsum = Rule(name="einsum", forward=einsum_forward, contributions=contributions)
bilinear = Rule(name="bilinear", forward=bilinear_forward, contributions=contributions)
