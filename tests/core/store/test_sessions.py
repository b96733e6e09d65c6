import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from clipwise.store import duties, migration, sessions
from clipwise.store.outages import is_outage
from clipwise.store.sessions import connect, planned_by_values, reading, transaction


def test_a_first_connection_waits_while_another_writes_to_the_new_file(tmp_path: Path) -> None:
    # With a write in progress, SQLite refuses to change the mode at once, without waiting for its timeout.
    path = tmp_path / "new.db"
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    engine = connect(f"sqlite:///{path}")

    def mode() -> str:
        with engine.connect() as connection:
            return str(connection.execute(text("PRAGMA journal_mode")).scalar_one())

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(mode)
        wait([waiting], timeout=0.2)
        writer.execute("COMMIT")
        writer.close()
        assert waiting.result() == "wal"
    engine.dispose()


def test_a_process_that_stops_in_a_transaction_does_not_hold_up_the_others_for_ever(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "IDLE_IN_TRANSACTION_SECONDS", 1)
    migration.upgrade(postgres_url)
    frozen, other = connect(postgres_url), connect(postgres_url)

    def stop_in_the_middle() -> None:
        with transaction(frozen) as session:
            assert duties.take(session, "reap", 0.0)
            # The second one waits for the first one's row, which the server takes away from it.
            with transaction(other) as beside:
                assert duties.take(beside, "reap", 0.0)
            session.execute(text("SELECT 1"))

    with pytest.raises(DBAPIError) as raised:
        stop_in_the_middle()
    assert is_outage(raised.value)


def test_a_connection_that_was_idle_is_tried_before_it_is_used(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, other = connect(postgres_url), connect(postgres_url)
    with reading(engine) as session:
        session.execute(text("SELECT 1"))
    with other.connect() as connection:
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()"
        connection.execute(text(f"{end} AND datname = current_database()"))
    monkeypatch.setattr(sessions, "TRUSTED_SECONDS", -1.0)
    with reading(engine) as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()
    other.dispose()


def test_what_is_planned_by_its_values_is_not_prepared(postgres_url: str) -> None:
    engine = connect(postgres_url)

    with reading(engine) as session:
        for number in range(20):
            session.execute(text("SELECT :number"), {"number": number})
            with planned_by_values(session):
                session.execute(text("SELECT -:number"), {"number": number})
        texts = session.scalars(text("SELECT statement FROM pg_prepared_statements")).all()
    assert [statement[:8] for statement in texts] == ["SELECT $"]
    engine.dispose()
