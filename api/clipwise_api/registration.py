"""Data sets: from an upload to a row, from a proposed schema to a confirmed one, and away."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from clipwise.artifacts import Stored
from clipwise.data.schema import DatasetSchema, Unit
from clipwise.data.uploads import DatasetIngestor, IngestedDataset, folder_of, new_rows_key
from clipwise.errors import Conflict, InvalidInput, InvalidSchema, NotFound, Problem
from clipwise.ids import new_id
from clipwise.jobs.spec import problems_of
from clipwise.store import datasets, idempotency, orphans
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import DatasetRow, PopulationRow
from clipwise.wire.datasets import Dataset, Visibility
from clipwise.wire.jobs import Deleted
from clipwise_api.bodies import require_storable
from clipwise_api.caching import require_match
from clipwise_api.principals import Principal
from clipwise_api.services import ServiceSet
from clipwise_api.uploads import Upload
from clipwise_api.views.datasets import dataset_view

CREATE = "POST /v1/datasets"
FIELDS = frozenset({"name", "schema", "population", "visibility", "max_rows_per_person", "target"})
LONGEST_NAME = 200
UNIT_QUESTION = (
    "say how many rows one person may own: 1 when a row is all that they have, else the largest number"
)
UNIT_NOTE = (
    "Nobody has said how many rows one person may own, and one was taken. "
    "If a person may own more, say so in the schema before you confirm it: unit.max_rows."
)


@dataclass(frozen=True, kw_only=True)
class Registration:
    """The fields of an upload's form, checked."""

    name: str
    schema: DatasetSchema | None
    population: str
    visibility: Visibility
    max_rows_per_person: int | None
    target: str | None

    @property
    def unit_known(self) -> bool:
        """Whether it was said who may own several rows."""
        explicit = self.schema is not None and "unit" in self.schema.model_fields_set
        return explicit or self.max_rows_per_person is not None

    def with_unit(self, schema: DatasetSchema) -> DatasetSchema:
        """Return the schema with the answer about rows of one person."""
        if self.max_rows_per_person is None:
            return schema
        unit = Unit(column=schema.unit.column, max_rows=self.max_rows_per_person)
        return schema.model_copy(update={"unit": unit})


def register(
    services: ServiceSet, who: Principal, upload: Upload, idempotency_key: str | None
) -> tuple[Dataset, bool]:
    """Make a data set of an upload, or give the one that the same request made before.

    Raises:
        InvalidInput: if a field of the form is wrong.
        InvalidData: if the file cannot be read.
        Conflict: if the name is taken.
    """
    wanted = _checked(upload.fields)
    body = idempotency.body_hash({"fields": upload.fields, "file": upload.sha256})
    with reading(services.engine) as session:
        if idempotency_key is not None:
            first = idempotency.find(session, who.key_id, idempotency_key, CREATE, body)
            if first is not None:
                return _replayed(session, who, first), True
        datasets.require_free(session, wanted.name)
    dataset_id = new_id("ds")
    # Should the process die on the way, what it wrote is deleted a day later.
    with transaction(services.engine) as session:
        orphans.reserve(session, [folder_of(dataset_id)])
    ingestor = DatasetIngestor(services.artifacts)
    try:
        with upload.path.open("rb") as file:
            ingested = ingestor.ingest_upload(
                file,
                dataset_id,
                schema=wanted.with_unit(wanted.schema) if wanted.schema else None,
                target=wanted.target,
                limit=services.settings.max_upload_bytes,
            )
        with transaction(services.engine) as session:
            orphans.keep(session, [folder_of(dataset_id)])
            population = datasets.population_named(session, wanted.population, wanted.visibility)
            if idempotency_key is not None:
                first = idempotency.claim(session, who.key_id, idempotency_key, CREATE, body, dataset_id)
                if first is not None:
                    orphans.add(session, [folder_of(dataset_id)])
                    return _replayed(session, who, first), True
            row = _row(dataset_id, wanted, population, ingested, who)
            datasets.add(session, row)
            return dataset_view(row, population, who), False
    except BaseException:
        ingestor.discard(dataset_id)
        with transaction(services.engine) as session:
            orphans.keep(session, [folder_of(dataset_id)])
        raise


