"""What the living workers could take, and so what a job waits for in vain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from sqlalchemy.orm import Session

from clipwise.jobs.states import ReasonCode
from clipwise.store import workers
from clipwise.store.tables import JobRow
from clipwise.store.workers import Mustered
from clipwise.wire.jobs import StatusReason


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The living workers at one moment, on the database's clock."""

    now: datetime
    workers: Sequence[Mustered]

    @classmethod
    def living(cls, session: Session) -> Self:
        """Look at the workers."""
        now, living = workers.muster(session)
        return cls(now=now, workers=living)

    def missing(self, job: JobRow) -> StatusReason | None:
        """Say what a waiting job waits for, where no worker could take it; computed, never stored."""
        needs: tuple[tuple[str, Callable[[Mustered], bool]], ...] = (
            (f"serves the queue '{job.queue}'", lambda worker: job.queue in worker.queues),
            (f"has the model kind '{job.model_kind}'", lambda worker: job.model_kind in worker.kinds),
            (f"has {_gpus(job.gpus)}", lambda worker: worker.gpus >= job.gpus),
        )
        able = list(self.workers)
        met: list[str] = []
        for need, fits in needs:
            fitting = [worker for worker in able if fits(worker)]
            if not fitting:
                return _reason(job, f"no running worker {' and '.join([*met, need])}", "one that does")
            able = fitting
            met.append(need)
        if any(not worker.draining for worker in able):
            return None
        names = ", ".join(worker.id for worker in able[:3])
        return _reason(job, f"each worker that could run it is draining ({names})", "another one")


def _reason(job: JobRow, lacking: str, awaited: str) -> StatusReason:
    since = f" since {job.queued_at:%Y-%m-%dT%H:%M:%SZ}" if job.queued_at else ""
    message = f"{lacking}; waiting{since} for {awaited}"
    return StatusReason(code=ReasonCode.NO_MATCHING_WORKER, message=message)


def _gpus(number: int) -> str:
    return "a GPU" if number == 1 else f"{number} GPUs"
