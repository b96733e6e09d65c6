"""The one path from a batch to its clipped sum: gradients of units, norms, factors, weighted sum."""

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from clipwise.clipping.attribution import shares
from clipwise.clipping.batch import Batch, Rows, as_rows
from clipwise.clipping.capture import Captured, capture
from clipwise.clipping.contributions import Contribution, Norms
from clipwise.clipping.dropout import row_keys
from clipwise.clipping.losses import Loss, as_loss
from clipwise.clipping.memory import DEFAULT_CHUNK_BYTES, bytes_per_row, units_per_chunk
from clipwise.clipping.norms import joint_norms, round_down
from clipwise.clipping.parameters import Leaves, Parameters, parameters_of
from clipwise.clipping.refusals import require_supported
from clipwise.clipping.whole_model import unit_gradients
from clipwise.errors import ClipwiseError, InvalidInput
from clipwise.schedules import ClipRule, as_clip_rule


@dataclass(frozen=True, kw_only=True)
class ClippedSum:
    """The sum over units of their scaled gradients, and what was seen on the way.

    Attributes:
        values: canonical name to sum, in float32 or the parameter's wider dtype.
        losses: unweighted loss of every row, (B,); 0 for padding.
        norms: norm of every unit's gradient before scaling, (G,), in float64; 0 where it was not finite.
        factors: what every unit's gradient was multiplied with, (G,); 0 where it was not finite.
        nonfinite: number of units that counted as zero because their gradient was not finite, 0-d.
    """

    values: dict[str, Tensor]
    losses: Tensor
    norms: Tensor
    factors: Tensor
    nonfinite: Tensor


