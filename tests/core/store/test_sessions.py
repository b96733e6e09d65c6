import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from sqlalchemy import text

from clipwise.store.sessions import connect


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
