"""Branches on the value of a tensor: exact where every row takes its own.

A row reaches the module as a batch of one, so `if mask.all():` asks about one row. Rows that give the same
answer go on together. Where answers differ, the rows are parted by them and run apart.
"""

import torch
from torch import Tensor

from clipwise.clipping.contributions import Contribution, Dense


class RowsDisagree(RuntimeError):
    """The rows of a chunk take different branches.

    Args:
        values: what they branch on, (B,).
    """

    def __init__(self, values: Tensor) -> None:
        super().__init__("rows of one chunk take different branches")
        self.values = values


def parted(values: Tensor, weights: Tensor, group: int) -> list[Tensor]:
    """Return the indices of rows that give one answer, one tensor for each answer.

    All rows of a unit are in one part if they agree; a row of weight 0, which is padding, agrees with all.

    Args:
        values: answers of the rows, (B,).
        weights: of the rows, (B,).
        group: rows per unit.
    """
    counted = (weights != 0).view(-1, group)
    answers = values.view(-1, group)
    first = answers.gather(1, counted.int().argmax(1, keepdim=True))
    answers = torch.where(counted, answers, first)
    answers = torch.where(counted.any(1, keepdim=True), answers, values[weights != 0][0]).flatten()
    different: Tensor = torch.unique(answers)
    return [(answers == value).nonzero()[:, 0] for value in different]


def whole_units(part: Tensor, group: int) -> bool:
    """Tell whether the rows (N,) of a part are whole units."""
    if len(part) % group:
        return False
    units = part.view(-1, group)
    return bool(((units[:, :1] % group == 0) & (units // group == units[:, :1] // group)).all())


def scattered(contribution: Contribution, part: Tensor, group: int, units: int) -> Contribution:
    """Return the contributions of rows `part` as contributions of the units (G,) that they belong to."""
    gradients = contribution.instantiated()
    total = gradients.new_zeros(units, *gradients.shape[1:])
    return Dense(total.index_add_(0, part // group, gradients))
