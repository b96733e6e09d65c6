"""Engines and sessions: one synchronous path for SQLite and PostgreSQL.

Nobody commits but the scope: `with transaction(engine) as session:` commits at its end, or rolls back.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, create_engine, event, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

BUSY_TIMEOUT_SECONDS = 30
RETRY_SECONDS = 0.01


def connect(url: str) -> Engine:
    """Return an engine for `url`, with what each database needs to be safe under several writers."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, pool_size=16)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    return create_engine(parsed, pool_pre_ping=True, pool_size=16, max_overflow=16, pool_timeout=10)


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
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
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
    """Open a session that only reads: on SQLite it never waits for a writer."""
    with (
        Session(engine.execution_options(read_only=True), expire_on_commit=False) as session,
        session.begin(),
    ):
        yield session


def database_time(session: Session) -> datetime:
    """Return the time on the database's clock, which hosts with clocks of their own agree on."""
    if session.get_bind().dialect.name == "postgresql":
        now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)
    return datetime.now(UTC)
