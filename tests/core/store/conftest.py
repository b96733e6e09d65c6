import pytest
from sqlalchemy import Engine
from tests.job_rows import AddJob, job_adder


@pytest.fixture
def add_job(engine: Engine) -> AddJob:
    """Return a function that queues a job on a built-in data set and returns its id."""
    return job_adder(engine)
