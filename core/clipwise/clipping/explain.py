"""What the engine does with a model, operation by operation, and why."""

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from clipwise.clipping.backward import backward
from clipwise.clipping.batch import Batch, Rows, as_rows
from clipwise.clipping.branches import RowsDisagree
from clipwise.clipping.capture import capture
from clipwise.clipping.contributions import Contribution
from clipwise.clipping.dropout import RowKeys
from clipwise.clipping.losses import Loss, as_loss
from clipwise.clipping.memory import is_out_of_memory
from clipwise.clipping.parameters import Leaves, leaves_of
from clipwise.clipping.process_settings import without_autocast
from clipwise.clipping.refusals import require_supported
from clipwise.errors import ClipwiseError


@dataclass(frozen=True, kw_only=True)
class Line:
    """How one parameter's gradients are found where it meets the rows.

    Attributes:
        operation: name of the operation of torch.
        parameters: canonical names of the parameters behind the weight that it met.
        rule: the closed form's name, or "any operation".
        path: how the norms are found: "product of norms", "gram", "instantiated", ...
        why: why this rule, and why this path.
        cost: estimated price of the norms and of what is kept for the sum, in multiplications per unit,
            beyond an ordinary backward pass.
        memory: bytes per unit that are kept until the sum.
    """

    operation: str
    parameters: tuple[str, ...]
    rule: str
    path: str
    why: str
    cost: float
    memory: int


@final
@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A table of what the engine does; print it.

    Attributes:
        lines: in the order of the forward pass.
        whole_model: why the model is taken as a whole, by `vmap(grad)`; "" if it is not.
        unmet: parameters that no row met: their gradient is zero.
    """

    lines: tuple[Line, ...]
    whole_model: str
    unmet: tuple[str, ...]

    def __str__(self) -> str:
        if self.whole_model:
            return f"the whole model by vmap(grad), in chunks: {self.whole_model}"
        rows = [("operation", "parameters", "rule", "path", "why", "cost", "memory")]
        rows += [
            (
                line.operation,
                ", ".join(line.parameters),
                line.rule,
                line.path,
                line.why,
                f"{line.cost:.2g}",
                f"{line.memory:,} B",
            )
            for line in self.lines
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        if self.unmet:
            table.append(f"met by no row, so of gradient zero: {', '.join(self.unmet)}")
        return "\n".join(table)


def explain(module: nn.Module, loss: str | Loss, batch: Batch, *, groups: int | None = None) -> Explanation:
    """Return what the engine does with a unit of `batch`, by doing it with the first one.

    Args:
        module: any `nn.Module`; it is left as it was.
        loss: a name, or `(outputs, targets) -> (B,)`.
        batch: at least one unit.
        groups: consecutive rows that are one unit; None is one row.

    Raises:
        UnsupportedModule: if the module has no per-sample gradients.
        InvalidInput: if the batch cannot be used.
    """
    rows = as_rows(batch).slice(0, groups or 1)
    require_supported(module)
    try:
        return _explained(module, loss, rows)
    except RowsDisagree:  # each row alone takes one branch
        return _explained(module, loss, rows.slice(0, 1))


def _explained(module: nn.Module, loss: str | Loss, rows: Rows) -> Explanation:
    leaves = leaves_of(module)
    keys = RowKeys(key=0, start=0, stop=rows.size, device=rows.weights.device)
    try:
        with torch.random.fork_rng(devices=()):
            captured = capture(module, as_loss(loss), rows, keys)
        records = [
            (record.operation, record.rule.name, record.why, record.weights) for record in captured.records
        ]
        with without_autocast(rows.weights.device.type):
            found = _by_weight(backward(captured, None, leaves, 1))
            lines = [
                _line(operation, rule, why, weight, found[id(weight)].popleft(), leaves)
                for operation, rule, why, weights in records
                for weight in weights
                if found.get(id(weight))
            ]
    except (ClipwiseError, RowsDisagree):
        raise
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return Explanation(lines=(), whole_model=str(error).partition("\n")[0], unmet=())
    met = {name for line in lines for name in line.parameters}
    unmet = tuple(name for name in leaves.trained if name not in met)
    return Explanation(lines=tuple(lines), whole_model="", unmet=unmet)


def _by_weight(met: list[tuple[Tensor, Contribution]]) -> dict[int, deque[Contribution]]:
    found: dict[int, deque[Contribution]] = defaultdict(deque)
    for weight, contribution in met:
        found[id(weight)].append(contribution)
    return found


def _line(
    operation: str, rule: str, why: str, weight: Tensor, contribution: Contribution, leaves: Leaves
) -> Line:
    contribution.norms()
    return Line(
        operation=operation,
        parameters=_behind(weight, leaves),
        rule=rule,
        path=contribution.path(),
        why="; ".join(filter(None, (why, contribution.reason()))),
        cost=contribution.cost(),
        memory=contribution.kept_bytes(),
    )


def _behind(weight: Tensor, leaves: Leaves) -> tuple[str, ...]:
    """Return the names of the parameters that `weight` is made of."""
    own = leaves.name(weight)
    if own is not None:
        return (own,)
    names, seen = [], set()
    todo = [weight.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = leaves.name(node.variable) if hasattr(node, "variable") else None
        if name is not None:
            names.append(name)
        todo += [following for following, _ in node.next_functions]
    return tuple(sorted(set(names)))
