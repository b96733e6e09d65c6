"""The service in numbers, for who watches over it: a few statements over all jobs, attempts and workers.

Every process that asks gets the same numbers. Names of queues are chosen by people: only `QUEUES` of them
are told apart, those that workers serve before all others.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Float, case, cast, func, null, select
from sqlalchemy.orm import Session

from clipwise.jobs.states import OWNED, TERMINAL, JobStatus, ReasonCode
from clipwise.store import devices
from clipwise.store.sessions import database_time
from clipwise.store.tables import AttemptRow, DeviceRow, JobRow, OutboxRow, WorkerRow
from clipwise.store.workers import ALIVE_SECONDS

QUEUES = 30
OTHER_QUEUES = "(other)"
WORKERS = 500
FORGOTTEN = timedelta(days=1)
"""A worker that did not say that it stops, and was not heard of for so long, is none any more."""
SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 43_200, 86_400)
"""Upper bounds of the buckets of waits and runs; a last one has what is longer."""


@dataclass(kw_only=True)
class Durations:
    """How many durations fell into each bucket (one more than `SECONDS`), and their sum in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0

    def add(self, bucket: int, count: int, seconds: float) -> None:
        """Count `count` durations of together `seconds`."""
        self.counts[bucket] += count
        self.total += seconds


@dataclass(frozen=True, kw_only=True)
class WorkerNow:
    """A worker that has not stopped; `state` is alive, draining or silent."""

    id: str
    host: str
    queues: Sequence[str]
    state: str
    heartbeat_age_seconds: float
    slots: int
    busy_slots: int


