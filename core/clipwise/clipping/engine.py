"""The one path from a batch to its clipped sum: gradients of units, norms, factors, weighted sum."""

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from clipwise.clipping.batch import Batch, Rows, as_rows
from clipwise.clipping.dropout import row_keys
from clipwise.clipping.functional import unit_gradients
from clipwise.clipping.losses import Loss, as_loss
from clipwise.clipping.memory import DEFAULT_CHUNK_BYTES, bytes_per_row, units_per_chunk
from clipwise.clipping.norms import joint_norms, round_down
from clipwise.clipping.parameters import Parameters, parameters_of
from clipwise.clipping.refusals import require_supported
from clipwise.errors import InvalidInput
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
        units = unit_gradients(self.module, self.loss, parameters, rows, keys, group=group)
        padding = rows.weights == 0
        empty = padding.reshape(-1, group).all(1)
        # A caller's autocast is for the model: a sum of products in bfloat16 would exceed the bound.
        with torch.autocast(rows.weights.device.type, enabled=False):
            norms = joint_norms(units.grads.values(), rows.size // group)
            finite = norms.isfinite()
            norms = torch.where(finite & ~empty, norms, 0.0)
            factors = torch.where(finite & ~empty, scale_factors(rule, norms), 0.0)
            for name, gradient in units.grads.items():
                add_scaled(total[name], gradient, factors)
        losses = torch.where(padding, torch.zeros_like(units.losses), units.losses)
        return losses, norms, factors, ~finite & ~empty

    def _units(self, rows: Rows, parameters: Parameters, group: int) -> int:
        shapes = tuple((tensor.shape[1:], tensor.dtype) for tensor in rows.tensors())
        signature = (shapes, self.module.training, len(parameters.trained))
        if signature not in self._row_bytes:
            self._row_bytes[signature] = bytes_per_row(self.module, self.loss, parameters, rows)
        return units_per_chunk(
            self._row_bytes[signature],
            parameters,
            group=group,
            memory=self._chunk_bytes,
            microbatch=self._microbatch_size,
        )


def scale_factors(rule: ClipRule | None, norms: Tensor) -> Tensor:
    """Return the factors (G,) of `rule` for finite norms (G,), held to the sensitivity that it states.

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
    return factors.to(norms.dtype).clamp(min=0.0).minimum(rule.sensitivity / norms).nan_to_num(nan=0.0)


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
