from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from tests.job_rows import AddJob, job_adder

from clipwise.store import migration
from clipwise.store.sessions import connect


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    migration.upgrade(database_url)
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def add_job(engine: Engine) -> AddJob:
    """Return a function that queues a job on a built-in data set and returns its id."""
    return job_adder(engine)
