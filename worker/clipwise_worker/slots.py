"""A worker's slots: whoever is woken fills one, and goes on until the queues have nothing more."""

import logging
import threading
from collections.abc import Callable
from typing import final

from clipwise.store.attempts import Attempt, Claimed
from clipwise_worker.stopping import Stopping
from clipwise_worker.supervisor import Supervisor

log = logging.getLogger(__name__)


@final
class Slots:
    """Runs up to `count` attempts at once.

    Args:
        count: number of slots.
        claim: takes the best job that this worker can run, or None.
        supervise: makes the supervisor of a claimed job.
    """

    def __init__(
        self, count: int, claim: Callable[[], Claimed | None], supervise: Callable[[Claimed], Supervisor]
    ) -> None:
        self._free = threading.Semaphore(count)
        self._claim = claim
        self._supervise = supervise
        self._lock = threading.Lock()
        self._running: dict[Attempt, Supervisor] = {}
        self._stopping = False
        self._idle = threading.Condition(self._lock)

    def work(self) -> None:
        """Run jobs in a free slot until there are none; return at once if no slot is free."""
        if not self._free.acquire(blocking=False):
            return  # each busy slot looks for more work when it is done
        try:
            while self._run_one():
                pass
        finally:
            self._free.release()

    def has_free(self) -> bool:
        """Tell whether a slot is free now."""
        if self._free.acquire(blocking=False):
            self._free.release()
            return not self._stopping
        return False

    def running(self) -> dict[Attempt, Supervisor]:
        """Return the supervisors of the attempts that run now."""
        with self._lock:
            return dict(self._running)

    def stop(self, within_seconds: float) -> bool:
        """Take no more jobs, stop those that run, and tell whether all ended within so many seconds."""
        with self._lock:
            self._stopping = True
            for supervisor in self._running.values():
                supervisor.stop(Stopping.WORKER_STOPS)
            return self._idle.wait_for(lambda: not self._running, within_seconds)

    def _run_one(self) -> bool:
        if self._stopping:
            return False
        claimed = self._claim()
        if claimed is None:
            return False
        supervisor = self._supervise(claimed)
        with self._lock:
            self._running[claimed.attempt] = supervisor
            if self._stopping:
                supervisor.stop(Stopping.WORKER_STOPS)
        try:
            supervisor.run()
        finally:
            with self._lock:
                self._running.pop(claimed.attempt)
                self._idle.notify_all()
        return True
