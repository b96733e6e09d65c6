"""The worker process: what runs in it, and how it starts and stops."""

import importlib.metadata
import logging
import os
import platform
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import final

from clipwise import __version__, architectures, plugins
from clipwise.artifacts import ArtifactStore
from clipwise.ids import new_id
from clipwise.jobs.delivery import make_celery
from clipwise.jobs.recovery import Recovery
from clipwise.settings import Settings
from clipwise.store import claims, migration
from clipwise.store.claims import Capacity, Claimed
from clipwise.store.devices import Device
from clipwise.store.sessions import connect, reading, transaction
from clipwise.store.workers import WorkerInfo
from clipwise_worker import tasks
from clipwise_worker.consumer import Consumer
from clipwise_worker.controls import Controls
from clipwise_worker.gpus import devices_for
from clipwise_worker.nursery import Nursery
from clipwise_worker.presence import Presence
from clipwise_worker.runner_environment import runner_environment
from clipwise_worker.runner_process import COMMAND, RunnerProcess
from clipwise_worker.slots import Slots
from clipwise_worker.supervisor import Patience, Supervisor

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often a worker with a free slot looks for jobs that no message told it about."""
CONSUMER_STOP_SECONDS = 0.7


@final
class WorkerService:
    """One worker process.

    Raises:
        ConfigurationError: if a setting is wrong or the database is at another revision.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        queues = [queue.strip() for queue in settings.queues.split(",") if queue.strip()]
        self._engine = connect(settings.database)
        migration.require_current(self._engine)
        self._artifacts = ArtifactStore(settings.artifacts)
        self._folders = settings.data_dir.resolve() / "attempts"
        self.info = describe(queues, settings.slots, devices_for(settings.devices))
        self._capacity = Capacity(
            worker_id=self.info.id,
            queues=queues,
            kinds=list(self.info.kinds),
            host=self.info.host,
            devices=[device.uuid for device in self.info.devices],
            lease_seconds=settings.lease_seconds,
        )
        self._recovery = Recovery(first_seconds=settings.retry_seconds)
        self._patience = Patience(
            drain=settings.drain_seconds * 0.75, news=settings.lease_wait_seconds, shutdown=1.5
        )
        self._stopping = threading.Event()
        self._slots = Slots(
            settings.slots, self._claim, self._supervise, on_freed=lambda: self._nursery.look()
        )
        own = self._folders / self.info.id
        self._environment = runner_environment(os.environ, settings.slots)
        self._nursery = Nursery(self._environment, own, self._runners_wanted)
        self._presence = Presence(
            self._engine,
            self.info,
            self._slots,
            self._folders,
            heartbeat_seconds=settings.heartbeat_seconds,
            lease_seconds=settings.lease_seconds,
            recovery=self._recovery,
        )
        app = make_celery(settings.broker, settings.data_dir)
        tasks.register(app, self._slots.work)
        self._consumer = Consumer(app, queues, settings.slots)

    def start(self) -> None:
        """Register the worker and start everything; returns at once."""
        # In this order: who finds a folder finds whose it is.
        self._presence.start()
        (self._folders / self.info.id).mkdir(parents=True, exist_ok=True, mode=0o700)
        controls = Controls(self._engine, self.info.id, self._slots)
        for name, loop in (
            ("heartbeat", self._presence.beat_loop),
            ("reaper", self._presence.reap_loop),
            ("controls", controls.loop),
            ("look", self._look),
        ):
            threading.Thread(target=loop, args=(self._stopping,), name=name, daemon=True).start()
        self._nursery.start()
        self._consumer.start()
        log.info(
            "the worker starts: queues %s, %d slot(s), %d GPU(s), models %s",
            ", ".join(self.info.queues),
            self._settings.slots,
            len(self.info.devices),
            ", ".join(sorted(self.info.kinds)),
        )

    def stop(self) -> None:
        """Stop: attempts first, which write a checkpoint and go back, then the database, then Celery.

        Takes `drain_seconds` and about a second.
        """
        started = time.monotonic()
        self._stopping.set()
        if not self._slots.stop(self._settings.drain_seconds):
            log.warning("some attempts could not write their end; they are put back as lost")
        self._nursery.stop()
        self._presence.stop()
        self._consumer.stop(CONSUMER_STOP_SECONDS)
        log.info("the worker has stopped, after %.1f s", time.monotonic() - started)

    def _claim(self) -> Claimed | None:
        with transaction(self._engine) as session:
            return claims.claim(session, self._capacity)

    def _supervise(self, claimed: Claimed) -> Supervisor:
        attempt = claimed.attempt
        return Supervisor(
            claimed,
            engine=self._engine,
            artifacts=self._artifacts,
            folder=self._folders / self.info.id / f"{attempt.job_id}-{attempt.number}",
            spawn=self._spawn,
            # Counted from now and not from the claim, a moment ago: the next heartbeat sets it right.
            lease_until=time.monotonic() + self._settings.lease_seconds,
            patience=self._patience,
            recovery=self._recovery,
            memory_bytes=self._settings.runner_memory_bytes,
        )

    def _spawn(self, folder: Path, variables: Mapping[str, str]) -> RunnerProcess:
        ready = self._nursery.take()
        if ready is not None:
            ready.begin(folder, variables)
            return ready
        return RunnerProcess(COMMAND, {**self._environment, **variables}, folder, folder)

    def _runners_wanted(self) -> int:
        return self._slots.count_next() if self._settings.warm_runners else 0

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
            return claims.claimable(session, self._capacity)

    def _work(self) -> None:
        try:
            self._slots.work()
        except Exception:
            log.exception("a job could not be claimed")


def describe(queues: list[str], slots: int, devices: list[Device]) -> WorkerInfo:
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
        devices=devices,
    )