def confirm(
    services: ServiceSet, who: Principal, id_or_name: str, schema: DatasetSchema, if_match: str | None
) -> Dataset:
    """Confirm the proposed schema, or replace the schema; rows are made again where it differs.

    Raises:
        InvalidSchema: if it does not fit the file, or leaves the question about a person's rows open.
        Conflict: if the data set is built in, in use, or was changed meanwhile.
    """
    with reading(services.engine) as session:
        row, population = datasets.get(session, id_or_name)
        require_match(dataset_view(row, population, who), if_match)
        if row.source == "builtin" or row.source_key is None:
            raise Conflict(f"the schema of '{row.name}' is built in and stays; upload a copy to change it")
        if population.visibility == "private" and "unit" not in schema.model_fields_set:
            problem = Problem(pointer="/unit", detail=UNIT_QUESTION, code="missing")
            raise InvalidSchema(f"'{row.name}' is private: {UNIT_QUESTION}, as 'unit'", (problem,))
        unchanged = schema.as_json() == row.dataset_schema
        if not unchanged:
            datasets.require_unused(session, row, "changed")
    changes: dict[str, Any] = {}
    if not unchanged:
        source = Stored(key=row.source_key, size=row.size_bytes or 0, sha256=row.sha256 or "")
        rows_key = new_rows_key(row.id)
        with transaction(services.engine) as session:
            orphans.reserve(session, [rows_key])
        ingested = DatasetIngestor(services.artifacts).reingest(row.id, source, schema, rows_key=rows_key)
        changes = {
            "dataset_schema": ingested.schema.as_json(),
            "rows_key": ingested.rows_key,
            "rows": ingested.rows,
            "notes": list(ingested.notes),
        }
    try:
        with transaction(services.engine) as session:
            current, population = datasets.get(session, row.id, lock="change")
            if current.version != row.version:
                raise Conflict(f"the data set '{row.name}' was changed meanwhile; read it again, then decide")
            if changes:
                datasets.require_unused(session, current, "changed")
                orphans.keep(session, [changes["rows_key"]])
            datasets.confirm(session, current, changes)
            return dataset_view(current, population, who)
    except BaseException:
        if changes:
            services.artifacts.delete(changes["rows_key"])
        raise


def delete(services: ServiceSet, who: Principal, id_or_name: str, if_match: str | None) -> Deleted:
    """Delete a data set and its files.

    Raises:
        Conflict: if it is built in, or an open job needs it.
    """
    with transaction(services.engine) as session:
        row, population = datasets.get(session, id_or_name, lock="change")
        require_match(dataset_view(row, population, who), if_match)
        if row.source == "builtin":
            raise Conflict(f"'{row.name}' is built in and stays")
        datasets.remove(session, row)
        return Deleted(id=row.id, object="dataset")


def _checked(fields: dict[str, str]) -> Registration:
    unknown = sorted(set(fields) - FIELDS)
    if unknown:
        raise _invalid(f"/{unknown[0]}", f"there is no such field; the form has: {', '.join(sorted(FIELDS))}")
    name = fields.get("name", "").strip()
    if not 0 < len(name) <= LONGEST_NAME:
        raise _invalid("/name", f"give the data set a name of 1 to {LONGEST_NAME} characters")
    population = fields.get("population", "").strip() or name
    if len(population) > LONGEST_NAME:
        raise _invalid("/population", f"a population's name has at most {LONGEST_NAME} characters")
    visibility = fields.get("visibility", "")
    if visibility not in {"", "public", "private"}:
        raise _invalid("/visibility", "say 'public', or 'private' where people need protection")
    wanted = Registration(
        name=name,
        schema=_schema(fields["schema"]) if fields.get("schema", "").strip() else None,
        population=population,
        visibility="public" if visibility == "public" else "private",
        max_rows_per_person=_rows_per_person(fields.get("max_rows_per_person", "")),
        target=fields.get("target", "").strip() or None,
    )
    if visibility == "private" and not wanted.unit_known:
        raise _invalid("/max_rows_per_person", f"the data set is private: {UNIT_QUESTION}")
    return wanted


def _rows_per_person(text: str) -> int | None:
    if not text.strip():
        return None
    digits = text.strip().lstrip("0")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10 and int(digits) <= 10**9):
        raise _invalid("/max_rows_per_person", UNIT_QUESTION)
    return int(digits)


def _schema(text: str) -> DatasetSchema:
    try:
        document = json.loads(text)
        require_storable(document)
        return DatasetSchema.model_validate(document)
    except ValidationError as error:
        problems = tuple(
            Problem(pointer=f"/schema{p.pointer}", detail=p.detail, code=p.code) for p in problems_of(error)
        )
        detail = "; ".join(f"{p.pointer}: {p.detail}" for p in problems[:3])
        raise InvalidSchema(detail, problems) from error
    except (ValueError, RecursionError) as error:
        raise _invalid("/schema", "the schema is not JSON") from error


def _row(
    dataset_id: str,
    wanted: Registration,
    population: PopulationRow,
    ingested: IngestedDataset,
    who: Principal,
) -> DatasetRow:
    unit_known = population.visibility == "public" or wanted.unit_known
    settled = ingested.confirmed and unit_known
    return DatasetRow(
        id=dataset_id,
        name=wanted.name,
        population_id=population.id,
        status="ready" if settled else "proposed",
        source="upload",
        format=ingested.format,
        dataset_schema=wanted.with_unit(ingested.schema).as_json(),
        notes=[*ingested.notes, *([] if unit_known else [UNIT_NOTE])],
        source_key=ingested.source_key,
        rows_key=ingested.rows_key,
        rows=ingested.rows,
        size_bytes=ingested.size,
        sha256=ingested.sha256,
        version=1,
        created_by=who.key_id,
        created_at=datetime.now(UTC),
    )


def _replayed(session: Any, who: Principal, dataset_id: str) -> Dataset:
    try:
        row, population = datasets.get(session, dataset_id)
    except NotFound:
        raise Conflict(
            "the data set that this Idempotency-Key made was deleted since; use a new Idempotency-Key"
        ) from None
    return dataset_view(row, population, who)


def _invalid(pointer: str, detail: str) -> InvalidInput:
    return InvalidInput(f"{pointer}: {detail}", (Problem(pointer=pointer, detail=detail),))
