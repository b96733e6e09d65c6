"""Work that one process does for all: whoever takes a duty does it, and the others let it be."""

from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from clipwise.store.sessions import database_time
from clipwise.store.tables import DutyRow


def last_done(session: Session, name: str) -> datetime | None:
    """Return when a duty was last taken; None if it never was."""
    return session.execute(select(DutyRow.done_at).where(DutyRow.name == name)).scalar_one_or_none()


def take(session: Session, name: str, every_seconds: float) -> bool:
    """Take a duty if it is due, on the database's clock; of any number of processes one gets it.

    The duty's row is held until the transaction ends, so that the work in it is never done twice at once.
    """
    now = database_time(session)
    due = (
        update(DutyRow)
        .where(DutyRow.name == name, DutyRow.done_at <= now - timedelta(seconds=every_seconds))
        .values(done_at=now)
        .returning(DutyRow.name)
        .execution_options(synchronize_session=False)
    )
    if session.execute(due).scalar_one_or_none() is not None:
        return True
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    first = insert(DutyRow).values(name=name, done_at=now).on_conflict_do_nothing().returning(DutyRow.name)
    return session.execute(first).scalar_one_or_none() is not None
