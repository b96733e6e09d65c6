"""Gaussian noise on the averaged gradient, for research; not a privacy mechanism."""

from typing import Annotated, Literal

from annotated_types import Gt, Le

from clipwise.configuration import configuration
from clipwise.optim.frameworks import Array, arrays_for
from clipwise.optim.module import Out, State


@configuration
class GaussianNoise:
    """Add independent Gaussian noise of standard deviation `std` to every element.

    `u <- u + std * N(0, 1)`. The generator is seeded by the operating system at every step. This noise
    is not accounted for: a job with `privacy` refuses it, because there noise is the mechanism's alone.

    Source: Neelakantan et al., Adding gradient noise improves learning for very deep networks (2015).
    """

    kind: Literal["gaussian_noise"] = "gaussian_noise"
    std: Annotated[float, Gt(0), Le(1e12)]

    def init(self, params: Array) -> State:  # noqa: ARG002
        """Return the state before the first step: nothing is remembered."""
        return {}

    def update(
        self,
        state: State,
        updates: Array,
        params: Array,  # noqa: ARG002
        out: Out | None = None,
    ) -> tuple[Array, State]:
        """Return the updates with noise added."""
        arrays = arrays_for(updates)
        noise = arrays.standard_normal_like(updates)
        return arrays.add_scaled(updates, noise, self.std, out=out[0] if out else None), state
