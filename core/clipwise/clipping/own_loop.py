"""For people who keep their own loop: gradients with noise, and `.grad` filled for `torch.optim`."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clipwise.clipping.batch import Batch, as_rows
from clipwise.clipping.engine import clipped_gradients
from clipwise.clipping.losses import Loss
from clipwise.clipping.parameters import trained_tensors
from clipwise.errors import InvalidInput
from clipwise.schedules import AnyClipRule, as_clip_rule, sensitivity_of

SLACK = 1e-6
"""By how much a rule's sensitivity may exceed the mechanism's: as much as rounding in the engine itself."""


class NoiseMechanism(Protocol):
    """What adds noise to sums and averages them, such as `clipwise.privacy.PoissonGaussian`."""

    @property
    def sensitivity(self) -> float:
        """Largest joint L2 norm of one unit's contribution that the noise is made for."""
        ...

    def average(self, sums: Mapping[str, npt.NDArray[Any]], realised: int) -> Mapping[str, npt.NDArray[Any]]:
        """Return the noisy averages of the sums over `realised` rows."""
        ...


def private_gradients(
    module: nn.Module,
    loss: str | Loss,
    batch: Batch,
    rule: AnyClipRule | float,
    mechanism: NoiseMechanism,
    *,
    groups: int | None = None,
) -> dict[str, Tensor]:
    """Return the noisy average of the clipped gradients of `batch`, by parameter name.

    The sum of the clipped gradients, noise by the mechanism, one division by the mechanism's public batch
    size: under its guarantee if the batch was drawn by the mechanism, too. A batch without rows gives noise.

    Args:
        module: any `nn.Module`; nothing is hung on it.
        loss: a name, or `(outputs, targets) -> (B,)`.
        batch: `(inputs, targets)`, or with sample weights, of the rows that the mechanism drew.
        rule: a positive `max_norm`, or a clip rule.
        mechanism: its sensitivity must be at least that of the rule over the trained parameters.
        groups: consecutive rows that are one unit; None is one row.

    Raises:
        UnsupportedModule: if the module has no per-sample gradients.
        InvalidInput: if the noise is made for less than one unit can contribute, or an argument cannot be
            used.
    """
    clip = as_clip_rule(rule)
    stated = sensitivity_of(clip, tuple(trained_tensors(module)[0]))
    if stated > mechanism.sensitivity * (1 + SLACK):
        raise InvalidInput(
            f"the mechanism's noise is for a sensitivity of {mechanism.sensitivity:g}, and under the clip "
            f"rule one unit can contribute {stated:g}; build the mechanism with "
            "sensitivity=clipwise.schedules.sensitivity_of(rule, names of the trained parameters)"
        )
    sums = clipped_gradients(module, loss, batch, clip, groups=groups, divisor=1.0)
    averages = mechanism.average(
        {name: value.cpu().numpy() for name, value in sums.items()}, as_rows(batch).size
    )
    return {name: torch.from_numpy(np.asarray(averages[name])).to(value) for name, value in sums.items()}


def fill_gradients(module: nn.Module, gradients: Mapping[str, Tensor | npt.NDArray[Any]]) -> None:
    """Make `gradients` the `.grad` of the module's trainable parameters, for any `torch.optim` optimizer.

    What was in `.grad` is replaced and not added to, so that no `zero_grad()` is needed. Each gradient takes
    the type and the device of its parameter: one of `bfloat16` is rounded here and nowhere before. Of
    parameters that share a storage the first one gets the gradient and the others get None, so that an
    optimizer updates the storage once. Frozen parameters are left alone.

    Args:
        module: whose parameters the optimizer has.
        gradients: by canonical name, as `clipped_gradients`, `private_gradients` or
            `TorchModel.compute_batch_gradients(...).values` give them.

    Raises:
        InvalidInput: if the names or shapes are not those of the trainable parameters; nothing is changed.
    """
    trained, aliases = trained_tensors(module)
    if gradients.keys() != trained.keys():
        raise InvalidInput(
            "gradients are not those of the trainable parameters: "
            f"missing {sorted(trained.keys() - gradients.keys()) or 'none'}, "
            f"foreign {sorted(gradients.keys() - trained.keys()) or 'none'}"
        )
    for name, parameter in trained.items():
        if tuple(gradients[name].shape) != tuple(parameter.shape):
            raise InvalidInput(
                f"the gradient of '{name}' has shape {tuple(gradients[name].shape)}, the parameter has "
                f"{tuple(parameter.shape)}"
            )
    for name, parameter in module.named_parameters():
        if name in aliases:
            own = aliases[name] == name
            parameter.grad = torch.as_tensor(gradients[name]).to(parameter) if own else None
