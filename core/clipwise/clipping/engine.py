"""The one path from a batch to its clipped sum: gradients of units, norms, factors, weighted sum."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from clipwise.clipping.attribution import shares, whole_share
from clipwise.clipping.backward import backward
from clipwise.clipping.batch import Batch, Rows, as_rows
from clipwise.clipping.branches import RowsDisagree, parted, scattered, whole_units
from clipwise.clipping.capture import capture
from clipwise.clipping.contributions import Contribution
from clipwise.clipping.contributions.dense import masked
from clipwise.clipping.contributions.workspace import Workspace
from clipwise.clipping.dropout import RowKeys, as_tensor
from clipwise.clipping.losses import Loss, as_loss
from clipwise.clipping.memory import (
    ChunkSizes,
    Signature,
    footprint,
    is_out_of_memory,
    signature_of,
    whole_model_units,
)
from clipwise.clipping.norms import joint
from clipwise.clipping.own_copies import OwnCopies
from clipwise.clipping.parameters import Leaves, leaves_of, parameters_of
from clipwise.clipping.process_settings import full_precision, without_autocast
from clipwise.clipping.refusals import require_supported
from clipwise.clipping.scaling import Scaling
from clipwise.clipping.sums import Sums
from clipwise.clipping.turns import in_turn
from clipwise.clipping.whole_model import UnitGradients, unit_gradients
from clipwise.errors import ClipwiseError, InvalidInput
from clipwise.schedules import AnyClipRule, FlatClip, Part, as_clip_rule


@dataclass(frozen=True, kw_only=True)
class ClippedSum:
    """The sum over units of their scaled gradients, and what was seen on the way.

    Attributes:
        values: canonical name to sum, in float32 or the parameter's wider dtype.
        losses: unweighted loss of every row, (B,); 0 for padding.
        norms: joint norm of every unit's gradient before scaling, (G,), in float64; 0 where it was not
            finite.
        factors: what every unit's gradient was multiplied with, (G,), the smallest of its parts; 0 where it
            was not finite.
        parts: the K parts of the parameters, each with its own rule; one without clipping.
        part_norms: as `norms`, of every part, (G, K).
        part_factors: as `factors`, of every part, (G, K).
        nonfinite: number of units that counted as zero because their gradient was not finite, 0-d.
    """

    values: dict[str, Tensor]
    losses: Tensor
    norms: Tensor
    factors: Tensor
    parts: tuple[Part, ...]
    part_norms: Tensor
    part_factors: Tensor
    nonfinite: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What stays the same over the chunks of one call.

    Attributes:
        trained: canonical name to trainable tensor.
        leaves: the parameters behind them.
        scaling: the clip rule on these parameters.
        group: rows per unit.
        signature: what chunk sizes are remembered by.
    """

    trained: dict[str, Tensor]
    leaves: Leaves
    scaling: Scaling
    group: int
    signature: Signature


