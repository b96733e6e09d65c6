"""The worker process: what runs in it, and how it starts and stops."""

import importlib.metadata
import logging
import os
import platform
import socket
import threading
import time
from typing import final

from clipwise import __version__, architectures, plugins
from clipwise.artifacts import ArtifactStore
from clipwise.ids import new_id
from clipwise.jobs.delivery import make_celery
from clipwise.settings import Settings
from clipwise.store import attempts, migration
from clipwise.store.attempts import Claimed
from clipwise.store.sessions import connect, reading, transaction
from clipwise.store.workers import WorkerInfo
from clipwise_worker import tasks
from clipwise_worker.consumer import Consumer
from clipwise_worker.controls import Controls
from clipwise_worker.presence import Presence
from clipwise_worker.runner_environment import runner_environment
from clipwise_worker.slots import Slots
from clipwise_worker.supervisor import Supervisor

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often a worker with a free slot looks for jobs that no message told it about."""
RUNNERS_STOP_SECONDS = 3.5
CONSUMER_STOP_SECONDS = 0.7


@final
class WorkerService:
    """One worker process.

    Raises:
        ConfigurationError: if a setting is wrong or the database is at another revision.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queues = [queue.strip() for queue in settings.queues.split(",") if queue.strip()]
        self._engine = connect(settings.database)
        migration.require_current(self._engine)
        self._artifacts = ArtifactStore(settings.artifacts)
        self._folders = settings.data_dir.resolve() / "attempts"
        self.info = describe(self._queues, settings.slots)
        self._kinds = list(self.info.kinds)
        self._stopping = threading.Event()
        self._slots = Slots(settings.slots, self._claim, self._supervise)
        self._presence = Presence(self._engine, self.info, self._folders)
        app = make_celery(settings.broker, settings.data_dir)
        tasks.register(app, self._slots.work)
        self._consumer = Consumer(app, self._queues, settings.slots)

    def start(self) -> None:
        """Register the worker and start everything; returns at once."""
        self._presence.start()
        controls = Controls(self._engine, self.info.id, self._slots)
        for name, loop in (
            ("heartbeat", self._presence.loop),
            ("controls", controls.loop),
            ("look", self._look),
        ):
            threading.Thread(target=loop, args=(self._stopping,), name=name, daemon=True).start()
        self._consumer.start()
        log.info(
            "worker %s: queues %s, %d slot(s), models %s",
            self.info.id,
            ", ".join(self._queues),
            self._settings.slots,
            ", ".join(sorted(self._kinds)),
        )

    def stop(self) -> None:
        """Stop within 5 s: runners first, then the word in the database, then Celery."""
        self._stopping.set()
        started = time.monotonic()
        if not self._slots.stop(RUNNERS_STOP_SECONDS):
            log.warning("some attempts could not write their end; they are ended as lost")
        self._presence.stop()
        self._consumer.stop(CONSUMER_STOP_SECONDS)
        log.info("worker %s: stopped after %.1f s", self.info.id, time.monotonic() - started)

    def _claim(self) -> Claimed | None:
        with transaction(self._engine) as session:
            return attempts.claim(session, self.info.id, self._queues, self._kinds)

    def _supervise(self, claimed: Claimed) -> Supervisor:
        attempt = claimed.attempt
        folder = self._folders / self.info.id / f"{attempt.job_id}-{attempt.number}"
        return Supervisor(
            claimed,
            engine=self._engine,
            artifacts=self._artifacts,
            folder=folder,
            environment=runner_environment(os.environ, folder / "tmp", self._settings.slots),
        )

    def _look(self, stopping: threading.Event) -> None:
        """Make lost messages cost nothing: fill free slots with jobs that are only in the database."""
        while not stopping.wait(LOOK_SECONDS):
            try:
                if self._slots.has_free() and self._has_work():
                    threading.Thread(target=self._work, name="looked", daemon=True).start()
            except Exception as error:
                log.warning("the worker cannot look for jobs now: %s", type(error).__name__)

    def _has_work(self) -> bool:
        with reading(self._engine) as session:
            return attempts.claimable(session, self._queues, self._kinds)

    def _work(self) -> None:
        try:
            self._slots.work()
        except Exception:
            log.exception("a job could not be claimed")


def describe(queues: list[str], slots: int) -> WorkerInfo:
    """Return what a new worker says about itself; its frameworks' versions are read without loading them."""
    versions = {"clipwise": __version__, "python": platform.python_version()}
    for distribution in ("torch", "scikit-learn"):
        try:
            versions[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return WorkerInfo(
        id=new_id("wkr"),
        host=socket.gethostname(),
        pid=os.getpid(),
        queues=queues,
        slots=slots,
        kinds={kind: plugins.json_schema(cls) for kind, cls in architectures.kinds().items()},
        versions=versions,
    )
