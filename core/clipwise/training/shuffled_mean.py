"""How batches are drawn and averaged without privacy: shuffled epochs and the plain mean."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@final
class ShuffledMean:
    """Batches of one size from an endless row of shuffled epochs; the same seed gives the same batches.

    It has no accounting event: nothing that it does is a release under a guarantee.

    Args:
        batch_size: rows of every batch; a batch may reach from one epoch into the next.
        seed: of the shuffling.
    """

    def __init__(self, *, batch_size: int, seed: int) -> None:
        self.batch_size = batch_size
        self._generator = np.random.default_rng(seed)
        self._waiting: Indices = np.empty(0, np.int64)

    def draw(self, rows: int) -> Indices:
        """Return the positions of the next batch among `rows` rows."""
        while len(self._waiting) < self.batch_size:
            self._waiting = np.concatenate([self._waiting, self._generator.permutation(rows)])
        batch, self._waiting = np.split(self._waiting, [self.batch_size])
        return batch

    def get_state(self) -> tuple[dict[str, Any], Indices]:
        """Return where the sampler is: its generator's state, as JSON, and the drawn positions that wait."""
        return dict(self._generator.bit_generator.state), self._waiting.copy()

    def set_state(self, state: Mapping[str, Any], waiting: Indices) -> None:
        """Go on from a state that `get_state` gave."""
        self._generator.bit_generator.state = dict(state)
        self._waiting = waiting.astype(np.int64)

    def average(self, sums: Mapping[str, npt.NDArray[Any]], realised: int) -> dict[str, npt.NDArray[Any]]:
        """Return the mean over the `realised` rows of the batch."""
        return {name: total / realised for name, total in sums.items()}
