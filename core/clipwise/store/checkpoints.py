"""Checkpoints as rows: each is visible once its file is complete, and under its attempt's token alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from clipwise.errors import NotFound
from clipwise.store import orphans
from clipwise.store.attempts import Attempt, fenced_update
from clipwise.store.sessions import database_time
from clipwise.store.tables import CheckpointRow


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Which checkpoints are kept: the last ones, and with `keep_best` the one of the lowest loss."""

    keep_last: int
    keep_best: bool


@dataclass(frozen=True, kw_only=True)
class NewCheckpoint:
    """A complete file in the artifact store; `loss` is that of the held-out rows, if it was measured."""

    step: int
    key: str
    size: int
    sha256: str
    loss: float | None = None


def add(session: Session, attempt: Attempt, new: NewCheckpoint, policy: Policy) -> None:
    """Make a checkpoint visible, and let go of those that the policy does not keep.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    fenced_update(session, attempt, {"checkpoint_step": new.step})
    session.execute(
        delete(CheckpointRow).where(
            CheckpointRow.job_id == attempt.job_id,
            CheckpointRow.step == new.step,
            CheckpointRow.attempt == attempt.number,
        )
    )
    session.add(
        CheckpointRow(
            job_id=attempt.job_id,
            step=new.step,
            attempt=attempt.number,
            key=new.key,
            size=new.size,
            sha256=new.sha256,
            loss=new.loss,
            created_at=database_time(session),
        )
    )
    session.flush()
    orphans.keep(session, [new.key])
    rows = newest_first(session, attempt.job_id)
    _let_go(session, [row for row in rows if row not in kept(rows, policy)])


def newest_first(session: Session, job_id: str) -> list[CheckpointRow]:
    """Return a job's checkpoints, the one to go on from first.

    A later attempt began at a checkpoint of an earlier one, and what that one wrote beyond is abandoned.
    """
    query = select(CheckpointRow).where(CheckpointRow.job_id == job_id)
    return list(session.scalars(query.order_by(CheckpointRow.attempt.desc(), CheckpointRow.step.desc())))


def kept(rows: Sequence[CheckpointRow], policy: Policy) -> list[CheckpointRow]:
    """Return which of these rows, newest first, a policy keeps."""
    chosen = list(rows[: policy.keep_last])
    champion = best(rows) if policy.keep_best else None
    return chosen if champion is None or champion in chosen else [*chosen, champion]


def best(rows: Sequence[CheckpointRow]) -> CheckpointRow | None:
    """Return the checkpoint with the lowest loss, if any was measured."""
    measured = [row for row in rows if row.loss is not None]
    return min(measured, key=lambda row: (row.loss or 0.0, -row.step)) if measured else None


def get(session: Session, job_id: str, step: int) -> CheckpointRow:
    """Return a job's newest checkpoint of a step.

    Raises:
        NotFound: if it has none.
    """
    for row in newest_first(session, job_id):
        if row.step == step:
            return row
    raise NotFound(f"the job '{job_id}' has no checkpoint of step {step}")


def drop(session: Session, attempt: Attempt, row: CheckpointRow) -> None:
    """Let go of a checkpoint that cannot be used.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    before = [other.step for other in newest_first(session, attempt.job_id) if other.key != row.key]
    fenced_update(session, attempt, {"checkpoint_step": before[0] if before else None})
    _let_go(session, [row])


def end(session: Session, job_id: str, policy: Policy | None) -> None:
    """Let go of the checkpoints of a job that is over: all but the best, where a policy keeps that."""
    rows = newest_first(session, job_id)
    champion = best(rows) if policy is not None and policy.keep_best else None
    _let_go(session, [row for row in rows if row is not champion])


def _let_go(session: Session, rows: Sequence[CheckpointRow]) -> None:
    orphans.add(session, [row.key for row in rows])
    for row in rows:
        session.delete(row)
    session.flush()
