"""Adam."""

from typing import Annotated, Literal

from annotated_types import Gt, Le

from clipwise.configuration import Fraction, configuration
from clipwise.optim.frameworks import Array, arrays_for
from clipwise.optim.module import Out, State


@configuration
class Adam:
    """Divide a running mean of the gradients by the root of a running mean of their squares.

    `m <- beta_1 m + (1 - beta_1) u`, `s <- beta_2 s + (1 - beta_2) u^2`, then with both means corrected
    for their start at zero `u <- m / (sqrt(s) + eps)`. Equal to `torch.optim.Adam`, and with the
    optimizer's `weight_decay` to `torch.optim.AdamW`.

    Source: Kingma and Ba, Adam: a method for stochastic optimization (2015).
    """

    kind: Literal["adam"] = "adam"
    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.999
    eps: Annotated[float, Gt(0), Le(1.0)] = 1e-8

    def init(self, params: Array) -> State:
        """Return the state before the first step: means of zero."""
        arrays = arrays_for(params)
        return {
            "step": arrays.number(0.0),
            "mean": arrays.zeros_like(params),
            "square": arrays.zeros_like(params),
        }

    def update(
        self,
        state: State,
        updates: Array,
        params: Array,  # noqa: ARG002
        out: Out | None = None,
    ) -> tuple[Array, State]:
        """Return the corrected, normalised mean and the new state."""
        arrays = arrays_for(updates)
        step = float(state["step"]) + 1.0
        mean = arrays.multiply(state["mean"], self.beta_1, out=out[1]["mean"] if out else None)
        mean = arrays.add_scaled(mean, updates, 1.0 - self.beta_1, out=mean)
        square = arrays.multiply(state["square"], self.beta_2, out=out[1]["square"] if out else None)
        square = arrays.add_scaled_product(square, updates, updates, 1.0 - self.beta_2)
        root = arrays.root_plus(square, (1.0 - self.beta_2**step) ** -0.5, self.eps)
        result = arrays.divide(mean, root, out=out[0] if out else None)
        result = arrays.multiply(result, 1.0 / (1.0 - self.beta_1**step), out=result)
        return result, {"step": arrays.number(step), "mean": mean, "square": square}
