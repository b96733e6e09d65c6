"""Data sets and populations on the wire."""

from clipwise.data.schema import DatasetSchema
from clipwise.store import datasets
from clipwise.store.sessions import reading
from clipwise.store.tables import DatasetRow, PopulationRow
from clipwise.wire.datasets import Dataset, Population
from clipwise.wire.listing import Page
from clipwise_api.principals import Principal
from clipwise_api.services import ServiceSet


def dataset_view(row: DatasetRow, population: PopulationRow, who: Principal) -> Dataset:
    """Return a data set as this caller may see it: what was read off private rows is the owner's."""
    exact = who.is_owner or population.visibility == "public"
    return Dataset(
        id=row.id,
        name=row.name,
        status=row.status,
        source=row.source,
        format=row.format,
        population=population_view(population),
        dataset_schema=DatasetSchema.model_validate(row.dataset_schema),
        notes=row.notes if exact else [],
        rows=row.rows if exact else None,
        size_bytes=row.size_bytes if exact else None,
        sha256=row.sha256 if exact else None,
        created_at=row.created_at,
    )


def population_view(row: PopulationRow) -> Population:
    """Return a population."""
    return Population(id=row.id, name=row.name, visibility=row.visibility)


def one(services: ServiceSet, who: Principal, id_or_name: str) -> Dataset:
    """Return one data set."""
    with reading(services.engine) as session:
        row, population = datasets.get(session, id_or_name, exact=who.is_owner)
        return dataset_view(row, population, who)


def page(services: ServiceSet, who: Principal, limit: int, after: str | None) -> Page[Dataset]:
    """Return one page of data sets."""
    with reading(services.engine) as session:
        records, cursor = datasets.page(session, exact=who.is_owner, limit=limit, after=after)
        data = [dataset_view(row, population, who) for row, population in records]
    return Page(data=data, has_more=cursor is not None, next_cursor=cursor)


def populations(services: ServiceSet, who: Principal) -> Page[Population]:
    """Return the populations that have a data set."""
    with reading(services.engine) as session:
        rows = datasets.populations(session, exact=who.is_owner)
    return Page(data=[population_view(row) for row in rows])
