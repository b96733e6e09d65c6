"""A worker's slots: whoever is woken fills one, and goes on until the queues have nothing more."""

import logging
import threading
from collections.abc import Callable
from typing import final

from clipwise.store.attempts import Attempt
from clipwise.store.claims import Claimed
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
        on_freed: called when an attempt has ended.
    """

    def __init__(
        self,
        count: int,
        claim: Callable[[], Claimed | None],
        supervise: Callable[[Claimed], Supervisor],
        on_freed: Callable[[], None] = lambda: None,
    ) -> None:
        self._count = count
        self._free = threading.Semaphore(count)
        self._claim = claim
        self._supervise = supervise
        self._on_freed = on_freed
        self._lock = threading.Lock()
        self._running: dict[Attempt, Supervisor] = {}
        self._stopping = False
        self._draining = False
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
        """Tell whether a slot is free now, and may be filled."""
        if self._free.acquire(blocking=False):
            self._free.release()
            return not (self._stopping or self._draining)
        return False

    def count_next(self) -> int:
        """Return how many attempts may begin next: one for each free slot, or one as soon as any is free."""
        with self._lock:
            return 0 if self._stopping or self._draining else max(1, self._count - len(self._running))

    def running(self) -> dict[Attempt, Supervisor]:
        """Return the supervisors of the attempts that run now."""
        with self._lock:
            return dict(self._running)

    def drain(self, *, draining: bool) -> None:
        """Take no more jobs and put those that run back into their queues; or take jobs again."""
        with self._lock:
            if draining == self._draining:
                return
            self._draining = draining
            log.info("the worker %s", "drains: it takes no more jobs" if draining else "takes jobs again")
            if draining:
                for supervisor in self._running.values():
                    supervisor.stop(Stopping.DRAINED)

    def stop(self, within_seconds: float) -> bool:
        """Take no more jobs, stop those that run, and tell whether all ended within so many seconds."""
        with self._lock:
            self._stopping = True
            for supervisor in self._running.values():
                supervisor.stop(Stopping.WORKER_STOPS)
            return self._idle.wait_for(lambda: not self._running, within_seconds)

    def _run_one(self) -> bool:
        if self._stopping or self._draining:
            return False
        claimed = self._claim()
        if claimed is None:
            return False
        supervisor = self._supervise(claimed)
        with self._lock:
            self._running[claimed.attempt] = supervisor
            if self._stopping:
                supervisor.stop(Stopping.WORKER_STOPS)
            elif self._draining:
                supervisor.stop(Stopping.DRAINED)
        try:
            supervisor.run()
        finally:
            with self._lock:
                self._running.pop(claimed.attempt)
                self._idle.notify_all()
            self._on_freed()
        return True