@final
class ClippingEngine:
    """Clipped sums of a module's per-unit gradients.

    Hangs nothing on the module and keeps nothing of a call but the memory that a row needed.

    Args:
        module: any `nn.Module`.
        loss: a name, or `(outputs, targets) -> (B,)`.
        microbatch_size: most rows that are in memory at once; never changes the result.
        chunk_bytes: memory for one chunk's gradients and activations, roughly.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: str | Loss,
        *,
        microbatch_size: int | None = None,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    ) -> None:
        if microbatch_size is not None and microbatch_size < 1:
            raise InvalidInput(
                f"microbatch_size is {microbatch_size}; give a positive number of rows, or None"
            )
        self.module = module
        self.loss = as_loss(loss)
        self._microbatch_size = microbatch_size
        self._chunk_bytes = chunk_bytes
        self._row_bytes: dict[Any, int] = {}
        self.whole_model: dict[Any, str] = {}

    def clipped_sum(
        self, rows: Rows, rule: ClipRule | None, *, group: int = 1, key: int | None = None
    ) -> ClippedSum:
        """Return the sum of the units' gradients, each scaled by `rule`.

        Args:
            rows: a number of rows that `group` divides.
            rule: clip rule; None scales nothing.
            group: consecutive rows that are one unit.
            key: of the dropout masks; None draws one from torch's generator.

        Raises:
            UnsupportedModule: if the module has no per-sample gradients, or torch.func cannot take it.
            InvalidInput: if `group` does not divide the number of rows.
        """
        if group < 1 or rows.size % group:
            raise InvalidInput(
                f"{rows.size} rows are no whole number of groups of {group}; pad with rows of weight 0"
            )
        require_supported(self.module)
        parameters = parameters_of(self.module)
        total = {name: _zeros(tensor) for name, tensor in parameters.trained.items()}
        device = rows.weights.device
        key = int(torch.randint(2**62, ()).item()) if key is None else key
        keys = row_keys(key, rows.size, device)
        parts = []
        step = group * self._units(rows, parameters, group) if rows.size else group
        for start in range(0, rows.size, step):
            piece = rows.slice(start, start + step)
            parts.append(self._add_chunk(total, piece, keys[start : start + step], parameters, rule, group))
        losses, norms, factors, bad = (
            torch.cat([part[i] for part in parts]) if parts else torch.zeros(0, device=device)
            for i in range(4)
        )
        return ClippedSum(values=total, losses=losses, norms=norms, factors=factors, nonfinite=bad.sum())

    def _add_chunk(
        self,
        total: dict[str, Tensor],
        rows: Rows,
        keys: Tensor,
        parameters: Parameters,
        rule: ClipRule | None,
        group: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Add the scaled gradients of one chunk to `total`; return its losses, norms, factors, faults."""
        signature = self._signature(rows, parameters)
        if signature not in self.whole_model:
            try:
                found = self._captured_chunk(total, rows, keys, parameters, rule, group)
                if found is not None:
                    return found
            except (torch.OutOfMemoryError, ClipwiseError):
                raise
            except RuntimeError as error:
                if "can't allocate memory" in str(error):
                    raise
                self.whole_model[signature] = str(error)
        return self._whole_model_chunk(total, rows, keys, parameters, rule, group)

    def _captured_chunk(
        self,
        total: dict[str, Tensor],
        rows: Rows,
        keys: Tensor,
        parameters: Parameters,
        rule: ClipRule | None,
        group: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Do `_add_chunk` by capture and rules; None, with nothing done, if that cannot take the rows."""
        units = rows.size // group
        leaves = Leaves(self.module, parameters.aliases)
        captured = capture(self.module, self.loss, rows, keys)
        padding = rows.weights == 0
        with torch.autocast(rows.weights.device.type, enabled=False):
            met = backward(captured, rows.weights, leaves, units)
            losses = captured.losses.detach()
            del captured
            found = shares(met, leaves, total)
            del met
            parts = [share.norms() for share in found.values()]
            squared, upper = joint_of(parts, units, rows.weights.device)
            norms = squared.sqrt()
            empty = padding.reshape(-1, group).all(1)
            if not bool((upper <= self._largest(total)).all()):
                return None
            norms = torch.where(empty, 0.0, norms)
            factors = torch.where(empty, 0.0, scale_factors(rule, norms, upper))
            for name, share in found.items():
                share.add_to(total[name], round_down(factors, total[name].dtype))
        losses = torch.where(padding, torch.zeros_like(losses), losses)
        return losses, norms, factors, torch.zeros_like(empty)

    @staticmethod
    def _largest(total: dict[str, Tensor]) -> float:
        return min(torch.finfo(tensor.dtype).max for tensor in total.values())

    def _whole_model_chunk(
        self,
        total: dict[str, Tensor],
        rows: Rows,
        keys: Tensor,
        parameters: Parameters,
        rule: ClipRule | None,
        group: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Do `_add_chunk` by `vmap(grad)` over the whole model."""
        units = unit_gradients(self.module, self.loss, parameters, rows, keys, group=group)
        padding = rows.weights == 0
        empty = padding.reshape(-1, group).all(1)
        # A caller's autocast is for the model: a sum of products in bfloat16 would exceed the bound.
        with torch.autocast(rows.weights.device.type, enabled=False):
            norms = joint_norms(units.grads.values(), rows.size // group)
            finite = norms.isfinite()
            norms = torch.where(finite & ~empty, norms, 0.0)
            factors = torch.where(finite & ~empty, scale_factors(rule, norms, norms), 0.0)
            for name, gradient in units.grads.items():
                add_scaled(total[name], gradient, factors)
        losses = torch.where(padding, torch.zeros_like(units.losses), units.losses)
        return losses, norms, factors, ~finite & ~empty

    def _signature(self, rows: Rows, parameters: Parameters) -> Any:
        shapes = tuple((tensor.shape[1:], tensor.dtype) for tensor in rows.tensors())
        return shapes, self.module.training, len(parameters.trained)

    def _units(self, rows: Rows, parameters: Parameters, group: int) -> int:
        signature = self._signature(rows, parameters)
        if signature not in self._row_bytes:
            self._row_bytes[signature] = bytes_per_row(self.module, self.loss, parameters, rows)
        return units_per_chunk(
            self._row_bytes[signature],
            parameters,
            group=group,
            memory=self._chunk_bytes,
            microbatch=self._microbatch_size,
        )


def backward(
    captured: Captured, weights: Tensor, leaves: Leaves, units: int
) -> list[tuple[Tensor, Contribution]]:
    """Run one backward pass; return the weights that met the rows, with their contributions.

    Args:
        captured: what a forward pass left.
        weights: of the rows, (B,).
        leaves: the module's trainable parameters.
        units: number of units G, of consecutive rows.

    Raises:
        RuntimeError: if a parameter met the rows where capture does not see it.
    """
    losses = captured.losses
    if not losses.requires_grad:
        return []
    # A padding row's loss may be anything: 0 * inf is NaN, so it is replaced and not scaled.
    total = (torch.where(weights == 0, torch.zeros_like(losses), losses) * weights).sum()
    edges = [edge for record in captured.records for edge in record.edges]
    inputs = (*edges, *leaves.tensors)
    gradients = torch.autograd.grad(total, inputs, allow_unused=True)
    for name, gradient in zip(leaves.names, gradients[len(edges) :], strict=True):
        if gradient is not None:
            raise RuntimeError(f"parameter '{name}' met the rows in an operation that capture does not see")
    remaining = iter(gradients)
    met: list[tuple[Tensor, Contribution]] = []
    for record in captured.records:
        record.require_unchanged()
        found = record.rule.contributions(
            record.weights, record.saved, [next(remaining) for _ in record.edges], units
        )
        met += [
            (weight, one)
            for weight, one in zip(record.weights, found, strict=True)
            if one is not None and weight.requires_grad
        ]
    return met


def joint_of(parts: list[Norms], units: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the squared joint norms (G,), and upper bounds of the norms of what will be added, (G,)."""
    squared = torch.zeros(units, dtype=torch.float64, device=device)
    spread, error = torch.zeros_like(squared), torch.zeros_like(squared)
    for part in parts:
        squared += part.squared
        spread += 0.0 if part.spread is None else part.spread
        error += 0.0 if part.error is None else part.error.square()
    return squared, (squared + spread).sqrt() + error.sqrt()


def scale_factors(rule: ClipRule | None, norms: Tensor, upper: Tensor) -> Tensor:
    """Return the factors (G,) of `rule` for finite norms (G,), held to the sensitivity that it states.

    Args:
        rule: None scales nothing.
        norms: what the rule sees.
        upper: bounds of the norms of what will be added.

    Raises:
        InvalidInput: if the rule gives something else than one factor per unit.
    """
    if rule is None:
        return torch.ones_like(norms)
    factors = rule.factors(norms)
    if not isinstance(factors, Tensor) or factors.shape != norms.shape:
        raise InvalidInput(
            f"{type(rule).__name__}.factors must return one factor per norm, {tuple(norms.shape)}"
        )
    # Division by zero gives inf, which bounds nothing, and a norm of zero needs no bound.
    return factors.to(norms.dtype).clamp(min=0.0).minimum(rule.sensitivity / upper).nan_to_num(nan=0.0)


def add_scaled(total: Tensor, gradient: Tensor, factors: Tensor) -> None:
    """Add `sum_g factors[g] * gradient[g]` to `total`; a unit of factor 0 is masked, not multiplied."""
    if not gradient.numel():
        return
    flat = gradient.detach().reshape(gradient.shape[0], -1).to(total.dtype)
    if 0 in flat.stride():  # the same for every unit, or for every element: kept once, and not to be written
        flat = flat.contiguous()
    flat.masked_fill_((factors == 0)[:, None], 0.0)
    total.view(-1).add_(round_down(factors, total.dtype) @ flat)


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros(
        tensor.shape, dtype=torch.promote_types(tensor.dtype, torch.float32), device=tensor.device
    )


def require_divisor(divisor: float | None, size: int) -> float:
    """Return `divisor`, or the batch's own `size` if it is None.

    Raises:
        InvalidInput: if it is not a positive, finite number.
    """
    if divisor is None:
        return float(max(size, 1))
    if isinstance(divisor, bool) or not (math.isfinite(divisor) and divisor > 0):
        raise InvalidInput(f"divisor is {divisor!r}; give a positive number, such as the expected batch size")
    return float(divisor)


def clipped_gradients(
    module: nn.Module,
    loss: str | Loss,
    batch: Batch,
    rule: ClipRule | float,
    *,
    groups: int | None = None,
    divisor: float | None = None,
) -> dict[str, Tensor]:
    """Return the batch-averaged gradient after clipping every unit's, by parameter name.

    For people who keep their own loop: fill `.grad` from it and call any `torch.optim` optimizer. A tied
    parameter is there once, under its first name.

    Args:
        module: any `nn.Module`; nothing is hung on it.
        loss: a name, or `(outputs, targets) -> (B,)`.
        batch: `(inputs, targets)` or `(inputs, targets, sample_weights)`.
        rule: a positive `max_norm`, or a clip rule.
        groups: consecutive rows that are one unit; None is one row.
        divisor: what the sum is divided by; None is the batch's own number of rows.

    Raises:
        UnsupportedModule: if the module has no per-sample gradients.
        InvalidInput: if the batch, the rule or the divisor cannot be used.
    """
    rows = as_rows(batch)
    by = require_divisor(divisor, rows.size)
    clipped = ClippingEngine(module, loss).clipped_sum(rows, as_clip_rule(rule), group=groups or 1)
    return {name: value.div_(by) for name, value in clipped.values.items()}
