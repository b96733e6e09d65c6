"""What the database asks of running attempts: cancel, and "you have lost your job"."""

import logging
import threading
from typing import final

from sqlalchemy import Engine

from clipwise.errors import StaleToken
from clipwise.store import attempts
from clipwise.store.attempts import Attempt
from clipwise.store.sessions import reading, transaction
from clipwise_worker.slots import Slots
from clipwise_worker.stopping import Stopping

log = logging.getLogger(__name__)

EVERY_SECONDS = 0.5
STRAY_READS = 10
"""An attempt that is this worker's, but runs in no slot, is ended when it was seen so often in a row."""


@final
class Controls:
    """Reads the wishes for all attempts of a worker with one query, twice a second."""

    def __init__(self, engine: Engine, worker_id: str, slots: Slots) -> None:
        self._engine = engine
        self._worker_id = worker_id
        self._slots = slots
        self._strays: dict[Attempt, int] = {}

    def loop(self, stopping: threading.Event) -> None:
        """Read until `stopping` is set; an outage of the database changes nothing for the attempts."""
        while not stopping.wait(EVERY_SECONDS):
            try:
                self.read()
            except Exception as error:
                log.warning("the wishes for running jobs cannot be read now: %s", type(error).__name__)

    def read(self) -> None:
        """Pass on what the database says about the attempts that run now."""
        running = self._slots.running()
        with reading(self._engine) as session:
            wishes = attempts.read_controls(session, self._worker_id)
        for attempt, supervisor in running.items():
            if attempt not in wishes:
                supervisor.stop(Stopping.LOST)
            elif wishes[attempt]:
                supervisor.stop(Stopping.CANCELLED)
        self._end_strays(wishes, running.keys() | self._slots.running().keys())

    def _end_strays(self, wishes: dict[Attempt, bool], running: set[Attempt]) -> None:
        """End what nobody runs: a claim whose answer was lost, an end that could not be written."""
        # Between a claim and its slot lies a moment, so once is no proof.
        self._strays = {stray: self._strays.get(stray, 0) + 1 for stray in wishes.keys() - running}
        for stray in [stray for stray, seen in self._strays.items() if seen >= STRAY_READS]:
            log.warning("job %s: runs in no slot of its worker, it is ended", stray.job_id)
            try:
                with transaction(self._engine) as session:
                    attempts.finish(session, stray, attempts.lost_outcome(cancelling=wishes[stray]))
            except StaleToken:
                continue
