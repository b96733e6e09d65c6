"""Workers, claims and endings of attempts, as a worker would write them; no worker runs in these tests."""

from datetime import timedelta
from typing import Any

from sqlalchemy import update

from clipwise.store import attempts, checkpoints, claims, workers
from clipwise.store.attempts import Attempt, Outcome, Release
from clipwise.store.checkpoints import NewCheckpoint, Policy
from clipwise.store.claims import Capacity
from clipwise.store.devices import Device
from clipwise.store.sessions import transaction
from clipwise.store.tables import JobRow
from clipwise.store.workers import WorkerInfo
from tests.api.conftest import Api

GPU = Device(uuid="GPU-1", name="H200", memory_bytes=2**37)


def register(api: Api, worker_id: str, **info: Any) -> None:
    """Have a worker register."""
    fixed: dict[str, Any] = {
        "host": "here", "pid": 1, "queues": ["cpu"], "slots": 1, "kinds": {"mlp": {}, "logistic": {}},
        "versions": {},
    }  # fmt: skip
    with transaction(api.services.engine) as session:
        workers.register(session, WorkerInfo(id=worker_id, **{**fixed, **info}))


def claim(api: Api, worker_id: str = "wrk_1", **capacity: Any) -> Attempt:
    """Have a worker claim the best job."""
    fixed: dict[str, Any] = {"queues": ["cpu"], "kinds": ["mlp", "logistic"], "host": "here"}
    with transaction(api.services.engine) as session:
        claimed = claims.claim(session, Capacity(worker_id=worker_id, **{**fixed, **capacity}))
    assert claimed is not None
    return claimed.attempt


def release(api: Api, attempt: Attempt, **back: Any) -> None:
    """Have an attempt give its job back."""
    with transaction(api.services.engine) as session:
        attempts.release(session, attempt, Release(**back))


def finish(api: Api, attempt: Attempt, **outcome: Any) -> None:
    """Have an attempt end its job."""
    with transaction(api.services.engine) as session:
        attempts.finish(session, attempt, Outcome(**outcome))


def add_checkpoint(api: Api, attempt: Attempt, step: int, content: bytes, loss: float | None = None) -> None:
    """Have an attempt write a checkpoint."""
    key = f"jobs/{attempt.job_id}/checkpoints/{attempt.number}-{step}.safetensors"
    stored = api.services.artifacts.write(key, [content])
    new = NewCheckpoint(step=step, key=key, size=stored.size, sha256=stored.sha256, loss=loss)
    with transaction(api.services.engine) as session:
        checkpoints.add(session, attempt, new, Policy(keep_last=2, keep_best=True))


def let_time_pass(api: Api, job_id: str, seconds: float) -> None:
    """Have the pause of an interrupted job be so many seconds shorter."""
    with transaction(api.services.engine) as session:
        row = session.get_one(JobRow, job_id)
        assert row.not_before is not None
        moment = row.not_before - timedelta(seconds=seconds)
        session.execute(update(JobRow).where(JobRow.id == job_id).values(not_before=moment))
