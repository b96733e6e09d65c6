"""Celery's consumer, on a thread of its own, so that the process stops when it is told to."""

import logging
import threading
from collections.abc import Sequence
from typing import final

from celery import Celery
from celery.worker import WorkController, state

from clipwise.jobs.delivery import queue_of

log = logging.getLogger(__name__)

RESTART_SECONDS = 5.0


@final
class Consumer:
    """Takes wake-up messages until it is stopped; an error of Celery's starts it again after a while.

    Args:
        app: the application, with its task registered.
        queues: the queues to serve.
        slots: threads of Celery's pool.
    """

    def __init__(self, app: Celery, queues: Sequence[str], slots: int) -> None:
        app.conf.task_queues = [queue_of(queue) for queue in queues]
        # Threads of the pool look their task up in the process's default application, and find none in
        # another one, without a word.
        app.set_default()
        self._app = app
        self._slots = slots
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="consumer", daemon=True)

    def start(self) -> None:
        """Start to consume."""
        self._thread.start()

    def stop(self, within_seconds: float) -> None:
        """Stop to consume; after so many seconds the process goes without waiting for Celery any longer."""
        self._stopping.set()
        state.should_stop = 0
        self._thread.join(within_seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                WorkController(
                    app=self._app,
                    pool_cls="threads",
                    concurrency=self._slots,
                    without_gossip=True,
                    without_mingle=True,
                    without_heartbeat=True,
                ).start()
            except Exception:
                log.exception("the message consumer failed and is started again")
            self._stopping.wait(RESTART_SECONDS)
