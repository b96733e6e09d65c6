"""Messages that must reach the broker, written in the transaction that they tell about."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.orm import Session

from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import Table

log = logging.getLogger(__name__)

AT_ONCE = 100
"""Most messages that go out in one call."""
OUTBOX = Table.metadata.tables["outbox"]
_ADD = insert(OUTBOX).inline()


def add(session: Session, queue: str, job_id: str | None = None) -> None:
    """Ask for a worker of `queue` to be woken, once the transaction is committed."""
    session.execute(_ADD, {"queue": queue, "job_id": job_id, "created_at": datetime.now(UTC)})


def relay(engine: Engine, publish: Callable[[str], None], limit: int = AT_ONCE) -> int:
    """Publish up to `limit` waiting messages, oldest first, and return how many went out.

    A message is deleted after it was published: it goes out at least once, and twice when two relays
    meet, which costs nothing (it only says "look for work"). A broker that is down leaves the rest.

    Args:
        engine: the database.
        publish: wakes a worker of the queue that it is given.
        limit: most messages in one call.
    """
    with reading(engine) as session:
        oldest = select(OUTBOX.c.id, OUTBOX.c.queue).order_by(OUTBOX.c.id).limit(limit)
        waiting = session.execute(oldest).all()
    sent: list[int] = []
    for row_id, queue in waiting:
        try:
            publish(queue)
        except Exception as error:
            log.warning("the broker takes no message now, %d wait: %s", len(waiting) - len(sent), error)
            break
        sent.append(row_id)
    if sent:
        with transaction(engine) as session:
            session.execute(delete(OUTBOX).where(OUTBOX.c.id.in_(sent)))
    return len(sent)
