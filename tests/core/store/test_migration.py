from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from clipwise.errors import ConfigurationError
from clipwise.store import migration
from clipwise.store.sessions import connect
from clipwise.store.tables import Table


def test_the_migrations_make_exactly_the_tables(database_url: str) -> None:
    assert migration.upgrade(database_url) == migration.expected_revision()
    assert migration.differences(database_url) == []


def test_a_missing_column_would_be_seen(database_url: str) -> None:
    migration.upgrade(database_url)
    with connect(database_url).begin() as connection:
        connection.execute(text("ALTER TABLE jobs DROP COLUMN eta_seconds"))
    assert [change[0] for change in migration.differences(database_url)] == ["add_column"]


def test_an_empty_database_is_refused_with_the_command_that_helps(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"none .*expects 0002; run: clipwise migrate"):
        migration.require_current(connect(database_url))


def test_a_migrated_database_is_accepted_and_migrating_again_changes_nothing(database_url: str) -> None:
    migration.upgrade(database_url)
    migration.upgrade(database_url)
    migration.require_current(connect(database_url))


def test_a_database_of_a_newer_version_is_refused_and_left_alone(database_url: str) -> None:
    migration.upgrade(database_url)
    engine = connect(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for act in (lambda: migration.upgrade(database_url), lambda: migration.require_current(engine)):
        with pytest.raises(ConfigurationError, match=r"revision 9999.*does not know"):
            act()


def test_several_processes_may_migrate_at_once(database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(migration.upgrade, [database_url] * 4)) == {migration.expected_revision()}
    assert migration.differences(database_url) == []


def test_downgrading_takes_everything_away(database_url: str) -> None:
    from alembic import command

    migration.upgrade(database_url)
    engine = connect(database_url)
    with engine.begin() as connection:
        command.downgrade(migration.configuration(connection=connection), "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    assert Table.metadata.tables


def test_the_folder_of_a_sqlite_database_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    migration.upgrade(f"sqlite:///{folder / 'clipwise.db'}")
    assert folder.stat().st_mode & 0o777 == 0o700
