"""Attempts that own their jobs, as workers make them: what is measured writes under a current token."""

from sqlalchemy import Engine, select

from clipwise.ids import new_id
from clipwise.jobs.spec import parse
from clipwise.store import claims, datasets, jobs
from clipwise.store.attempts import Attempt
from clipwise.store.claims import Capacity
from clipwise.store.sessions import transaction
from clipwise.store.tables import ApiKeyRow
from tests.benchmarks.load import seeding

CAPACITY = Capacity(worker_id="wrk_load", queues=["cpu"], kinds=["mlp"], lease_seconds=86_400.0)
"""Nobody renews its leases, so they last for longer than anything is measured."""


def owned(engine: Engine, count: int) -> list[Attempt]:
    """Submit so many jobs, and claim them."""
    spec = parse(seeding.PLAIN)
    with transaction(engine) as session:
        by = session.scalars(select(ApiKeyRow.id)).first()
        dataset, _ = datasets.get(session, spec.dataset)
        for _ in range(count):
            jobs.add(session, new_id("job"), spec, dataset, plan={}, steps=300, by=by or "")
    attempts = []
    for _ in range(count):
        with transaction(engine) as session:
            claimed = claims.claim(session, CAPACITY)
            assert claimed is not None
            attempts.append(claimed.attempt)
    return attempts
