"""Which errors of the database waiting cures."""

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

IDLE_IN_TRANSACTION = "25P03"
"""PostgreSQL's code for a transaction that it ended, because the process was stopped in the middle of it."""


def is_outage(error: BaseException) -> bool:
    """Return whether `error` says that the database is away, and not that the request is wrong."""
    if isinstance(error, PoolTimeout | OperationalError | InterfaceError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    return bool(error.connection_invalidated) or getattr(error.orig, "sqlstate", "") == IDLE_IN_TRANSACTION
