"""The reaper: attempts whose worker is gone, jobs beyond their limits, queues that nobody was told of.

Every process may run it at any time; of several one acts, by the duty that it takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from clipwise.jobs.recovery import DEFAULT_RECOVERY, Recovery
from clipwise.jobs.states import OWNED, JobStatus, ReasonCode
from clipwise.store import attempts, duties, outbox
from clipwise.store.attempts import Attempt, Blamed, Release
from clipwise.store.events import append_event
from clipwise.store.sessions import database_time
from clipwise.store.tables import AttemptRow, JobRow, OutboxRow

EVERY_SECONDS = 1.0
WAKE_SECONDS = 10.0
STUCK_SECONDS = 30.0
"""A worker that works has long stopped an attempt that it was asked to stop, or whose time is over."""
STUCK_PAUSE_SECONDS = 180.0
OUTAGE_SECONDS = 5.0
"""Nobody has reaped for so long: the database was away, or every process."""
AT_ONCE = 100


@dataclass(kw_only=True)
class Reaped:
    """What one look brought about: ids of jobs by what became of them, and the queues that were woken."""

    interrupted: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    woken: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.interrupted or self.ended or self.woken)


def reap(
    session: Session,
    recovery: Recovery = DEFAULT_RECOVERY,
    every_seconds: float = EVERY_SECONDS,
    grace_seconds: float = 20.0,
) -> Reaped:
    """Do what is due, unless another process did it within `every_seconds`.

    After an outage leases that have passed meanwhile last for `grace_seconds` more: two heartbeats.
    """
    reaped = Reaped()
    before = duties.last_done(session, "reap")
    if not duties.take(session, "reap", every_seconds):
        return reaped
    now = database_time(session)
    if before is not None and (now - before).total_seconds() > every_seconds + OUTAGE_SECONDS:
        # Nobody could reap, so perhaps nobody could renew either: those who live are given time to.
        _extend_expired(session, now, grace_seconds)
    else:
        _put_back_expired(session, now, recovery, reaped)
    _end_overdue(session, now, reaped)
    _stop_stuck(session, now, recovery, reaped)
    _end_unclaimed(session, now, reaped)
    if duties.take(session, "wake", WAKE_SECONDS):
        reaped.woken = _wake(session, now)
    return reaped


def give_up(
    session: Session, worker_ids: Sequence[str], why: str, recovery: Recovery = DEFAULT_RECOVERY
) -> list[str]:
    """Put back what these workers still own, which are gone for certain; return the jobs."""
    rows = _held(session, JobRow.status.in_(OWNED), JobRow.worker_id.in_(worker_ids))
    for row in rows:
        attempts.release(session, _owner(row), Release(message=why, blames=Blamed.WORKER), recovery)
    return [row.id for row in rows]


def _extend_expired(session: Session, now: datetime, seconds: float) -> None:
    session.execute(
        update(JobRow)
        .where(JobRow.status.in_(OWNED), JobRow.lease_expires_at < now)
        .values(lease_expires_at=now + timedelta(seconds=seconds))
        .execution_options(synchronize_session=False)
    )


def _put_back_expired(session: Session, now: datetime, recovery: Recovery, reaped: Reaped) -> None:
    # A lease that was never written is one of an earlier version, whose worker is gone.
    over = or_(JobRow.lease_expires_at.is_(None), JobRow.lease_expires_at < now)
    lost = Release(message="the worker was lost", blames=Blamed.WORKER)
    for row in _held(session, JobRow.status.in_(OWNED), over):
        became = attempts.release(session, _owner(row), lost, recovery)
        put_back = became in (JobStatus.QUEUED, JobStatus.PAUSED)
        (reaped.interrupted if put_back else reaped.ended).append(row.id)


def _end_overdue(session: Session, now: datetime, reaped: Reaped) -> None:
    """End what its own supervisor should have ended when `limits.max_runtime_seconds` were over."""
    running = session.execute(
        select(JobRow.id, JobRow.token, JobRow.ran_seconds, JobRow.spec["limits"], AttemptRow.started_at)
        .join(AttemptRow, (AttemptRow.job_id == JobRow.id) & (AttemptRow.number == JobRow.attempt))
        .where(JobRow.status == JobStatus.RUNNING)
    )
    over = {
        job_id: token
        for job_id, token, before, limits, began in running
        if before + (now - began).total_seconds()
        > (limits or {}).get("max_runtime_seconds", float("inf")) + STUCK_SECONDS
    }
    for row in _held(session, JobRow.id.in_(over), JobRow.status == JobStatus.RUNNING) if over else ():
        if row.token != over[row.id]:
            continue  # another attempt has begun since it was looked at
        attempts.finish(session, _owner(row), attempts.MAX_RUNTIME)
        reaped.ended.append(row.id)


def _stop_stuck(session: Session, now: datetime, recovery: Recovery, reaped: Reaped) -> None:
    """Take a job from a worker that renews its lease, but does not do what it was asked for."""
    since = now - timedelta(seconds=STUCK_SECONDS)
    cancelling = (JobRow.status == JobStatus.CANCELLING) & (JobRow.cancel_requested_at < since)
    # A pause waits for a step and a checkpoint, which may take their time.
    long_ago = now - timedelta(seconds=STUCK_PAUSE_SECONDS)
    pausing = (JobRow.status == JobStatus.PAUSING) & (JobRow.pause_requested_at < long_ago)
    slow = Release(message="the worker did not stop the attempt in time")
    for row in _held(session, or_(cancelling, pausing)):
        became = attempts.release(session, _owner(row), slow, recovery)
        (reaped.interrupted if became is JobStatus.PAUSED else reaped.ended).append(row.id)


def _end_unclaimed(session: Session, now: datetime, reaped: Reaped) -> None:
    """Fail the jobs that have waited for longer than `limits.max_wait_seconds`."""
    for row in _held(session, JobRow.status == JobStatus.QUEUED, JobRow.wait_until < now):
        message = (
            f"no worker of the queue '{row.queue}' was free within limits.max_wait_seconds; "
            "raise it, or start more workers"
        )
        row.status, row.phase, row.finished_at = JobStatus.FAILED, None, now
        row.reason_code, row.reason_message = ReasonCode.NO_MATCHING_WORKER, message
        row.version += 1
        data = {"status": JobStatus.FAILED, "code": ReasonCode.NO_MATCHING_WORKER}
        append_event(session, row.id, "failed", "error", message, data)
        reaped.ended.append(row.id)


def _wake(session: Session, now: datetime) -> list[str]:
    """Ask for a worker of each queue that has something to claim and no message on its way."""
    claimable = (JobRow.status == JobStatus.QUEUED) & or_(
        JobRow.not_before.is_(None), JobRow.not_before <= now
    )
    told = select(OutboxRow.id).where(OutboxRow.queue == JobRow.queue).exists()
    queues = sorted(session.scalars(select(JobRow.queue).where(claimable, ~told).distinct()))
    for queue in queues:
        outbox.add(session, queue)
    return queues


def _held(session: Session, *conditions: Any) -> Sequence[JobRow]:
    """Return jobs that match, kept from others until the end; what somebody changes now is left out."""
    query = (
        select(JobRow).where(*conditions).order_by(func.coalesce(JobRow.lease_expires_at, JobRow.created_at))
    )
    return session.scalars(
        query.limit(AT_ONCE).with_for_update(skip_locked=True).execution_options(populate_existing=True)
    ).all()


def _owner(row: JobRow) -> Attempt:
    return Attempt(job_id=row.id, number=row.attempt, token=row.token)
