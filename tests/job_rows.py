"""Rows for tests of what lies below the api: a data set, and jobs that wait in its queue."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from sqlalchemy import Engine

from clipwise.ids import new_id
from clipwise.jobs.states import JobStatus
from clipwise.store.sessions import transaction
from clipwise.store.tables import DatasetRow, JobRow, PopulationRow

AddJob = Callable[..., str]
START = datetime(2026, 1, 1, tzinfo=UTC)


def job_adder(engine: Engine, dataset_schema: dict[str, Any] | None = None, **dataset: Any) -> AddJob:
    """Write a data set (built-in digits, unless told otherwise) and return what queues jobs on it."""
    numbers = count(1)
    with transaction(engine) as session:
        session.add(PopulationRow(id="pop_1", name="people", visibility="public", created_at=START))
        session.flush()
        row: dict[str, Any] = {
            "id": "ds_1",
            "name": "digits",
            "population_id": "pop_1",
            "status": "ready",
            "source": "builtin",
            "format": "builtin",
            "dataset_schema": dataset_schema or {"target": "label"},
            "notes": [],
            "created_at": START,
        }
        session.add(DatasetRow(**row | dataset))

    def add(**changes: Any) -> str:
        row: dict[str, Any] = {
            "id": new_id("job"),
            "status": JobStatus.QUEUED,
            "spec": {"model": {"kind": "mlp"}},
            "plan": {"steps": 10, "delta": 1e-4},
            "dataset_id": "ds_1",
            "model_kind": "mlp",
            "queue": "cpu",
            "created_at": START + timedelta(seconds=next(numbers)),
        }
        row |= changes
        with transaction(engine) as session:
            session.add(JobRow(**row))
        job_id: str = row["id"]
        return job_id

    return add
