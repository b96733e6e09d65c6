"""Alembic's entry point: on the connection that it is given, else on the configured database."""

from typing import Any

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import JSON, Connection

from clipwise.settings import Settings
from clipwise.store.sessions import connect
from clipwise.store.tables import Table, UtcDateTime


def render_item(kind: str, item: Any, autogenerate: AutogenContext) -> str | bool:
    """Write our column types as what they are in the database, so that a revision needs none of our code."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, JSON):
        autogenerate.imports.add("from sqlalchemy.dialects import postgresql")
        return "sa.JSON().with_variant(postgresql.JSONB(), 'postgresql')"
    return False


def run(connection: Connection | None, url: str | None = None) -> None:
    """Run the migrations in one transaction, which whoever opened the connection commits."""
    context.configure(
        connection=connection,
        url=url,
        target_metadata=Table.metadata,
        render_item=render_item,
        transactional_ddl=True,
        literal_binds=connection is None,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
elif context.is_offline_mode():
    run(None, Settings().database)
else:
    with connect(Settings().database).begin() as opened:
        run(opened)
