"""The mechanism of private training: sampler, noise and accounting event as one object."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


def _system_generator() -> np.random.Generator:
    """Return a generator seeded with 128 fresh bits of the operating system, kept nowhere."""
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence()))


@final
@dataclass(frozen=True, kw_only=True)
class PoissonGaussian:
    r"""The Poisson-subsampled Gaussian mechanism on sums of clipped gradients.

    Each step tosses an independent coin of probability :math:`q` for every row, sums the gradients
    :math:`g_i`, :math:`\|g_i\| \le C`, of the rows that were drawn, and releases
    :math:`(\sum_i g_i + \sigma C\,\mathcal{N}(0, I)) / b` with the public :math:`b`, never the realised
    batch size. A step that draws nobody is a step like any other. Under zero-out adjacency one row
    changes the sum by at most :math:`C`: the joint sensitivity that the clip rule states for the trained
    parameters (`clipwise.schedules.sensitivity_of`).

    No seed can be given: coins and noise come from the operating system's entropy, so two runs of one
    job draw different rows and different noise. The generators are not part of the object's equality,
    representation or any saved state.

    Source: Abadi et al. 2016, Deep Learning with Differential Privacy.

    Attributes:
        sampling_rate: q, the probability with which each row takes part in a step.
        noise_multiplier: sigma, the noise's standard deviation in units of `sensitivity`.
        sensitivity: C, the joint L2 norm within which each row's clipped gradient stays.
        expected_batch_size: b, the public number of rows that a noisy sum is divided by.

    Raises:
        ValueError: if a number is outside of its range.
    """

    sampling_rate: float
    noise_multiplier: float
    sensitivity: float
    expected_batch_size: float
    _coins: np.random.Generator = field(
        default_factory=_system_generator, init=False, repr=False, compare=False
    )
    _noise: np.random.Generator = field(
        default_factory=_system_generator, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"sampling_rate is {self.sampling_rate}; it is a probability above 0")
        for name in ("noise_multiplier", "sensitivity", "expected_batch_size"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; it must be a positive, finite number")

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on each entry of the *sum*."""
        return self.noise_multiplier * self.sensitivity

    def draw(self, rows: int) -> Indices:
        """Toss a coin for each of `rows` rows; return the positions of those drawn, ascending.

        The gaps between heads of independent coins are independent geometric variables, so only the
        heads are generated: the cost grows with the batch and not with the data set.
        """
        drawn: list[Indices] = []
        last = -1
        while last < rows - 1:
            expected = (rows - 1 - last) * self.sampling_rate
            # A gap beyond the last row ends the draw, so longer ones may be cut: sums cannot overflow.
            gaps = self._coins.geometric(self.sampling_rate, size=int(expected + 4 * math.sqrt(expected)) + 8)
            positions = last + np.cumsum(np.minimum(gaps, rows + 1), dtype=np.int64)
            drawn.append(positions[positions < rows])
            last = int(positions[-1])
        return np.concatenate(drawn) if drawn else np.empty(0, np.int64)

    def average(self, sums: Mapping[str, npt.NDArray[Any]], realised: int) -> dict[str, Doubles]:
        """Add fresh noise to each tensor of clipped sums and divide, once, by the expected batch size.

        Args:
            sums: for each parameter the sum of the drawn rows' clipped gradients, zeros if none.
            realised: how many rows were drawn; private, and without any influence here.

        Returns:
            The noisy averages in double precision: all that an optimizer may see.
        """
        del realised
        return {
            name: (total + self.noise_std * self._noise.standard_normal(total.shape, dtype=np.float64))
            / self.expected_batch_size
            for name, total in sums.items()
        }

    def epsilon(self, *, steps: int, delta: float) -> float:
        """Return epsilon at `delta` after `steps` steps of exactly this sampler and this noise.

        An upper bound, under zero-out adjacency; see `clipwise.privacy.epsilon`.
        """
        from clipwise.privacy import accountant

        return accountant.epsilon(
            noise_multiplier=self.noise_multiplier, sampling_rate=self.sampling_rate, steps=steps, delta=delta
        )

    def event(self, steps: int) -> Any:
        """Return the `dp_accounting` event of `steps` steps of exactly this sampler and this noise."""
        from clipwise.privacy import accountant

        return accountant.event(
            noise_multiplier=self.noise_multiplier, sampling_rate=self.sampling_rate, steps=steps
        )
