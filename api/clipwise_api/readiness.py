"""Whether the process can do its work: database, revision, broker, artifact store, and who runs the jobs.

Every part is tried in a thread of its own and for a bounded time, so that one that hangs delays no other,
takes no thread from requests, and never hangs twice at once.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import final

from sqlalchemy import text

from clipwise.artifacts import ArtifactStore
from clipwise.store import fleet_metrics
from clipwise.store.migration import require_current
from clipwise.store.probing import probing_engine
from clipwise.store.sessions import reading
from clipwise.wire.fleet import Health
from clipwise_api.delivery import Delivery

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0
"""What does not answer for so long counts as away."""
FRESH_SECONDS = 0.5
"""An answer is given again for so long: anybody may ask, as often as they like."""
GIVEN_UP_SECONDS = 30.0
"""A try that hangs for so long is left to itself, and the next one begins."""
MOST_HANGING = 4

VITAL = frozenset({"database", "revision", "artifacts"})
"""Without one of these nothing works; without the broker jobs are still taken, and wait."""


@final
class Probe:
    """One thing that is tried, at most once at a time."""

    def __init__(self, name: str, work: Callable[[], str]) -> None:
        self._name = name
        self._work = work
        self._lock = threading.Lock()
        self._try: Future[str] | None = None
        self._begun = 0.0
        self._hanging = 0

    def begin(self) -> "Future[str]":
        """Begin a try, or return the one that runs or has only just ended."""
        with self._lock:
            age = time.monotonic() - self._begun
            if self._try is not None:
                lasts = FRESH_SECONDS if self._try.done() else GIVEN_UP_SECONDS
                if age < lasts or self._hanging >= MOST_HANGING:
                    return self._try
            self._try, self._begun = Future(), time.monotonic()
            self._hanging += 1
            # A daemon: a try that hangs must not keep the process from ending.
            threading.Thread(
                target=self._run, args=(self._try,), name=f"ready-{self._name}", daemon=True
            ).start()
            return self._try

    def _run(self, answer: "Future[str]") -> None:
        try:
            state = self._work()
        except Exception as error:
            log.warning("not ready: %s: %s", self._name, type(error).__name__)
            state = "unavailable"
        with self._lock:
            self._hanging -= 1
        answer.set_result(state)


class Readiness:
    """Tries what the process needs."""

    def __init__(self, database_url: str, artifacts: ArtifactStore, delivery: Delivery) -> None:
        engine = probing_engine(database_url)

        def database() -> str:
            with reading(engine) as session:
                session.execute(text("SELECT 1"))
            return "ok"

        def revision() -> str:
            require_current(engine)
            return "ok"

        def broker() -> str:
            delivery.check()
            return "ok"

        def store() -> str:
            artifacts.check()
            return "ok"

        def live_workers() -> str:
            with reading(engine) as session:
                present = fleet_metrics.workers_now(session)
            return "ok" if any(worker.state == "alive" for worker in present) else "none"

        self._probes: Mapping[str, Probe] = {
            "database": Probe("database", database),
            "revision": Probe("revision", revision),
            "broker": Probe("broker", broker),
            "artifacts": Probe("artifacts", store),
            "workers": Probe("workers", live_workers),
        }

    async def check(self) -> Health:
        """Try every part at once; the answer has no detail, the log has.

        `degraded` is a process that takes jobs, which cannot be delivered now. That no worker lives is said
        and changes nothing: it may be meant, and is no fault of this process.
        """
        tries = {name: asyncio.wrap_future(probe.begin()) for name, probe in self._probes.items()}
        await asyncio.wait(tries.values(), timeout=PATIENCE_SECONDS)
        checks = {name: one.result() if one.done() else "unavailable" for name, one in tries.items()}
        for name in [name for name, one in tries.items() if not one.done()]:
            log.warning("not ready: %s does not answer within %g s", name, PATIENCE_SECONDS)
        away = {name for name, state in checks.items() if state == "unavailable"}
        if away & VITAL:
            return Health(status="unavailable", checks=dict(checks))
        return Health(status="degraded" if away else "ok", checks=dict(checks))
