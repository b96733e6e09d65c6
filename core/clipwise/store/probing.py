"""Connections for the question whether the database answers: new each time, and never waited for long."""

import sqlite3
from pathlib import Path

from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.engine import make_url

ANSWER_SECONDS = 2


def probing_engine(url: str) -> Engine:
    """Return an engine beside the process's pool, whose connections are not kept.

    A pool holds connections that only seem to be there after a network has gone, and waits for them.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database not in {None, "", ":memory:"}:
        # A file that is missing is not made: it would seem to be an empty database.
        address = f"{Path(str(parsed.database)).absolute().as_uri()}?mode=rw"
        return create_engine(
            parsed,
            poolclass=NullPool,
            creator=lambda: sqlite3.connect(address, uri=True, timeout=ANSWER_SECONDS),
            hide_parameters=True,
        )
    limits = {"connect_timeout": ANSWER_SECONDS, "tcp_user_timeout": 1000 * ANSWER_SECONDS}
    return create_engine(parsed, poolclass=NullPool, connect_args=limits, hide_parameters=True)
