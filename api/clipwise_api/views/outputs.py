"""What a job leaves, on the wire: events, metrics, logs, artifacts."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from clipwise.errors import Forbidden, InvalidInput, Problem
from clipwise.jobs.states import TERMINAL
from clipwise.store import artifacts as artifact_store
from clipwise.store import job_feed, jobs
from clipwise.store import metrics as metric_store
from clipwise.store.jobs import JobRecord
from clipwise.store.sessions import reading
from clipwise.store.tables import ArtifactRow, EventRow
from clipwise.wire.jobs import Artifact, Event, LogLine, MetricSeries
from clipwise.wire.listing import Page, WireObject
from clipwise_api.event_stream import EventView
from clipwise_api.principals import Principal
from clipwise_api.services import ServiceSet
from clipwise_api.views.log_lines import line_view

T = TypeVar("T", bound=WireObject)

SEALED = "only owners see why: the job trained on private data without 'privacy'"


def sees_exact(record: JobRecord, who: Principal) -> bool:
    """Whether the caller may see what no guarantee covers: owners may, and anyone on public data."""
    return who.is_owner or not record.private


def is_sealed(record: JobRecord, who: Principal) -> bool:
    """Whether a job is for owners alone: it trained on private data without a guarantee."""
    return record.job.spec.get("privacy") is None and not sees_exact(record, who)


def resume_point(after: int, last_event_id: str | None) -> int:
    """Return the number of the last event or line that the client has; the header wins, as browsers send it.

    Raises:
        InvalidInput: if the header is no number.
    """
    if last_event_id is None or not last_event_id.strip():
        return after
    if not (last_event_id.isascii() and last_event_id.isdigit() and int(last_event_id) < 2**31):
        detail = "it is the number of the last event or line that was received"
        problem = Problem(pointer="/header/Last-Event-ID", detail=detail)
        raise InvalidInput(f"Last-Event-ID cannot be used: {detail}", (problem,))
    return int(last_event_id)


def events(services: ServiceSet, who: Principal, job_id: str, after: int, limit: int) -> Page[Event]:
    """Return a job's events after number `after`."""
    with reading(services.engine) as session:
        view = _event_view(jobs.get(session, job_id), who)
        rows = job_feed.events_after(session, job_id, after, limit + 1)
    return numbered([view(row) for row in rows], limit, lambda event: event.id)


def stream_view(services: ServiceSet, who: Principal, job_id: str, after: int) -> tuple[EventView, bool]:
    """Return how this caller sees events, and whether there is nothing to come after number `after`."""
    with reading(services.engine) as session:
        record = jobs.get(session, job_id)
    over = record.job.status in TERMINAL and after >= record.job.last_event_id
    return _event_view(record, who), over


def metrics(
    services: ServiceSet,
    who: Principal,
    job_id: str,
    names: Sequence[str] | None,
    after_step: int | None,
    max_points: int,
) -> dict[str, MetricSeries]:
    """Return a job's metrics; only released ones to those who may not see exact ones."""
    with reading(services.engine) as session:
        record = jobs.get(session, job_id)
        found = metric_store.series(
            session,
            job_id,
            names=names,
            after_step=after_step,
            max_points=max_points,
            released_only=not sees_exact(record, who),
        )
    return {
        name: MetricSeries(step=list(s.steps), value=list(s.values), released=s.released)
        for name, s in found.items()
    }


def logs(
    services: ServiceSet, who: Principal, job_id: str, after: int, limit: int, *, tail: bool
) -> Page[LogLine]:
    """Return lines of a job's runner.

    Raises:
        Forbidden: on private data, to everyone but owners: a program's output is outside of any guarantee.
    """
    with reading(services.engine) as session:
        _require_lines(jobs.get(session, job_id), who)
        read = job_feed.last_lines if tail else job_feed.lines_after
        rows = read(session, job_id, after, limit if tail else limit + 1)
    return numbered([line_view(row) for row in rows], limit, lambda line: line.id)


def stream_of_lines(
    services: ServiceSet, who: Principal, job_id: str, after: int, tail: int | None
) -> tuple[int, bool]:
    """Return the number behind which a stream of lines begins, and whether there is nothing to come.

    With `tail` it begins with so many of the lines that there are, at most.

    Raises:
        Forbidden: on private data, to everyone but owners.
    """
    with reading(services.engine) as session:
        record = jobs.get(session, job_id)
    _require_lines(record, who)
    last = record.job.last_log_id
    start = after if tail is None else max(after, last - tail)
    return start, record.job.status in TERMINAL and start >= last


def artifacts(services: ServiceSet, who: Principal, job_id: str) -> Page[Artifact]:
    """Return the files that a job left."""
    with reading(services.engine) as session:
        require_outputs(jobs.get(session, job_id), who)
        rows = artifact_store.of_job(session, job_id)
    data = [Artifact(name=r.name, size=r.size, sha256=r.sha256, created_at=r.created_at) for r in rows]
    return Page(data=data)


def artifact(services: ServiceSet, who: Principal, job_id: str, name: str) -> ArtifactRow:
    """Return one file of a job."""
    with reading(services.engine) as session:
        require_outputs(jobs.get(session, job_id), who)
        return artifact_store.get(session, job_id, name)


def require_outputs(record: JobRecord, who: Principal) -> None:
    """Check that the caller may have what a job made: a model without a guarantee is sealed.

    Raises:
        Forbidden: if it trained on private data without one, and the caller is no owner.
    """
    if is_sealed(record, who):
        raise Forbidden(
            f"the job '{record.job.id}' trained on private data without 'privacy'; what it made is for owners"
        )


def numbered(items: list[T], limit: int, number: Callable[[T], int]) -> Page[T]:
    """Return a page of things that are numbered within their job; `items` may have one more than it shows."""
    more = len(items) > limit
    shown = items[:limit]
    return Page(data=shown, has_more=more, next_cursor=str(number(shown[-1])) if more else None)


def _require_lines(record: JobRecord, who: Principal) -> None:
    if not sees_exact(record, who):
        raise Forbidden("logs of jobs on private data are for owners: no guarantee covers them")


def _event_view(record: JobRecord, who: Principal) -> EventView:
    exact, sealed = sees_exact(record, who), is_sealed(record, who)

    def view(row: EventRow) -> Event:
        return Event(
            id=row.id,
            type=row.type,
            level=row.level,
            # What a runner says of an error can quote a value.
            message=SEALED if sealed and row.level in {"warning", "error"} else row.message,
            data=row.data if exact else {},
            attempt=row.attempt,
            created_at=row.created_at,
        )

    return view
