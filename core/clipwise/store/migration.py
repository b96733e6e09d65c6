"""The schema's revision: bringing a database up to date, and refusing one that is not."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, make_url, text

from clipwise.errors import ConfigurationError
from clipwise.store.sessions import connect

MIGRATION_LOCK = 0x636C6970
"""Key of the advisory lock under which one process at a time migrates a PostgreSQL database."""


def scripts_folder() -> Path:
    """Return the folder of the migrations: inside an installed package, else of the source checkout."""
    here = Path(__file__).resolve()
    installed = here.parent / "migrations"
    return installed if installed.is_dir() else here.parents[3] / "migrations"


def upgrade(url: str) -> str:
    """Bring the database at `url` to the newest revision, which is returned.

    Several processes may do so at once: one works, the others find nothing left to do.

    Raises:
        ConfigurationError: if the database is at a revision that this version does not know.
    """
    _make_folder(url)
    engine = connect(url)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            _require_known(_found(connection))
            command.upgrade(configuration(connection=connection), "head")
    finally:
        engine.dispose()
    return expected_revision()


def require_current(engine: Engine) -> None:
    """Check that the database has the revision that this version of Clipwise expects.

    Raises:
        ConfigurationError: if not; it names both revisions and the command that helps.
    """
    with engine.execution_options(read_only=True).connect() as connection:
        found = _found(connection)
    expected = expected_revision()
    if found == expected:
        return
    _require_known(found)
    raise ConfigurationError(
        f"the database is at revision {found or 'none (it is empty)'}, this version of Clipwise expects "
        f"{expected}; run: clipwise migrate"
    )


def expected_revision() -> str:
    """Return the newest revision that this version of Clipwise has."""
    head = _scripts().get_current_head()
    if head is None:
        raise ConfigurationError(f"no migrations in {scripts_folder()}; install Clipwise again")
    return head


def differences(url: str) -> list[Any]:
    """Return what Alembic would still change to make the migrated database equal to the tables: nothing.

    Raises:
        ConfigurationError: if the database is not at the newest revision.
    """
    from alembic.autogenerate import compare_metadata

    from clipwise.store.tables import Table

    engine = connect(url)
    try:
        require_current(engine)
        with engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection), Table.metadata))
    finally:
        engine.dispose()


def _found(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _require_known(found: str | None) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    if found is not None and found not in known:
        raise ConfigurationError(
            f"the database is at revision {found}, which this version of Clipwise does not know (it expects "
            f"{expected_revision()}); install the version that wrote it, or a newer one"
        )


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(configuration())


def configuration(**attributes: Any) -> Config:
    """Return Alembic's configuration for these migrations, with `attributes` for `env.py`."""
    config = Config()
    config.set_main_option("script_location", str(scripts_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(attributes)
    return config


def _make_folder(url: str) -> None:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database not in {None, "", ":memory:"}:
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