@dataclass(frozen=True, kw_only=True)
class Now:
    """What is there at this moment.

    Attributes:
        jobs: open jobs by queue and status.
        oldest_seconds: by queue, how long the job has waited that waits for the longest.
        workers: those that have not stopped.
        devices: GPUs of hosts with a live worker, by `free` and `held`.
        outbox: messages that wait for the broker.
        outbox_seconds: age of the oldest one.
    """

    jobs: Mapping[tuple[str, str], int]
    oldest_seconds: Mapping[str, float]
    workers: Sequence[WorkerNow]
    devices: Mapping[str, int]
    outbox: int
    outbox_seconds: float


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What has happened to all jobs that were not deleted.

    Attributes:
        ended: jobs by final status and code of the reason; without one it is empty.
        interruptions: by kind: `runner_died`, `worker_lost`, `worker_stopped`.
        waits: of attempts, by queue.
        runs: of attempts that have ended, by queue and outcome.
    """

    ended: Mapping[tuple[str, str], int]
    interruptions: Mapping[str, int]
    waits: Mapping[str, Durations]
    runs: Mapping[tuple[str, str], Durations]


def now(session: Session) -> Now:
    """Return what is there now, from indexes and small tables."""
    at = database_time(session)
    present = workers_now(session)
    jobs, oldest = _open_jobs(session, at, _served(present))
    count, since = session.execute(select(func.count(), func.min(OutboxRow.created_at))).one()
    return Now(
        jobs=jobs,
        oldest_seconds=oldest,
        workers=present,
        devices=_devices(session, {worker.host for worker in present if worker.state != "silent"}),
        outbox=count,
        outbox_seconds=_age(since, at) if count else 0.0,
    )


def workers_now(session: Session) -> list[WorkerNow]:
    """Return the workers that have not stopped, those that were heard of last first."""
    at = database_time(session)
    busy = (
        select(JobRow.worker_id, func.count().label("jobs"))
        .where(JobRow.status.in_(OWNED), JobRow.worker_id.is_not(None))
        .group_by(JobRow.worker_id)
        .subquery()
    )
    rows = session.execute(
        select(
            WorkerRow.id,
            WorkerRow.host,
            WorkerRow.queues,
            WorkerRow.slots,
            WorkerRow.heartbeat_at,
            WorkerRow.draining_at,
            func.coalesce(busy.c.jobs, 0),
        )
        .outerjoin(busy, busy.c.worker_id == WorkerRow.id)
        .where(WorkerRow.stopped_at.is_(None), WorkerRow.heartbeat_at >= at - FORGOTTEN)
        .order_by(WorkerRow.heartbeat_at.desc())
        .limit(WORKERS)
    )
    return [
        WorkerNow(
            id=worker_id,
            host=host,
            queues=queues,
            state=_state(_age(heartbeat_at, at), draining=draining_at is not None),
            heartbeat_age_seconds=_age(heartbeat_at, at),
            slots=slots,
            busy_slots=jobs,
        )
        for worker_id, host, queues, slots, heartbeat_at, draining_at, jobs in rows
    ]


def totals(session: Session) -> Totals:
    """Return what has happened, from every row of jobs and attempts: with more of them it takes longer."""
    ended, losses = _ended(session)
    waits, runs, interrupted = _attempts(session, _served(workers_now(session)))
    # A worker that stops blames nobody. What ended a job for good was counted, but interrupted no attempt.
    given_up = ended.get((JobStatus.FAILED, ReasonCode.RETRIES_EXHAUSTED), 0)
    stopped = max(0, interrupted + given_up - sum(losses.values()))
    return Totals(ended=ended, interruptions={**losses, "worker_stopped": stopped}, waits=waits, runs=runs)


def _served(present: Sequence[WorkerNow]) -> frozenset[str]:
    return frozenset(queue for worker in present for queue in worker.queues)


def _open_jobs(
    session: Session, at: datetime, served: frozenset[str]
) -> tuple[Counter[tuple[str, str]], dict[str, float]]:
    waiting_since = func.min(func.coalesce(JobRow.queued_at, JobRow.created_at), type_=JobRow.created_at.type)
    rows = session.execute(
        select(JobRow.queue, JobRow.status, func.count(), waiting_since)
        .where(JobRow.status.in_([status for status in JobStatus if status not in TERMINAL]))
        .group_by(JobRow.queue, JobRow.status)
    ).all()
    label = _labels(served, (queue for queue, *_ in rows))
    jobs = Counter[tuple[str, str]]()
    # A queue that is served and empty is shown as well: an alert needs its zero.
    oldest = {label(queue): 0.0 for queue in served}
    for queue, status, count, since in rows:
        jobs[label(queue), status] += count
        if status == JobStatus.QUEUED:
            oldest[label(queue)] = max(oldest.get(label(queue), 0.0), _age(since, at))
    for name in oldest:
        jobs[name, JobStatus.QUEUED] += 0
    return jobs, oldest


def _ended(session: Session) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    rows = session.execute(
        select(
            JobRow.status,
            func.coalesce(JobRow.reason_code, ""),
            func.count(),
            func.sum(JobRow.runner_deaths),
            func.sum(JobRow.worker_losses),
        ).group_by(JobRow.status, JobRow.reason_code)
    ).all()
    ended = {(status, code): count for status, code, count, *_ in rows if status in TERMINAL}
    losses = {"runner_died": sum(row[3] for row in rows), "worker_lost": sum(row[4] for row in rows)}
    return ended, losses


def _attempts(
    session: Session, served: frozenset[str]
) -> tuple[dict[str, Durations], dict[tuple[str, str], Durations], int]:
    ran = _seconds_between(session, AttemptRow.started_at, AttemptRow.finished_at)
    each = (
        select(
            JobRow.queue,
            AttemptRow.outcome,
            AttemptRow.waited_seconds.label("waited"),
            ran.label("ran"),
            _bucket(AttemptRow.waited_seconds).label("waited_in"),
            _bucket(ran).label("ran_in"),
        )
        .join(JobRow, JobRow.id == AttemptRow.job_id)
        .subquery()
    )
    grouped = (each.c.queue, each.c.outcome, each.c.waited_in, each.c.ran_in)
    rows = session.execute(
        select(*grouped, func.count(), func.sum(each.c.waited), func.sum(each.c.ran)).group_by(*grouped)
    ).all()
    label = _labels(served, (row.queue for row in rows))
    waits: dict[str, Durations] = {}
    runs: dict[tuple[str, str], Durations] = {}
    interrupted = 0
    for queue, outcome, waited_in, ran_in, count, waited, ran_seconds in rows:
        if waited_in is not None:
            waits.setdefault(label(queue), Durations()).add(waited_in, count, waited)
        if outcome is not None and ran_in is not None:
            runs.setdefault((label(queue), outcome), Durations()).add(ran_in, count, ran_seconds)
        interrupted += count if outcome == "interrupted" else 0
    return waits, runs, interrupted


def _devices(session: Session, hosts: set[str]) -> dict[str, int]:
    seen = session.execute(
        select(DeviceRow.host, func.count()).where(DeviceRow.host.in_(hosts)).group_by(DeviceRow.host)
    ).all()
    held = len(devices.holders(session, sorted(hosts)))
    return {"held": held, "free": sum(count for _, count in seen) - held}


def _labels(served: frozenset[str], found: Iterable[str]) -> Callable[[str], str]:
    """Return what names a queue: those that are served come first, and beyond `QUEUES` all are others."""
    kept = {*[*sorted(served), *sorted(set(found) - served)][:QUEUES]}
    return lambda queue: queue if queue in kept else OTHER_QUEUES


def _state(silence_seconds: float, *, draining: bool) -> str:
    if silence_seconds > ALIVE_SECONDS:
        return "silent"
    return "draining" if draining else "alive"


def _age(since: datetime, at: datetime) -> float:
    return max(0.0, (at - since).total_seconds())


def _bucket(seconds: Any) -> ColumnElement[int | None]:
    bounds = [(seconds <= bound, number) for number, bound in enumerate(SECONDS)]
    return case((seconds.is_(None), null()), *bounds, else_=len(SECONDS))


def _seconds_between(session: Session, begin: Any, end: Any) -> ColumnElement[float]:
    if session.get_bind().dialect.name == "postgresql":
        return cast(func.extract("epoch", end - begin), Float)
    return (func.julianday(end) - func.julianday(begin)) * 86_400.0
