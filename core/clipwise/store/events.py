"""A job's events: what happened, in the order of commits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from clipwise.errors import NotFound
from clipwise.store.tables import EventRow, JobRow, Table

Level = Literal["debug", "info", "warning", "error"]
_ADD = insert(Table.metadata.tables["job_events"])


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """An event that is to be written."""

    type: str
    level: Level
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)


def write_first(session: Session, job_id: str, events: Sequence[NewEvent]) -> None:
    """Write the first events of a job, whose row is there with `last_event_id` set to their number."""
    now = datetime.now(UTC)
    rows = [
        {
            "job_id": job_id,
            "id": number,
            "type": event.type,
            "level": event.level,
            "message": event.message,
            "data": dict(event.data),
            "attempt": None,
            "created_at": now,
        }
        for number, event in enumerate(events, start=1)
    ]
    for row in rows:  # for two, the driver's own way to many rows takes longer
        session.execute(_ADD, row)


def append_event(
    session: Session,
    job_id: str,
    type: str,  # noqa: A002 - the wire's name
    level: Level,
    message: str,
    data: Mapping[str, Any] | None = None,
    attempt: int | None = None,
) -> int:
    """Write one event and return its id, which counts up from 1 within the job.

    The counter lives in the job's row, so that whoever takes a number holds that row until the commit:
    ids become visible in their order, and a reader that has seen id `n` never misses a smaller one.

    Raises:
        NotFound: if there is no such job.
    """
    # A job that was only just added to the session must be a row before its counter can move.
    session.flush()
    event_id = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id)
        .values(last_event_id=JobRow.last_event_id + 1)
        .returning(JobRow.last_event_id)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if event_id is None:
        raise NotFound(f"there is no job '{job_id}'")
    session.add(
        EventRow(
            job_id=job_id,
            id=event_id,
            type=type,
            level=level,
            message=message,
            data=dict(data or {}),
            attempt=attempt,
            created_at=datetime.now(UTC),
        )
    )
    session.flush()
    return event_id
