"""What the database asks of running attempts: cancel, pause, drain, and "you have lost your job"."""

import logging
import threading
from typing import final

from sqlalchemy import Engine

from clipwise.jobs.states import JobStatus
from clipwise.store import leases
from clipwise.store.sessions import reading
from clipwise_worker.slots import Slots
from clipwise_worker.stopping import Stopping

log = logging.getLogger(__name__)

EVERY_SECONDS = 0.5
WISHES = {JobStatus.CANCELLING: Stopping.CANCELLED, JobStatus.PAUSING: Stopping.PAUSED}


@final
class Controls:
    """Reads the wishes for all attempts of a worker with one query, twice a second."""

    def __init__(self, engine: Engine, worker_id: str, slots: Slots) -> None:
        self._engine = engine
        self._worker_id = worker_id
        self._slots = slots

    def loop(self, stopping: threading.Event) -> None:
        """Read until `stopping` is set; an outage of the database changes nothing for the attempts."""
        while not stopping.wait(EVERY_SECONDS):
            try:
                self.read()
            except Exception as error:
                log.warning("the wishes for running jobs cannot be read now: %s", type(error).__name__)

    def read(self) -> None:
        """Pass on what the database says about this worker and the attempts that run now."""
        running = self._slots.running()
        with reading(self._engine) as session:
            wishes = leases.read_controls(session, self._worker_id)
            draining = leases.is_draining(session, self._worker_id)
        for attempt, supervisor in running.items():
            if attempt not in wishes:
                supervisor.stop(Stopping.LOST)
            elif (wish := WISHES.get(wishes[attempt])) is not None:
                supervisor.stop(wish)
        self._slots.drain(draining=draining)
