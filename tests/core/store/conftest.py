from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from clipwise.ids import new_id
from clipwise.jobs.states import JobStatus
from clipwise.store import migration
from clipwise.store.sessions import connect, transaction
from clipwise.store.tables import DatasetRow, JobRow, PopulationRow

AddJob = Callable[..., str]
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    migration.upgrade(database_url)
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def add_job(engine: Engine) -> AddJob:
    """Return a function that queues a job on a built-in data set and returns its id."""
    count = 0
    with transaction(engine) as session:
        session.add(PopulationRow(id="pop_1", name="digits", visibility="public", created_at=START))
        session.flush()
        session.add(
            DatasetRow(
                id="ds_1",
                name="digits",
                population_id="pop_1",
                status="ready",
                source="builtin",
                format="builtin",
                dataset_schema={"target": "label"},
                notes=[],
                created_at=START,
            )
        )

    def add(**changes: Any) -> str:
        nonlocal count
        count += 1
        job_id = new_id("job")
        row: dict[str, Any] = {
            "id": job_id,
            "status": JobStatus.QUEUED,
            "spec": {"model": {"kind": "mlp"}},
            "plan": {"steps": 10, "delta": 1e-4},
            "dataset_id": "ds_1",
            "model_kind": "mlp",
            "queue": "cpu",
            "created_at": START + timedelta(seconds=count),
        }
        with transaction(engine) as session:
            session.add(JobRow(**row | changes))
        return job_id

    return add
