"""A worker among others: its heartbeat, the leases of its attempts, and what workers left that are gone."""

import logging
import shutil
import threading
import time
from pathlib import Path
from typing import final

import psutil
from sqlalchemy import Engine

from clipwise.jobs.recovery import Recovery
from clipwise.store import leases, reaper, workers
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import WorkerRow
from clipwise.store.workers import WorkerInfo
from clipwise_worker.slots import Slots
from clipwise_worker.stopping import Stopping

log = logging.getLogger(__name__)

REAP_SECONDS = 1.0
GONE_HEARTBEATS = 3
"""A worker of this host that missed so many, and whose process is not there any more, is gone for certain."""


@final
class Presence:
    """Says that this worker is alive, renews the leases of its attempts, and looks after those of others.

    Args:
        engine: the database.
        worker: this worker.
        slots: its attempts.
        folders: the folder with one folder of attempts per worker.
        heartbeat_seconds: how often it says so.
        lease_seconds: how long an attempt owns its job after a renewal.
        recovery: after which pauses an interrupted job is taken up again.
    """

    def __init__(
        self,
        engine: Engine,
        worker: WorkerInfo,
        slots: Slots,
        folders: Path,
        *,
        heartbeat_seconds: float = 10.0,
        lease_seconds: float = 45.0,
        recovery: Recovery,
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._slots = slots
        self._folders = folders
        self._heartbeat_seconds = heartbeat_seconds
        self._lease_seconds = lease_seconds
        self._recovery = recovery

    def start(self) -> None:
        """Register this worker, and look for what dead ones left."""
        with transaction(self._engine) as session:
            workers.register(session, self._worker)
        self.look_after_others()

    def beat_loop(self, stopping: threading.Event) -> None:
        """Go on until `stopping` is set and no attempt is left, through outages of the database."""
        pause = self._heartbeat_seconds
        while not stopping.wait(pause) or self._slots.running():
            try:
                self.beat()
                pause = self._heartbeat_seconds
            except Exception as error:
                log.warning("the heartbeat cannot be written now: %s", type(error).__name__)
                # The lease goes on meanwhile: what was missed is made up for as soon as possible.
                pause = min(1.0, self._heartbeat_seconds)
            if stopping.is_set():
                time.sleep(min(0.05, pause))

    def reap_loop(self, stopping: threading.Event) -> None:
        """Look after the others until `stopping` is set, through outages of the database."""
        beats = 0
        while not stopping.wait(REAP_SECONDS):
            try:
                self.reap()
                beats += 1
                if beats % max(1, round(self._heartbeat_seconds / REAP_SECONDS)) == 0:
                    self.look_after_others()
            except Exception as error:
                log.warning("lost attempts cannot be looked for now: %s", type(error).__name__)

    def beat(self) -> None:
        """Say that this worker is alive, and renew the lease of each attempt or learn that it is lost."""
        running = self._slots.running()
        # Counted from before the question: the database's answer may take its time.
        until = time.monotonic() + self._lease_seconds
        with transaction(self._engine) as session:
            if not workers.heartbeat(session, self._worker.id):
                workers.register(session, self._worker)
            renewed = leases.renew(session, running.keys(), self._lease_seconds)
        for attempt, supervisor in running.items():
            if attempt in renewed:
                supervisor.renewed(until)
            elif attempt in self._slots.running():  # it may have ended by itself meanwhile
                supervisor.stop(Stopping.LOST)

    def reap(self) -> None:
        """Do what is due about jobs whose lease or time is over, unless another process does it."""
        with transaction(self._engine) as session:
            reaped = reaper.reap(session, self._recovery, grace_seconds=2 * self._heartbeat_seconds)
        for job_id in reaped.interrupted:
            log.warning("job %s: its worker was lost, it waits to be taken up again", job_id)
        for job_id in reaped.ended:
            log.warning("job %s: it was ended", job_id)

    def stop(self) -> None:
        """Say that this worker has stopped; jobs that it could not put back itself are put back now."""
        try:
            with transaction(self._engine) as session:
                workers.stop(session, self._worker.id)
                reaper.give_up(session, [self._worker.id], "the worker stopped", self._recovery)
        except Exception as error:
            log.warning("the worker's stop cannot be written: %s", type(error).__name__)
        shutil.rmtree(self._folders / self._worker.id, ignore_errors=True)

    def look_after_others(self) -> None:
        """Put back the jobs of this host's workers that are gone, and remove what their attempts fetched."""
        silent_seconds = GONE_HEARTBEATS * self._heartbeat_seconds
        with transaction(self._engine) as session:
            gone = [
                other.id
                for other in workers.silent(session, self._worker.host, silent_seconds)
                if self._is_gone(other)
            ]
            for other in gone:
                workers.stop(session, other)
            for job_id in reaper.give_up(session, gone, "the worker's process is gone", self._recovery):
                log.warning("job %s: its worker is gone, it waits to be taken up again", job_id)
        self._remove_folders()

    def _remove_folders(self) -> None:
        found = {folder.name for folder in self._folders.iterdir()} if self._folders.is_dir() else set()
        if not found - {self._worker.id}:
            return
        with reading(self._engine) as session:
            rows = workers.by_id(session, found)
        for name in found - {self._worker.id}:
            # A worker that was not heard of may be cut off from the database, and still at work.
            if not self._may_live(rows.get(name)):
                shutil.rmtree(self._folders / name, ignore_errors=True)

    def _may_live(self, other: WorkerRow | None) -> bool:
        if other is None:  # of another database, which knows better
            return True
        if other.host == self._worker.host:
            return not self._is_gone(other)
        return other.stopped_at is None

    def _is_gone(self, other: WorkerRow) -> bool:
        """Tell whether the process of a worker of this host is gone; silence alone may be an outage's."""
        if other.id == self._worker.id:
            return False
        # The number can be this process's own: a container that was started again.
        return other.pid == self._worker.pid or not _lives(other.pid)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
