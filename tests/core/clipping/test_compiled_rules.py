"""Rules are pure functions of tensors: torch.compile traces each into one graph, with the same numbers."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from tests.core.clipping.settings import ROWS, SETTINGS, floats
from tests.core.clipping.settings_operations import OPERATIONS, layer
from tests.core.clipping.test_engine import made
from tests.reference import relative_error
from torch import Tensor, nn

from clipwise.clipping.batch import as_rows
from clipwise.clipping.capture import Record, capture
from clipwise.clipping.dropout import row_keys
from clipwise.clipping.losses import as_loss
from clipwise.clipping.rules import RULES
from clipwise.clipping.rules.any_operation import any_operation

# Functions of torch that hand their arguments to others in Python, and that torch.compile takes by name only.
NOT_TRACED = {"einsum", "cdist"}

MORE = (
    layer("conv3d", lambda: nn.Conv3d(2, 3, 2), floats(2, 3, 3, 3)),
    layer("conv_transpose1d", lambda: nn.ConvTranspose1d(2, 3, 2), floats(2, 5)),
    layer("conv_transpose3d", lambda: nn.ConvTranspose3d(2, 3, 2), floats(2, 3, 3, 3)),
    layer("gru_cell", lambda: nn.GRUCell(3, 4), floats(3)),
    layer("rnn_cell", lambda: nn.RNNCell(3, 4), floats(3)),
)
"""Of rules that the other settings do not reach."""

Met = tuple[Record, list[Tensor | None]]


def weighted_sums(
    record: Record, weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> tuple[Tensor, ...]:
    """Return what a step makes of a record: squared norms, then sums weighted by factors."""
    found = [one for one in record.rule.contributions(weights, saved, gradients, units) if one is not None]
    squared = torch.stack([one.norms().squared for one in found]).sum(0)
    factors = (1.0 / squared.sqrt()).clamp(max=1.0).to(weights[0].dtype)
    sums = []
    for one in found:
        total = one.weighted(factors)
        if total is None:
            total = torch.zeros(one.shape, dtype=factors.dtype)
            one.add_to(total, factors)
        sums.append(total)
    return squared, *sums


def met(dtype: torch.dtype) -> Iterator[Met]:
    """Yield the records of every setting with the gradients of their places."""
    for setting in (*SETTINGS, *OPERATIONS, *MORE):
        module, batch = made(setting, dtype)
        captured = capture(module, as_loss(setting.loss), as_rows(batch), row_keys(1, ROWS))
        edges = [edge for record in captured.records for edge in record.edges]
        found = iter(torch.autograd.grad(captured.losses.sum(), edges, allow_unused=True))
        for record in captured.records:
            gradients = [next(found) for _ in record.edges]
            if any(gradient is not None for gradient in gradients):
                yield record, gradients


def by_rule(dtype: torch.dtype) -> dict[str, list[Met]]:
    """Return records of every rule, one for each way that it can take."""
    found: dict[str, dict[tuple[str, ...], Met]] = {}
    for record, gradients in met(dtype):
        if record.rule is any_operation and record.operation in NOT_TRACED:
            continue
        parts = record.rule.contributions(record.weights, record.saved, gradients, ROWS)
        way = tuple("" if part is None else f"{type(part).__name__} {part.path()}" for part in parts)
        found.setdefault(record.rule.name, {}).setdefault(way, (record, gradients))
    return {name: list(ways.values()) for name, ways in found.items()}


TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_every_rule_is_traced_into_one_graph(dtype: torch.dtype) -> None:
    rules = by_rule(dtype)
    assert set(rules) >= {rule.name for rule in RULES.values()}
    for name, records in rules.items():
        for record, gradients in records:
            weights = [weight.detach() for weight in record.weights]
            torch.compiler.reset()
            traced = torch.compile(
                lambda *given, record=record: weighted_sums(record, *given, ROWS),
                fullgraph=True,
                backend="eager",
            )
            expected = weighted_sums(record, weights, record.saved, gradients, ROWS)
            for one, other in zip(traced(weights, record.saved, gradients), expected, strict=True):
                assert relative_error(one, other) <= TOLERANCE[dtype], name
    torch.compiler.reset()
