"""How often an interrupted job is tried again, and after which pause."""

from dataclasses import dataclass

RUNNER_DEATHS = 2
"""A job whose runner has died so often by itself is poison: it fails."""
WORKER_LOSSES = 10
"""Workers, databases and stores that a job may lose before it fails."""
LONGEST_PAUSE_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """The pauses of one service.

    Attributes:
        first_seconds: pause after the first interruption; each further one takes twice as long.
    """

    first_seconds: float = 2.0

    def pause_seconds(self, interruptions: int) -> float:
        """Return how long a job waits after it was interrupted for the `interruptions`-th time, from 1."""
        return float(min(self.first_seconds * 2.0 ** max(interruptions - 1, 0), LONGEST_PAUSE_SECONDS))


DEFAULT_RECOVERY = Recovery()
