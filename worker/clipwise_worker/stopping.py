"""Why an attempt is stopped from outside of its runner."""

from enum import Enum, auto


class Stopping(Enum):
    """Of several reasons the one further down counts."""

    PAUSED = auto()
    DRAINED = auto()
    WORKER_STOPS = auto()
    MAX_RUNTIME = auto()
    CANCELLED = auto()
    HINDERED = auto()
    BROKEN = auto()
    LOST = auto()

    @property
    def keeps(self) -> bool:
        """Whether the job goes on later, so that a checkpoint is worth waiting for."""
        return self in (Stopping.PAUSED, Stopping.DRAINED, Stopping.WORKER_STOPS)

    def overrules(self, other: "Stopping | None") -> bool:
        """Whether this reason counts where `other` was given before."""
        return other is None or self.value > other.value
