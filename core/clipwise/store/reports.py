"""What a running attempt tells: phase, progress, metrics, log lines, warnings; all under its token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CursorResult,
    Double,
    Integer,
    String,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from clipwise.jobs.states import Phase
from clipwise.store import spans
from clipwise.store.attempts import Attempt, fenced_update
from clipwise.store.events import Level, append_event
from clipwise.store.spans import Point
from clipwise.store.tables import AttemptRow, JobRow, LogLineRow, Table

LOG_LINES = 10_000
"""Lines kept of one job, the last ones: what matters of a failure comes at the end."""
_LOG_SWEEP = 1_000
LOG_LINE_CHARACTERS = 8_192
METRICS = Table.metadata.tables["metrics"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a runner's output; `stream` is `stdout` or `stderr`."""

    stream: str
    text: str
    at: datetime


def begin(session: Session, attempt: Attempt, report: int) -> bool:
    """Note that the attempt's report of this number is written; False if it has been: its answer was lost.

    Reports are numbered from 1 on and written in their order.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    fenced_update(session, attempt, {})
    noted = session.execute(
        update(AttemptRow)
        .where(
            AttemptRow.job_id == attempt.job_id,
            AttemptRow.number == attempt.number,
            AttemptRow.reports < report,
        )
        .values(reports=report)
        .returning(AttemptRow.number)
        .execution_options(synchronize_session=False)
    )
    return noted.scalar_one_or_none() is not None


def set_phase(session: Session, attempt: Attempt, phase: str) -> None:
    """Note what the attempt is doing, in the job and as an event.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    phase = storable(phase)
    fenced_update(session, attempt, {"phase": phase})
    append_event(session, attempt.job_id, "phase", "info", phase, {"phase": phase}, attempt.number)


def record_progress(
    session: Session,
    attempt: Attempt,
    *,
    step: int,
    steps: int,
    samples_per_second: float | None = None,
    eta_seconds: float | None = None,
) -> None:
    """Note how far the attempt is; what it has spent is written when it is charged.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    values: dict[str, Any] = {
        "step": step,
        "steps": steps,
        "samples_per_second": samples_per_second,
        "eta_seconds": eta_seconds,
    }
    fenced_update(session, attempt, values)


def record_start(session: Session, attempt: Attempt, step: int) -> None:
    """Note the step behind which the attempt begins: what earlier ones told of later steps is void.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    fenced_update(session, attempt, {"step": step, "phase": Phase.RECOVERING})
    session.execute(
        update(AttemptRow)
        .where(AttemptRow.job_id == attempt.job_id, AttemptRow.number == attempt.number)
        .values(start_step=step)
        .execution_options(synchronize_session=False)
    )
    data = {"step": step}
    message = f"The job goes on from its checkpoint of step {step}."
    append_event(session, attempt.job_id, "recovered", "info", message, data, attempt.number)


def add_metrics(session: Session, attempt: Attempt, points: Sequence[Point]) -> None:
    """Write points in one statement; a point that is there already stays as it is.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    fenced_update(session, attempt, {})
    if points:
        points = _storable(points)
        written = _insert_points(session, attempt, points)
        note = spans.add if written == len(points) else spans.renew
        note(session, attempt.job_id, attempt.number, points)


def add_logs(session: Session, attempt: Attempt, lines: Sequence[Line]) -> None:
    """Write lines of output; the last `LOG_LINES` of a job are kept, and long ones are cut.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    fenced_update(session, attempt, {"last_log_id": JobRow.last_log_id + len(lines)})
    end = session.execute(select(JobRow.last_log_id).where(JobRow.id == attempt.job_id)).scalar_one()
    start = end - len(lines)
    rows = [_log_row(attempt, start + 1 + index, line) for index, line in enumerate(lines)]
    if rows:
        session.execute(insert(LogLineRow), rows[-LOG_LINES:])
    if end // _LOG_SWEEP > start // _LOG_SWEEP:  # now and then: what is too old goes
        session.execute(
            delete(LogLineRow).where(LogLineRow.job_id == attempt.job_id, LogLineRow.id <= end - LOG_LINES)
        )


def add_event(
    session: Session,
    attempt: Attempt,
    type: str,  # noqa: A002 - the wire's name
    level: Level,
    message: str,
    data: Mapping[str, Any] | None = None,
) -> int:
    """Append an event of the attempt and return its id.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    fenced_update(session, attempt, {})
    return append_event(session, attempt.job_id, type, level, storable(message), data, attempt.number)


def storable(text: str) -> str:
    """Return `text` as every database takes it: no NUL, no half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _storable(points: Sequence[Point]) -> Sequence[Point]:
    names = {name: storable(name) for name in {point.name for point in points}}
    if all(name == clean for name, clean in names.items()):
        return points
    return [replace(point, name=names[point.name]) for point in points]


def _insert_points(session: Session, attempt: Attempt, points: Sequence[Point]) -> int:
    """Write the points that are new and return how many that were."""
    owner = {"job_id": attempt.job_id, "attempt": attempt.number}
    dialect = session.get_bind().dialect.name
    parameters: Any
    if dialect == "postgresql":
        arrays = {f"{name}s": [getattr(point, name) for point in points] for name in _POINT}
        parameters = owner | arrays
    else:
        parameters = [owner | {name: getattr(point, name) for name in _POINT} for point in points]
    result: CursorResult[Any] = session.connection().execute(
        _insert(dialect), parameters, execution_options={"preserve_rowcount": True}
    )
    return result.rowcount


_POINT: Mapping[str, TypeEngine[Any]] = {
    "name": String(),
    "step": BigInteger(),
    "value": Double(),
    "released": Boolean(),
}


@cache
def _insert(dialect: str) -> Any:
    if dialect != "postgresql":
        return sqlite.insert(METRICS).on_conflict_do_nothing()
    # One array per column: the statement has the same text for any number of points, and one round trip.
    arrays = [bindparam(f"{name}s", type_=ARRAY(type_)) for name, type_ in _POINT.items()]
    rows = func.unnest(*arrays).table_valued(*_POINT).render_derived()
    owner = bindparam("job_id", type_=String()), bindparam("attempt", type_=Integer())
    source = select(*owner, *(rows.c[name] for name in _POINT))
    insertion = postgresql.insert(METRICS).from_select(["job_id", "attempt", *_POINT], source)
    return insertion.on_conflict_do_nothing()


def _log_row(attempt: Attempt, line_id: int, line: Line) -> dict[str, Any]:
    return {
        "job_id": attempt.job_id,
        "id": line_id,
        "stream": line.stream,
        "line": storable(line.text)[:LOG_LINE_CHARACTERS],
        "attempt": attempt.number,
        "created_at": line.at,
    }
