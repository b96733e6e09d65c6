"""What happens to jobs, as it is read: events, lines, and the numbers that the event streams watch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from clipwise.store.tables import EventRow, JobRow, LogLineRow


@dataclass(frozen=True, kw_only=True)
class Watched:
    """The columns of a job that its event stream shows."""

    id: str
    last_event_id: int
    version: int
    status: str
    phase: str | None
    step: int | None
    steps: int | None
    eta_seconds: float | None
    samples_per_second: float | None
    epsilon: float | None
    delta: float | None


WATCHED = tuple(getattr(JobRow, name) for name in Watched.__dataclass_fields__)


def watch(session: Session, job_ids: Collection[str]) -> dict[str, Watched]:
    """Return where these jobs are now; those that are deleted are missing."""
    rows = session.execute(select(*WATCHED).where(JobRow.id.in_(job_ids)))
    return {row.id: Watched(**row._asdict()) for row in rows}


def events_after(session: Session, job_id: str, after: int, limit: int) -> Sequence[EventRow]:
    """Return a job's events with larger ids, in order."""
    query = select(EventRow).where(EventRow.job_id == job_id, EventRow.id > after)
    return session.scalars(query.order_by(EventRow.id).limit(limit)).all()


def lines_after(session: Session, job_id: str, after: int, limit: int) -> Sequence[LogLineRow]:
    """Return the lines of a job's runner with larger ids, in order."""
    query = select(LogLineRow).where(LogLineRow.job_id == job_id, LogLineRow.id > after)
    return session.scalars(query.order_by(LogLineRow.id).limit(limit)).all()


def last_lines(session: Session, job_id: str, after: int, limit: int) -> Sequence[LogLineRow]:
    """Return the last lines of a job's runner, in order."""
    query = select(LogLineRow).where(LogLineRow.job_id == job_id, LogLineRow.id > after)
    rows = session.scalars(query.order_by(LogLineRow.id.desc()).limit(limit)).all()
    return list(reversed(rows))
