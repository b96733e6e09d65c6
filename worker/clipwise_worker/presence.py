"""A worker among others: its heartbeat, and what is to be done about workers that are gone."""

import logging
import shutil
import threading
from pathlib import Path
from typing import final

import psutil
from sqlalchemy import Engine

from clipwise.store import attempts, workers
from clipwise.store.sessions import reading, transaction
from clipwise.store.workers import WorkerInfo

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""A worker that was not heard of for so long has lost its jobs."""
GONE_SECONDS = 3 * HEARTBEAT_SECONDS
"""The same for one of this host whose process is not there any more."""


@final
class Presence:
    """Says that this worker is alive, and ends the jobs of workers that are not.

    Args:
        engine: the database.
        worker: this worker.
        folders: the folder with one folder of attempts per worker.
    """

    def __init__(self, engine: Engine, worker: WorkerInfo, folders: Path) -> None:
        self._engine = engine
        self._worker = worker
        self._folders = folders

    def start(self) -> None:
        """Register this worker, and look for what dead ones left."""
        with transaction(self._engine) as session:
            workers.register(session, self._worker)
        self.look_after_others()

    def loop(self, stopping: threading.Event) -> None:
        """Go on until `stopping` is set, through outages of the database."""
        while not stopping.wait(HEARTBEAT_SECONDS):
            try:
                with transaction(self._engine) as session:
                    known = workers.heartbeat(session, self._worker.id)
                    if not known:
                        workers.register(session, self._worker)
                self.look_after_others()
            except Exception as error:
                log.warning("the heartbeat cannot be written now: %s", type(error).__name__)

    def stop(self) -> None:
        """Say that this worker has stopped; jobs that it could not end itself are ended now."""
        try:
            with transaction(self._engine) as session:
                workers.stop(session, self._worker.id)
            with transaction(self._engine) as session:
                attempts.fail_lost(session, SILENT_SECONDS)
        except Exception as error:
            log.warning("the worker's stop cannot be written: %s", type(error).__name__)
        shutil.rmtree(self._folders / self._worker.id, ignore_errors=True)

    def look_after_others(self) -> None:
        """End the jobs of workers that are gone, and remove the rows that their attempts had fetched."""
        with transaction(self._engine) as session:
            for other in workers.silent(session, self._worker.host, GONE_SECONDS):
                # The number can be this process's own: a container that was started again.
                if other.pid == self._worker.pid or not _lives(other.pid):
                    workers.stop(session, other.id)
        with transaction(self._engine) as session:
            lost = attempts.fail_lost(session, SILENT_SECONDS)
        for job_id in lost:
            log.warning("job %s: its worker is gone, it has been ended", job_id)
        self._remove_folders()

    def _remove_folders(self) -> None:
        found = {folder.name for folder in self._folders.iterdir()} if self._folders.is_dir() else set()
        if not found - {self._worker.id}:
            return
        with reading(self._engine) as session:
            living = {worker.id for worker in workers.alive(session, SILENT_SECONDS)}
        for name in found - living - {self._worker.id}:
            shutil.rmtree(self._folders / name, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
