"""The fleet as it is read: workers of the last day."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from clipwise.store.sessions import database_time
from clipwise.store.tables import WorkerRow

RECENT = timedelta(days=1)


def recent_workers(session: Session, limit: int = 200) -> Sequence[WorkerRow]:
    """Return the workers that were heard of within a day, the newest first."""
    since = database_time(session) - RECENT
    query = select(WorkerRow).where(WorkerRow.heartbeat_at >= since)
    return session.scalars(query.order_by(WorkerRow.started_at.desc(), WorkerRow.id).limit(limit)).all()
