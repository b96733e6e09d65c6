"""Files of the artifact store that no row needs: noted when they are let go of, deleted afterwards."""

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, delete, select, update
from sqlalchemy.orm import Session

from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import OrphanFileRow

log = logging.getLogger(__name__)

RESERVATION = timedelta(days=1)


def add(session: Session, keys: Iterable[str]) -> None:
    """Note that nothing needs these files any more; they are deleted after the commit."""
    _note(session, keys, due=datetime.now(UTC))


def reserve(session: Session, keys: Iterable[str], lasting: timedelta = RESERVATION) -> None:
    """Note files that are about to be written: they go after `lasting`, unless `keep` is called for them.

    Commit this before writing. Whoever dies between the file and the row that names it then leaves
    nothing behind.
    """
    _note(session, keys, due=datetime.now(UTC) + lasting)


def keep(session: Session, keys: Iterable[str]) -> None:
    """Take files off the list, in the transaction that writes the rows that name them."""
    session.execute(delete(OrphanFileRow).where(OrphanFileRow.key.in_(list(keys))))


def expire(session: Session, keys: Iterable[str]) -> None:
    """Let go of files that were reserved and that no row came to name; those that one names are left alone.

    For a writer that does not know whether its own commit came through: `keep` was in it.
    """
    reserved = update(OrphanFileRow).where(OrphanFileRow.key.in_(list(keys)))
    session.execute(
        reserved.values(created_at=datetime.now(UTC)).execution_options(synchronize_session=False)
    )


def sweep(engine: Engine, delete_file: Callable[[str], None], limit: int = 100) -> int:
    """Delete up to `limit` files that are due and return how many are gone.

    Args:
        engine: the database.
        delete_file: deletes one key of the artifact store; a key without a file is no error to it.
        limit: most files in one call.
    """
    with reading(engine) as session:
        due = session.scalars(
            select(OrphanFileRow.key)
            .where(OrphanFileRow.created_at <= datetime.now(UTC))
            .order_by(OrphanFileRow.id)
            .limit(limit)
        ).all()
    gone = []
    for key in due:
        try:
            delete_file(key)
        except Exception as error:
            log.warning("the file %s could not be deleted, it is tried again: %s", key, error)
        else:
            gone.append(key)
    if gone:
        with transaction(engine) as session:
            keep(session, gone)
    return len(gone)


def _note(session: Session, keys: Iterable[str], due: datetime) -> None:
    # A key may be on the list already (reserved by whoever wrote it): the new date is the one that counts.
    wanted = list(dict.fromkeys(keys))
    keep(session, wanted)
    session.add_all(OrphanFileRow(key=key, created_at=due) for key in wanted)
    session.flush()
