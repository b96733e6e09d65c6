"""The faults: each hurts one part of a running cluster, for a moment, and says what it hit."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil
import redis
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from clipwise.jobs.delivery import make_celery, wake
from clipwise.jobs.states import OWNED
from clipwise.store.sessions import reading
from clipwise.store.tables import JobRow, WorkerRow
from tests.faults.cluster import Cluster

RESTART_SECONDS = (0.2, 2.0)
FREEZE_SECONDS = (1.0, 6.0)


@dataclass(frozen=True)
class Hit:
    """A running attempt that a fault hit, in the phase in which it was."""

    kind: str
    job_id: str
    attempt: int
    phase: str
    at: datetime
    interrupts: bool


class Injector:
    """Hurts a cluster.

    Args:
        cluster: the victim.
        chance: makes every choice, so that a seed gives the same history again.
        submit: submits a job through one api, and returns whether it was accepted.
    """

    def __init__(self, cluster: Cluster, chance: random.Random, submit: Callable[[int], bool]) -> None:
        self.cluster = cluster
        self.chance = chance
        self.submit = submit
        self.hits: list[Hit] = []
        self.counts: dict[str, int] = {}
        self.kinds: dict[str, Callable[[], None]] = {
            "worker killed": self.kill_worker,
            "worker frozen": self.freeze_worker,
            "runner killed": self.kill_runner,
            "runner frozen": self.freeze_runner,
            "Redis restarted empty": self.restart_redis,
            "PostgreSQL crashed": self.crash_postgres,
            "connections dropped": self.drop_connections,
            "messages doubled": self.double_messages,
            "messages lost": self.lose_messages,
            "messages reordered": self.reorder_messages,
            "api killed before it published": self.kill_api,
        }
        if cluster.disk.is_real:
            self.kinds["disk full"] = self.fill_disk

    def inject(self, kind: str) -> None:
        """Do one fault, and undo what is not for ever."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.kinds[kind]()

    def kill_worker(self) -> None:
        index = self._worker()
        process = self.cluster.workers[index]
        assert process is not None
        self._note("worker killed", process, interrupts=True)
        process.kill()
        process.wait()
        time.sleep(self.chance.uniform(*RESTART_SECONDS))
        self.cluster.start_worker(index)

    def freeze_worker(self) -> None:
        process = self.cluster.workers[self._worker()]
        assert process is not None
        self._note("worker frozen", process)
        process.send_signal(signal.SIGSTOP)
        time.sleep(self.chance.uniform(*FREEZE_SECONDS))
        process.send_signal(signal.SIGCONT)

    def kill_runner(self) -> None:
        with self._runner("runner killed", interrupts=True) as runner:
            if runner is not None:
                with suppress(psutil.Error):
                    runner.kill()

    def freeze_runner(self) -> None:
        with self._runner("runner frozen") as runner:
            if runner is not None:
                with suppress(ProcessLookupError):
                    os.killpg(runner.pid, signal.SIGSTOP)
                    time.sleep(self.chance.uniform(*FREEZE_SECONDS))
                    os.killpg(runner.pid, signal.SIGCONT)

    def restart_redis(self) -> None:
        self._note("Redis restarted empty")
        with self._without_redis():
            time.sleep(self.chance.uniform(*RESTART_SECONDS))

    def crash_postgres(self) -> None:
        self._note("PostgreSQL crashed")
        self.cluster.restart_postgres()

    def drop_connections(self) -> None:
        self._note("connections dropped")
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        with suppress(SQLAlchemyError), self.cluster.engine.begin() as connection:
            connection.execute(text(f"{others} AND datname = current_database()"))

    def double_messages(self) -> None:
        self._note("messages doubled")
        with self._queue() as (client, name):
            for message in client.lrange(name, 0, -1):  # type: ignore[union-attr]
                client.lpush(name, message, message)
        self._ring()

    def lose_messages(self) -> None:
        self._note("messages lost")
        with self._queue() as (client, name):
            client.delete(name)

    def reorder_messages(self) -> None:
        self._note("messages reordered")
        with self._queue() as (client, name):
            messages = list(client.lrange(name, 0, -1))  # type: ignore[arg-type]
            self.chance.shuffle(messages)
            client.delete(name)
            for message in messages:
                client.lpush(name, message)

    def kill_api(self) -> None:
        """Without a broker nothing can be published: the job is committed, and its api is gone."""
        self._note("api killed before it published")
        index = self.chance.randrange(len(self.cluster.apis))
        with self._without_redis():
            self.submit(index)
            process = self.cluster.apis[index]
            assert process is not None
            process.kill()
            process.wait()
        self.cluster.start_api(index)

    def fill_disk(self) -> None:
        self._note("disk full")
        self.cluster.disk.fill()
        time.sleep(self.chance.uniform(*FREEZE_SECONDS))
        self.cluster.disk.empty()

    def _worker(self) -> int:
        """Choose a worker, rather one that works."""
        busy = [
            i
            for i, process in enumerate(self.cluster.workers)
            if process and self.cluster.runners_of(process)
        ]
        return self.chance.choice(busy or range(len(self.cluster.workers)))

    @contextmanager
    def _runner(self, kind: str, *, interrupts: bool = False) -> Iterator[psutil.Process | None]:
        """Choose a runner; one whose job has lost a runner before is spared: the second death ends a job."""
        spared = {job.id for job in self._running() if job.runner_deaths} if interrupts else set()
        found = [
            (process, job_id, runner)
            for process in self.cluster.workers
            if process is not None
            for job_id, runner in self.cluster.runners_of(process).items()
            if job_id not in spared
        ]
        runner = None
        if found:
            process, job_id, runner = self.chance.choice(found)
            self._note(kind, process, only=job_id, interrupts=interrupts)
        yield runner

    def _running(self) -> list[JobRow]:
        try:
            with reading(self.cluster.engine) as session:
                return list(session.scalars(select(JobRow).where(JobRow.status.in_(OWNED))))
        except SQLAlchemyError:
            return []

    def _note(
        self,
        kind: str,
        process: subprocess.Popen[bytes] | None = None,
        *,
        only: str | None = None,
        interrupts: bool = False,
    ) -> None:
        """Write down which attempts run now, of one worker or of all."""
        worker_ids = None
        if process is not None:
            with suppress(SQLAlchemyError), reading(self.cluster.engine) as session:
                worker_ids = set(session.scalars(select(WorkerRow.id).where(WorkerRow.pid == process.pid)))
        for job in self._running():
            if (worker_ids is None or job.worker_id in worker_ids) and only in (None, job.id):
                now = datetime.now(UTC)
                self.hits.append(Hit(kind, job.id, job.attempt, job.phase or "", now, interrupts))

    @contextmanager
    def _without_redis(self) -> Iterator[None]:
        assert self.cluster.redis is not None
        self.cluster.redis.kill()
        self.cluster.redis.wait()
        try:
            yield
        finally:
            self.cluster.start_redis()

    @contextmanager
    def _queue(self) -> Iterator[tuple["redis.Redis", str]]:
        with suppress(redis.RedisError), redis.Redis(port=self.cluster.redis_port) as client:
            yield client, "clipwise.cpu"

    def _ring(self) -> None:
        """Say "there is work" when there is none: that costs nothing either."""
        app = make_celery(f"redis://127.0.0.1:{self.cluster.redis_port}/0", self.cluster.data)
        with suppress(Exception):
            for _ in range(3):
                wake(app, "cpu")
