"""What happens to jobs, as it is read: events, lines, attempts, and the numbers that streams watch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from clipwise.store.tables import AttemptRow, EventRow, JobRow, LogLineRow

R = TypeVar("R", EventRow, LogLineRow)

SPANS_AT_ONCE = 50
"""Spans that one query reads."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """The columns of a job that its streams show, and the numbers that tell of something new."""

    id: str
    last_event_id: int
    last_log_id: int
    version: int
    status: str
    phase: str | None
    step: int | None
    steps: int | None
    eta_seconds: float | None
    samples_per_second: float | None
    epsilon: float | None
    delta: float | None


@dataclass(frozen=True, kw_only=True)
class Span:
    """A part of one job's events or lines: those behind number `after`, up to `until` and with it."""

    job_id: str
    after: int
    until: int


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


def events_in(session: Session, spans: Sequence[Span]) -> dict[Span, list[EventRow]]:
    """Return the events of each span, in order."""
    return _in_spans(session, EventRow, spans)


def lines_in(session: Session, spans: Sequence[Span]) -> dict[Span, list[LogLineRow]]:
    """Return the lines of each span, in order; those that were deleted are missing."""
    return _in_spans(session, LogLineRow, spans)


def attempts_after(session: Session, job_id: str, after: int, limit: int) -> Sequence[AttemptRow]:
    """Return a job's attempts with larger numbers, in order."""
    query = select(AttemptRow).where(AttemptRow.job_id == job_id, AttemptRow.number > after)
    return session.scalars(query.order_by(AttemptRow.number).limit(limit)).all()


def _in_spans(session: Session, table: type[R], spans: Sequence[Span]) -> dict[Span, list[R]]:
    # A few queries however many jobs and streams there are.
    found: dict[Span, list[R]] = {span: [] for span in spans}
    for start in range(0, len(spans), SPANS_AT_ONCE):
        asked = spans[start : start + SPANS_AT_ONCE]
        of_job: dict[str, list[Span]] = {}
        for span in asked:
            of_job.setdefault(span.job_id, []).append(span)
        inside = (
            and_(table.job_id == span.job_id, table.id > span.after, table.id <= span.until) for span in asked
        )
        for row in session.scalars(select(table).where(or_(*inside)).order_by(table.job_id, table.id)):
            for span in of_job[row.job_id]:
                if span.after < row.id <= span.until:
                    found[span].append(row)
    return found
