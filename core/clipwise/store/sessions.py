"""Engines and sessions: one synchronous path for SQLite and PostgreSQL.

Nobody commits but the scope: `with transaction(engine) as session:` commits at its end, or rolls back.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Dialect,
    Engine,
    create_engine,
    event,
    func,
    select,
    text,
    type_coerce,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import Session

from clipwise.store.tables import UtcDateTime

BUSY_TIMEOUT_SECONDS = 30
RETRY_SECONDS = 0.01
IDLE_IN_TRANSACTION_SECONDS = 10
PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""After how long a PostgreSQL whose host is gone without a word counts as away (libpq's names and units)."""
TRUSTED_SECONDS = 1.0
"""A connection that was idle for longer is tried before it is used: the server may have gone meanwhile."""


def connect(url: str) -> Engine:
    """Return an engine for `url`, with what each database needs to be safe under several writers.

    Its errors do not repeat the values of a statement: they end up in logs.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(
            parsed, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, pool_size=16, hide_parameters=True
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    # The connection that came back last is taken first: its statements are prepared, and others may rest.
    engine = create_engine(
        parsed,
        connect_args=PATIENCE,
        pool_use_lifo=True,
        pool_size=16,
        max_overflow=16,
        pool_timeout=10,
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare_postgresql)
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", partial(_try_if_idle, engine.dialect))
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """Open a session whose work is committed at the end of the block, or rolled back by an exception."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def durable_transaction(engine: Engine) -> Iterator[Session]:
    """Open a session as `transaction` does, whose commit is on the disk when the block ends."""
    with Session(engine.execution_options(durable=True), expire_on_commit=False) as session, session.begin():
        if engine.dialect.name == "postgresql":
            session.execute(text("SET LOCAL synchronous_commit = on"))
        yield session


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    # A process that is stopped, or whose host is gone, must not hold what the others wait for: the server
    # ends its transaction.
    connection.autocommit = True
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_SECONDS}s'")
    connection.autocommit = False
    # Arrays of numbers go as they are: to write them as text takes longer than to insert them.
    from psycopg.types.array import ListBinaryDumper  # not needed with SQLite

    connection.adapters.register_dumper(list, ListBinaryDumper)


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used_at"] = time.monotonic()


def _try_if_idle(dialect: Dialect, connection: Any, record: Any, _proxy: Any) -> None:
    # SQLAlchemy's own `pool_pre_ping` asks every time, which under load is a round trip for every session.
    if time.monotonic() - record.info.get("used_at", time.monotonic()) <= TRUSTED_SECONDS:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error  # the pool tries again, with new connections


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver must not open transactions by itself: a deferred BEGIN that reads and then writes
    # fails under load, where BEGIN IMMEDIATE waits its turn.
    connection.isolation_level = None
    _use_write_ahead_log(connection)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # The first connections to a new file race to change its mode, and SQLite does not call its busy handler
    # there: those that lose are told at once that the database is locked. Once changed, the mode stays.
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # The lowest byte says "busy"; those above say why: another one recovers after a crash, say.
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return


def _begin_immediate(connection: Any) -> None:
    options = connection.get_execution_options()
    durable = options.get("durable", False)
    # Outside of a transaction, where alone it can be said; a pooled connection keeps it until the next one.
    if durable != connection.info.get("durable", False):
        connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.info["durable"] = durable
    connection.exec_driver_sql("BEGIN" if options.get("read_only", False) else "BEGIN IMMEDIATE")


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """Open a session that only reads: on SQLite it never waits for a writer.

    On PostgreSQL each statement stands for itself: at its level of isolation each sees what is committed
    when it begins, with a transaction around them or without, and beginning and ending one costs as much as
    a small query.
    """
    if engine.dialect.name == "postgresql":
        with Session(
            engine.execution_options(isolation_level="AUTOCOMMIT"), expire_on_commit=False
        ) as session:
            yield session
        return
    with (
        Session(engine.execution_options(read_only=True), expire_on_commit=False) as session,
        session.begin(),
    ):
        yield session


@contextmanager
def planned_by_values(session: Session) -> Iterator[None]:
    """Have PostgreSQL plan each statement of the block for the values that it is asked with.

    One that is repeated is prepared otherwise, and soon planned once for all values, which takes the rare
    and the common ones for the same.
    """
    if session.get_bind().dialect.name != "postgresql":
        yield
        return
    connection: Any = session.connection().connection.driver_connection
    before, connection.prepare_threshold = connection.prepare_threshold, None
    try:
        yield
    finally:
        connection.prepare_threshold = before


def database_clock(dialect: str, *, ago_seconds: float = 0.0) -> ColumnElement[datetime]:
    """Return the time on the database's clock, or so long before it, for use within a statement.

    Args:
        dialect: the name of the database's dialect; the statement can be kept for it.
        ago_seconds: how long before.
    """
    if dialect == "postgresql":
        return type_coerce(func.clock_timestamp() - timedelta(seconds=ago_seconds), UtcDateTime())
    written = func.strftime("%Y-%m-%d %H:%M:%f000", "now", f"{-ago_seconds} seconds")
    return type_coerce(written, UtcDateTime())


def database_time(session: Session) -> datetime:
    """Return the time on the database's clock, which hosts with clocks of their own agree on."""
    if session.get_bind().dialect.name == "postgresql":
        now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)
    return datetime.now(UTC)