@final
class ClippingEngine:
    """Clipped sums of a module's per-unit gradients.

    Hangs nothing on the module. Of a call it keeps what a row needed, and, on a processor, the memory of
    instantiated gradients for the next call.

    Args:
        module: any `nn.Module`.
        loss: a name, or `(outputs, targets) -> (B,)`.
        microbatch_size: most rows that are in memory at once; never changes the result.
        memory_limit: bytes that a chunk's activations and gradients may take, roughly; None is a little
            more than an ordinary step over the same rows would take.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: str | Loss,
        *,
        microbatch_size: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        if microbatch_size is not None and microbatch_size < 1:
            raise InvalidInput(
                f"microbatch_size is {microbatch_size}; give a positive number of rows, or None"
            )
        if memory_limit is not None and memory_limit < 1:
            raise InvalidInput(f"memory_limit is {memory_limit}; give a positive number of bytes, or None")
        self.module = module
        self.loss = as_loss(loss)
        self.whole_model: dict[Signature, str] = {}
        self._copies = OwnCopies()
        self._leaves: Leaves | None = None
        self._scaling: tuple[AnyClipRule | None, Leaves, Scaling] | None = None
        self._workspace = Workspace()
        self._chunks = ChunkSizes(microbatch_size=microbatch_size, memory_limit=memory_limit)

    @property
    def held_bytes(self) -> int:
        """Memory that is kept between calls."""
        return self._workspace.held

    @in_turn
    def clipped_sum(
        self,
        rows: Rows,
        rule: AnyClipRule | None,
        *,
        group: int = 1,
        key: int | None = None,
        divisor: float = 1.0,
    ) -> ClippedSum:
        """Return the sum of the units' gradients, each scaled by `rule`.

        Args:
            rows: a number of rows that `group` divides.
            rule: clip rule; None scales nothing. A unit whose gradient is not finite in one part counts
                as zero in all.
            group: consecutive rows that are one unit.
            key: of the dropout masks; None draws one from torch's generator.
            divisor: what the sums are divided by.

        Raises:
            UnsupportedModule: if the module has no per-sample gradients, or torch.func cannot take it.
            InvalidInput: if `group` does not divide the number of rows, or `rule` does not fit the
                parameters.
        """
        work = self._work(rows, rule, group)
        key = int(torch.randint(2**62, ()).item()) if key is None else key
        while True:
            sums = Sums(work.trained, divisor)
            step = group * self._units(work, rows)
            try:
                parts = [
                    self._add_chunk(
                        sums,
                        work,
                        rows if step >= rows.size else rows.slice(start, start + step),
                        RowKeys(
                            key=key,
                            start=start,
                            stop=min(start + step, rows.size),
                            device=rows.weights.device,
                        ),
                    )
                    for start in range(0, rows.size, step)
                ]
                break
            except RuntimeError as error:
                self._workspace.clear()
                # Sums may hold a part of the chunk that failed: they are begun anew.
                if not is_out_of_memory(error) or not self._chunks.halve(work.signature, step // group):
                    raise
        self._workspace.end()
        width = len(work.scaling.parts)
        losses, norms, factors, bad = (
            torch.cat([part[i] for part in parts]) if parts else rows.weights.new_zeros(shape)
            for i, shape in enumerate(((0,), (0, width), (0, width), (0,)))
        )
        return ClippedSum(
            values=sums.values(),
            losses=losses,
            norms=norms[:, 0] if width == 1 else joint(list(norms.unbind(1))),
            factors=factors.amin(1),
            parts=work.scaling.parts,
            part_norms=norms,
            part_factors=factors,
            nonfinite=bad.sum(),
        )

    @in_turn
    def chunk_rows(self, rows: Rows, *, group: int = 1) -> int:
        """Return how many rows of `rows` are in memory at once, under the limits that the engine has.

        A model that is taken as a whole takes fewer.

        Raises:
            UnsupportedModule, InvalidInput: as `clipped_sum`.
        """
        return group * self._units(self._work(rows, None, group), rows)

    def _work(self, rows: Rows, rule: AnyClipRule | None, group: int) -> Work:
        if group < 1 or rows.size % group:
            raise InvalidInput(
                f"{rows.size} rows are no whole number of groups of {group}; pad with rows of weight 0"
            )
        require_supported(self.module)
        if self._leaves is None or not self._leaves.still(self.module):
            self._leaves = leaves_of(self.module)
        leaves, trained = self._leaves, self._leaves.trained
        return Work(
            trained=trained,
            leaves=leaves,
            scaling=self._scaling_of(rule, leaves),
            group=group,
            signature=signature_of(self.module, rows, trained, group),
        )

    def _scaling_of(self, rule: AnyClipRule | None, leaves: Leaves) -> Scaling:
        """Return what `rule` means for the parameters; the last one is remembered."""
        last = self._scaling
        if not isinstance(rule, FlatClip) or last is None or last[0] != rule or last[1] is not leaves:
            self._scaling = last = (rule, leaves, Scaling(rule, tuple(leaves.trained)))
        return last[2]

    def _add_chunk(
        self, sums: Sums, work: Work, rows: Rows, keys: Tensor | RowKeys
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Add the scaled gradients of one chunk to `sums`; return its losses, norms, factors, faults."""
        if work.signature not in self.whole_model:
            try:
                found = self._captured_chunk(sums, work, rows, keys)
                if found is not None:
                    return found
            except ClipwiseError:
                raise
            except RowsDisagree as found:
                return self._add_parts(sums, work, rows, as_tensor(keys), found.values)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self.whole_model[work.signature] = str(error)
        return self._whole_model_chunk(sums, work, rows, keys)

    def _add_parts(
        self, sums: Sums, work: Work, rows: Rows, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Do `_add_chunk` for units that take different branches, apart."""
        parts = parted(values, rows.weights, work.group)
        if not all(whole_units(part, work.group) for part in parts):
            found = self._captured_chunk(sums, work, rows, keys, self._met_in_parts)
            return self._whole_model_chunk(sums, work, rows, keys) if found is None else found
        done = [self._add_chunk(sums, work, rows.take(part), keys[part]) for part in parts]
        order = torch.cat(parts).argsort()
        units = order.view(-1, work.group)[:, 0] // work.group
        losses, norms, factors, bad = (torch.cat([one[i] for one in done]) for i in range(4))
        return losses[order], norms[units], factors[units], bad[units]

    def _met_in_parts(
        self, work: Work, rows: Rows, keys: Tensor | RowKeys, group: int
    ) -> tuple[Tensor, list[tuple[Tensor, Contribution]]]:
        """Do `_met` for units whose rows take different branches: row by row, then summed over units."""
        keys = as_tensor(keys)
        try:
            return self._met(work, rows, keys, group)
        except RowsDisagree as disagreement:
            parts = parted(disagreement.values, rows.weights, 1)
        losses, met = torch.zeros_like(rows.weights), []
        for part in parts:
            some, found = self._met_in_parts(work, rows.take(part), keys[part], 1)
            losses[part] = some.to(losses.dtype)
            met += [(weight, scattered(one, part, group, rows.size // group)) for weight, one in found]
        return losses, met

    def _met(
        self, work: Work, rows: Rows, keys: Tensor | RowKeys, group: int
    ) -> tuple[Tensor, list[tuple[Tensor, Contribution]]]:
        """Return the rows' losses, and the weights that met them with their contributions."""
        captured = capture(self.module, self.loss, rows, keys, self._copies)
        # A caller's autocast is for the model: a sum of products in bfloat16 would exceed the bound.
        device = rows.weights.device.type
        with without_autocast(device):
            weights = None if rows.unweighted else rows.weights
            met = backward(captured, weights, work.leaves, rows.size // group)
        return captured.losses.detach(), met

    def _captured_chunk(
        self,
        sums: Sums,
        work: Work,
        rows: Rows,
        keys: Tensor | RowKeys,
        meet: Callable[..., tuple[Tensor, list[tuple[Tensor, Contribution]]]] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Do `_add_chunk` by capture and rules; None, with nothing done, if that cannot take the rows."""
        units = rows.size // work.group
        device = rows.weights.device.type
        with self._workspace.chunk():
            losses, met = (meet or self._met)(work, rows, keys, work.group)
            with without_autocast(device), full_precision(device):
                found = shares(met, work.leaves, work.trained)
                del met
                seen = {name: share.norms() for name, share in found.items()}
                norms, upper = work.scaling.norms(seen, units, rows.weights.device)
                if not bool((upper <= sums.largest()).all()):
                    return None
                if rows.unweighted:
                    factors = work.scaling.factors(norms, upper)
                else:
                    padding = rows.weights == 0
                    empty = padding.reshape(-1, work.group).all(1)[:, None]
                    norms = torch.where(empty, 0.0, norms)
                    factors = torch.where(empty, 0.0, work.scaling.factors(norms, upper))
                    losses = torch.where(padding, torch.zeros_like(losses), losses)
                sums.add(found, work.scaling.by_name(factors), work.scaling.scale(factors))
        return losses, norms, factors, torch.zeros(units, dtype=torch.bool, device=norms.device)

    def _whole_model_chunk(
        self, sums: Sums, work: Work, rows: Rows, keys: Tensor | RowKeys
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Do `_add_chunk` by `vmap(grad)` over the whole model."""
        units = rows.size // work.group
        parameters = parameters_of(self.module)
        fitting = whole_model_units(parameters.trained, self._chunks.limit(work.signature), work.group)
        parts = []
        for first in range(0, units, fitting):
            place = slice(first * work.group, (first + fitting) * work.group)
            piece = rows.slice(place.start, place.stop).cloned()
            gradients = unit_gradients(
                self.module, self.loss, parameters, piece, as_tensor(keys)[place], group=work.group
            )
            parts.append(self._add_units(sums, work, piece, gradients))
        losses, norms, factors, bad = (torch.cat([part[i] for part in parts]) for i in range(4))
        return losses, norms, factors, bad

    @staticmethod
    def _add_units(
        sums: Sums, work: Work, rows: Rows, units: UnitGradients
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        padding, device = rows.weights == 0, rows.weights.device.type
        empty = padding.reshape(-1, work.group).all(1)
        with without_autocast(device), full_precision(device):
            norms = work.scaling.norms_of(units.grads, rows.size // work.group)
            finite = norms.isfinite().all(1)
            counted = (finite & ~empty)[:, None]
            norms = torch.where(counted, norms, 0.0)
            factors = torch.where(counted, work.scaling.factors(norms, norms), 0.0)
            by_name = work.scaling.by_name(factors)
            kept = {name: masked(gradient, by_name[name]) for name, gradient in units.grads.items()}
            found = {name: whole_share(work.trained[name], gradient) for name, gradient in kept.items()}
            sums.add(found, by_name, work.scaling.scale(factors))
        losses = torch.where(padding, torch.zeros_like(units.losses), units.losses)
        return losses, norms, factors, ~finite & ~empty

    def _units(self, work: Work, rows: Rows) -> int:
        """Return how many units one chunk holds."""
        if not rows.size:
            return 1
        if not self._chunks.knows(work.signature):
            self._chunks.learn(
                work.signature, footprint(self.module, self.loss, rows, work.leaves, work.trained, work.group)
            )
        return self._chunks.units(work.signature, rows.size // work.group, work.group)


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
    rule: AnyClipRule | float,
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
    engine = ClippingEngine(module, loss)
    return engine.clipped_sum(rows, as_clip_rule(rule), group=groups or 1, divisor=by).values
