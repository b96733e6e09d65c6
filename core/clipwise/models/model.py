"""The abstract model: what the engine differentiates and the optimizer updates."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from clipwise.models.gradients import Gradients


class Model(ABC):
    """A model of some framework, with its loss."""

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, Any]:
        """Trainable parameters by name, in a fixed order; the model's own arrays, not copies."""

    @abstractmethod
    def compute_batch_gradients(
        self,
        batch: Any,
        max_norm: Any = None,
        groups: int | None = None,
        divisor: float | None = None,
    ) -> Gradients:
        """Return the averaged gradient of `batch`, every unit's clipped first if `max_norm` is given.

        Args:
            batch: `(inputs, targets)` or `(inputs, targets, sample_weights)`. Weights scale a row's loss
                before clipping; a row of weight 0 is padding and contributes nothing.
            max_norm: positive bound of a unit's joint L2 norm, or a clip rule (`clipwise.schedules`); None
                clips nothing.
            groups: number of consecutive rows that are one unit; None is one row.
            divisor: what the sum is divided by; None is the batch's own number of rows. Under Poisson
                sampling it is the expected batch size.

        Raises:
            InvalidInput: if an argument cannot be used.
            UnsupportedModule: if the model has no per-sample gradients.
        """

    @abstractmethod
    def apply_updates(self, updates: Mapping[str, Any]) -> None:
        """Add `updates` to the parameters of the same names.

        Raises:
            InvalidInput: if the names are not exactly those of the trainable parameters.
        """

    @abstractmethod
    def predict(self, inputs: Any) -> Any:
        """Return the outputs (B, ...) for `inputs`, as in evaluation: no dropout, nothing recorded."""

    @abstractmethod
    def compute_losses(self, batch: Any) -> Any:
        """Return the unweighted loss of every row of `batch`, (B,), as in evaluation."""
