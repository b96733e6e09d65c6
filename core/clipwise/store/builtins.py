"""Rows for the data sets that come with Clipwise."""

from datetime import UTC, datetime

from sqlalchemy import Engine, select
from sqlalchemy.dialects import postgresql, sqlite

from clipwise.data.builtin import BUILTINS
from clipwise.ids import new_id
from clipwise.store.datasets import population_named
from clipwise.store.sessions import transaction
from clipwise.store.tables import DatasetRow

POPULATION = "built-in data sets"


def seed(engine: Engine) -> None:
    """Write a public row for each built-in data set that has none; safe from several processes at once."""
    with transaction(engine) as session:
        insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        known = set(session.scalars(select(DatasetRow.name).where(DatasetRow.source == "builtin")))
        missing = [name for name in BUILTINS if name not in known]
        if not missing:
            return
        population = population_named(session, POPULATION, "public")
        for name in missing:
            schema = BUILTINS[name].schema
            values = {
                DatasetRow.id: new_id("ds"),
                DatasetRow.name: name,
                DatasetRow.population_id: population.id,
                DatasetRow.status: "ready",
                DatasetRow.source: "builtin",
                DatasetRow.format: "builtin",
                DatasetRow.dataset_schema: schema.as_json(),
                DatasetRow.notes: [BUILTINS[name].description],
                DatasetRow.rows: schema.size.value,
                DatasetRow.version: 1,
                DatasetRow.created_at: datetime.now(UTC),
            }
            session.execute(insert(DatasetRow).values(values).on_conflict_do_nothing())
