"""The one Celery task: a message that says "this queue has work"."""

import logging
from collections.abc import Callable
from typing import Any

from celery import Celery

from clipwise.jobs.delivery import TASK

log = logging.getLogger(__name__)


def register(app: Celery, work: Callable[[], None]) -> Any:
    """Register `clipwise.work` with the application; it calls `work`, which never waits for a slot."""

    @app.task(name=TASK, ignore_result=True, shared=False)  # type: ignore[untyped-decorator]
    def run(queue: str) -> None:
        log.debug("woken for queue %s", queue)
        work()

    return run
