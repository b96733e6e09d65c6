"""The short form of `make faults`: every kind of fault about once, while a handful of jobs runs."""

import secrets
import tempfile
from pathlib import Path

import pytest

from tests.faults.history import History


@pytest.mark.timeout(600)
@pytest.mark.redis
@pytest.mark.postgres
def test_jobs_survive_every_kind_of_fault() -> None:
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}; again with: python -m tests.faults --seed {seed} --jobs 6 --steps 1000 --pause 1")
    # Not pytest's folder, which PostgreSQL's own user may not enter.
    folder = Path(tempfile.mkdtemp(prefix="clipwise-faults-"))
    history = History(folder / "cluster", seed=seed, jobs=6, steps=1000, pause=1.0)
    try:
        report = history.run()
    finally:
        history.cluster.close()
        folder.rmdir()
    print("\n".join(report.lines()))
    # Of so few jobs one may have been hit too often; what became of it has to be in order all the same.
    assert [line for line in report.broken if not line.startswith(("(failed)", "only "))] == []
    assert report.statuses.get("succeeded", 0) >= 5
    assert sum(report.injected.values()) >= 5
