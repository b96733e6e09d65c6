"""What the database asks of running attempts: cancel, and "you have lost your job"."""

import logging
import threading
from typing import final

from sqlalchemy import Engine

from clipwise.store import attempts
from clipwise.store.sessions import reading
from clipwise_worker.slots import Slots
from clipwise_worker.stopping import Stopping

log = logging.getLogger(__name__)

EVERY_SECONDS = 0.5


@final
class Controls:
    """Reads the wishes for all attempts of a worker with one query, twice a second, while any runs."""

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
        """Pass on what the database says about the attempts that run now."""
        running = self._slots.running()
        if not running:
            return
        with reading(self._engine) as session:
            wishes = attempts.read_controls(session, self._worker_id)
        for attempt, supervisor in running.items():
            cancelling = wishes.get((attempt.job_id, attempt.token))
            if cancelling is None:
                supervisor.stop(Stopping.LOST)
            elif cancelling:
                supervisor.stop(Stopping.CANCELLED)
