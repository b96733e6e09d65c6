"""What is seen of the rows while training: exact numbers, gathered between two reports."""

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from clipwise.models.gradients import Gradients


@final
@dataclass(kw_only=True)
class Observations:
    """Losses, gradient norms and clip factors of the rows that were drawn since the last report."""

    losses: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    factors: list[Tensor] = field(default_factory=list)

    def add(self, gradients: Gradients, weights: Tensor) -> None:
        """Add what was seen of one physical batch; padding is left out."""
        counted = weights > 0
        self.losses.append(gradients.sample_losses[counted].detach())
        if gradients.sample_norms is not None and gradients.clip_factors is not None:
            self.norms.append(gradients.sample_norms[counted])
            self.factors.append(gradients.clip_factors[counted])

    @property
    def finite(self) -> bool:
        """Whether the loss of every row of the last physical batch is finite."""
        return not self.losses or bool(self.losses[-1].isfinite().all())

    def report(self) -> dict[str, float]:
        """Return the numbers of all rows since the last report, and forget them; nothing without rows."""
        losses = torch.cat(self.losses) if self.losses else torch.empty(0)
        norms = torch.cat(self.norms) if self.norms else torch.empty(0)
        factors = torch.cat(self.factors) if self.factors else torch.empty(0)
        self.losses, self.norms, self.factors = [], [], []
        values = {"train/loss": losses.double().mean().item()} if len(losses) else {}
        if len(norms):
            ordered = norms.sort().values
            values |= {
                "train/gradient_norm_mean": ordered.mean().item(),
                "train/gradient_norm_p50": ordered[len(ordered) // 2].item(),
                "train/gradient_norm_p90": ordered[(len(ordered) * 9) // 10].item(),
                "train/gradient_norm_max": ordered[-1].item(),
                "train/clip_fraction": (factors < 1).double().mean().item(),
            }
        return values
