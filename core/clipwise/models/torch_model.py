"""Any `torch.nn.Module` as a model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clipwise.clipping.batch import Batch, Inputs, Rows, as_rows
from clipwise.clipping.engine import ClippedSum, ClippingEngine, require_divisor
from clipwise.clipping.explain import Explanation, explain
from clipwise.clipping.independence import require_independent
from clipwise.clipping.losses import Loss
from clipwise.clipping.parameters import trained_tensors
from clipwise.clipping.refusals import require_supported
from clipwise.clipping.whole_model import require_row_losses
from clipwise.errors import InvalidInput, UnsupportedModule
from clipwise.models.gradients import Gradients
from clipwise.models.model import Model
from clipwise.schedules import AnyClipRule, as_clip_rule, joint_sensitivity


@final
class TorchModel(Model):
    """A module and its loss. The module is used as it is, in the mode that it is in.

    Args:
        module: any `nn.Module`. With `max_norm` it is left as it was: no hook, no `.grad`, no buffer is
            touched.
        loss: a name (`clipwise.clipping.LOSSES`), or `(outputs, targets) -> (B,)`.
        microbatch_size: most rows that are in memory at once; never changes the result.
        memory_limit: bytes that one chunk's activations and gradients may take, roughly; None is a little
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
        self._engine = ClippingEngine(
            module, loss, microbatch_size=microbatch_size, memory_limit=memory_limit
        )
        self._microbatch_size = microbatch_size

    @property
    def module(self) -> nn.Module:
        """The module itself."""
        return self._engine.module

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Trainable parameters by canonical name; a tied one is there once. Writing into them trains."""
        return trained_tensors(self.module)[0]

    def compute_batch_gradients(
        self,
        batch: Batch,
        max_norm: float | AnyClipRule | None = None,
        groups: int | None = None,
        divisor: float | None = None,
    ) -> Gradients:
        """Return the averaged gradient of `batch`; see `Model.compute_batch_gradients`.

        Without `max_norm` it is an ordinary forward and backward pass over the whole batch. Should its
        result not be finite, the rows at fault are found and count as zero.
        """
        rows = as_rows(batch)
        by = require_divisor(divisor, rows.size)
        group = _group(groups)
        if max_norm is None:
            return self._ordinary(rows, by)
        rule = as_clip_rule(max_norm)
        return _gradients(self._engine.clipped_sum(rows, rule, group=group, divisor=by), by)

    def apply_updates(self, updates: Mapping[str, Tensor]) -> None:
        """Add `updates` to the parameters of the same names."""
        parameters = self.parameters
        if updates.keys() != parameters.keys():
            raise InvalidInput(
                "updates are not those of the trainable parameters: "
                f"missing {sorted(parameters.keys() - updates.keys()) or 'none'}, "
                f"foreign {sorted(updates.keys() - parameters.keys()) or 'none'}"
            )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.add_(updates[name])

    def predict(self, inputs: Inputs) -> Tensor:
        """Return the outputs (B, ...) for `inputs`, in evaluation mode; the module's mode is put back."""
        rows = as_rows((inputs, None))
        with torch.no_grad(), _evaluating(self.module):
            return torch.cat([self.module(*piece.args, **piece.kwargs) for piece in self._pieces(rows)])

    def compute_losses(self, batch: Batch) -> Tensor:
        """Return the unweighted loss of every row of `batch`, (B,), in evaluation mode."""
        rows = as_rows(batch)
        losses = [rows.weights.new_zeros(0)]
        with torch.no_grad(), _evaluating(self.module):
            for piece in self._pieces(rows) if rows.size else ():
                outputs = self.module(*piece.args, **piece.kwargs)
                losses.append(require_row_losses(self._engine.loss(outputs, *piece.targets), piece.size))
        return torch.cat(losses[1:] or losses)

    def explain(self, batch: Batch, groups: int | None = None) -> Explanation:
        """Return what the engine does with a unit of `batch`, operation by operation; print it."""
        return explain(self.module, self._engine.loss, batch, groups=groups)

    def propose_microbatch_size(self, batch: Batch, groups: int | None = None) -> int:
        """Return how many rows of `batch` are in memory at once, by what one unit of it needs.

        Under `memory_limit`, or else under a little more than an ordinary step would take. Steps take it by
        themselves, and half of it where memory runs out all the same.

        Args:
            batch: of the shapes that will be trained on.
            groups: consecutive rows that are one unit; None is one row.
        """
        return self._engine.chunk_rows(as_rows(batch), group=_group(groups))

    def probe_independence(self, batch: Batch) -> None:
        """Check that the gradient of a row does not depend on the other rows of its batch.

        Per-sample gradients are computed row by row, which would hide that the module mixes samples
        when it is used on batches. Call it once before training, under privacy on rows that are made up.

        Raises:
            UnsupportedModule: if samples are mixed, naming the path where it is found.
        """
        require_supported(self.module)
        require_independent(self.module, self._engine.loss, as_rows(batch))

    def _ordinary(self, rows: Rows, divisor: float) -> Gradients:
        tensors, aliases = trained_tensors(self.module)
        trained = {name: value.requires_grad_() for name, value in tensors.items()}
        substitutes = {name: trained[canonical] for name, canonical in aliases.items()}
        total = {
            name: torch.zeros_like(value, dtype=torch.promote_types(value.dtype, torch.float32))
            for name, value in trained.items()
        }
        losses = [rows.weights.new_zeros(0)]
        for piece in self._pieces(rows) if rows.size else ():
            with torch.enable_grad():
                outputs = functional_call(
                    self.module, substitutes, piece.args, piece.kwargs, tie_weights=False
                )
                value = require_row_losses(self._engine.loss(outputs, *piece.targets), piece.size)
                kept = torch.where(piece.weights == 0, torch.zeros_like(value), value)
                gradients = torch.autograd.grad(
                    (kept * piece.weights).sum(), list(trained.values()), allow_unused=True
                )
            losses.append(kept.detach())
            for name, gradient in zip(trained, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient
        nonfinite = 0
        if not all(bool(value.isfinite().all()) for value in total.values()):
            # A module without per-sample gradients keeps what it got: no row of it can be left out.
            with suppress(UnsupportedModule):
                finite = self._engine.clipped_sum(rows, None)
                total, nonfinite = finite.values, int(finite.nonfinite)
        return Gradients(
            values={name: value.div_(divisor) for name, value in total.items()},
            divisor=divisor,
            sample_losses=torch.cat(losses[1:] or losses),
            nonfinite=nonfinite,
        )

    def _pieces(self, rows: Rows) -> Iterator[Rows]:
        step = self._microbatch_size or max(1, rows.size)
        for start in range(0, max(1, rows.size), step):
            yield rows.slice(start, start + step)


def _gradients(clipped: ClippedSum, divisor: float) -> Gradients:
    return Gradients(
        values=clipped.values,
        divisor=divisor,
        sample_losses=clipped.losses,
        sample_norms=clipped.norms,
        clip_factors=clipped.factors,
        parts=tuple(part.label for part in clipped.parts),
        part_norms=clipped.part_norms,
        part_factors=clipped.part_factors,
        sensitivity=joint_sensitivity(clipped.parts),
        nonfinite=int(clipped.nonfinite),
    )


def _group(groups: int | None) -> int:
    if groups is None:
        return 1
    if type(groups) is not int or groups < 1:
        raise InvalidInput(f"groups is {groups!r}; give the number of consecutive rows of a unit, or None")
    return groups


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part of `module` into evaluation mode, and back into the mode that it was in."""
    before = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in before:
            part.training = training
