"""Jobs: submit, find, list."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

from sqlalchemy import ColumnElement, Insert, String, bindparam, func, insert, or_, select
from sqlalchemy.orm import Session

from clipwise.errors import NotFound
from clipwise.jobs.spec import JobSpec
from clipwise.jobs.states import OWNED, JobStatus
from clipwise.store import cursors, outbox
from clipwise.store.attempts import wait_until
from clipwise.store.events import NewEvent, write_first
from clipwise.store.sessions import planned_by_values
from clipwise.store.tables import (
    DatasetRow,
    JobRow,
    JobTagRow,
    Json,
    PopulationRow,
    Table,
    searchable,
)

Sort = Literal["-created_at", "created_at", "name", "-name"]


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """A job with what decides who may see what of it.

    Attributes:
        job: the row.
        private: whether the rows that it trains on are of a private population.
    """

    job: JobRow
    private: bool


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs a list has; every condition that is given must hold.

    Attributes:
        ids: one of these jobs.
        statuses: one of these.
        dataset: id or name of the data set.
        model_kind: kind of the model.
        queue: name of the queue.
        parent: id of the job that they were made from.
        created_by: id of the key that submitted them.
        tags: all of these, each as key and value.
        search: part of the name.
    """

    ids: Sequence[str] | None = None
    statuses: Sequence[JobStatus] = ()
    dataset: str | None = None
    model_kind: str | None = None
    queue: str | None = None
    parent: str | None = None
    created_by: str | None = None
    tags: Sequence[tuple[str, str]] = ()
    search: str | None = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """A job's place in the order of creation; `cursor` goes on behind it."""

    id: str
    cursor: str


def add(
    session: Session,
    job_id: str,
    spec: JobSpec,
    dataset: DatasetRow,
    *,
    plan: Mapping[str, Any] | None,
    steps: int,
    by: str,
    parent: tuple[str, str] | None = None,
    request_id: str | None = None,
) -> JobRow:
    """Write a job with its tags and its first event; with a plan it is queued, else it waits for one.

    `parent` is the id of the job that it was made from, and the verb.
    """
    now = datetime.now(UTC)
    status = JobStatus.VALIDATING if plan is None else JobStatus.QUEUED
    queue = spec.resources.queue
    lineage = {} if parent is None else {"parent": parent[0], "verb": parent[1]}
    submitted = {"status": status, **lineage}
    events = [NewEvent(type="submitted", level="info", message="The job was submitted.", data=submitted)]
    if plan is not None:
        events.append(NewEvent(type="queued", level="info", message=f"The job waits in queue '{queue}'."))
    row = JobRow(
        id=job_id,
        name=spec.name,
        status=status,
        spec=spec.as_json(),
        plan=dict(plan) if plan is not None else None,
        dataset_id=dataset.id,
        model_kind=str(spec.model["kind"]),
        queue=queue,
        priority=spec.resources.priority,
        gpus=spec.resources.gpus,
        steps=steps,
        delta=spec.privacy.delta if spec.privacy else None,
        parent_id=parent[0] if parent else None,
        parent_verb=parent[1] if parent else None,
        request_id=request_id,
        created_by=by,
        last_event_id=len(events),
        created_at=now,
        queued_at=None if plan is None else now,
    )
    row.wait_until = None if plan is None else wait_until(row.spec, now)
    session.add(row)
    session.flush()
    if spec.tags:
        add_tags = _add_tags(session.get_bind().dialect.name)
        session.execute(add_tags, {"job_id": job_id, "tags": dict(spec.tags)})
    write_first(session, job_id, events)
    if plan is not None:
        outbox.add(session, queue, job_id)
    return row


def get(session: Session, job_id: str, *, lock: bool = False) -> JobRecord:
    """Return a job.

    Args:
        session: an open session.
        job_id: its id.
        lock: keep other writers from it until the transaction ends.

    Raises:
        NotFound: if there is none with this id.
    """
    query = _with_visibility().where(JobRow.id == job_id)
    if lock:
        query = query.with_for_update(of=JobRow)
    found = session.execute(query).one_or_none()
    if found is None:
        raise NotFound(f"there is no job '{job_id}'")
    return JobRecord(job=found[0], private=found[1] == "private")


def page(
    session: Session, wanted: JobFilter, *, sort: Sort, limit: int, after: str | None
) -> tuple[list[JobRecord], str | None]:
    """Return one page of jobs, and the cursor of the next one if there is more."""
    table = JobRow.__table__.c
    descending, by_name = sort.startswith("-"), sort.endswith("name")
    column: ColumnElement[Any] = table.search_name if by_name else table.created_at
    position: tuple[object, str] | None = None
    if after is not None:
        position = cursors.decode(sort, after) if by_name else cursors.decode_time(sort, after)
    # First which jobs, from an index that has all that is asked for; their wide rows are read after that.
    matching = _matching(session, select(table.id), wanted)
    ordered = cursors.seek(matching, column, table.id, descending=descending, after=position)
    chosen = ordered.limit(limit + 1).subquery()
    query = _with_visibility().join(chosen, chosen.c.id == JobRow.id)
    with planned_by_values(session):
        rows = session.execute(cursors.seek(query, column, table.id, descending=descending, after=None)).all()
    records = [JobRecord(job=row[0], private=row[1] == "private") for row in rows[:limit]]
    if len(rows) <= limit:
        return records, None
    last = records[-1].job
    return records, cursors.encode(sort, last.search_name if by_name else last.created_at, last.id)


def oldest(
    session: Session, wanted: JobFilter, *, limit: int, after: str | None, until: datetime | None = None
) -> tuple[list[Place], bool]:
    """Return where the first jobs behind a cursor are, the oldest first, and whether there are more.

    What was submitted after `until` is left out.
    """
    table = JobRow.__table__.c
    query = _matching(session, select(table.id, table.created_at), wanted)
    if until is not None:
        query = query.where(table.created_at <= until)
    position = cursors.decode_time("created_at", after) if after is not None else None
    ordered = cursors.seek(query, table.created_at, table.id, descending=False, after=position)
    with planned_by_values(session):
        rows = session.execute(ordered.limit(limit + 1)).all()
    places = [Place(id=r.id, cursor=cursors.encode("created_at", r.created_at, r.id)) for r in rows[:limit]]
    return places, len(rows) > limit


def known(session: Session, job_ids: Collection[str]) -> set[str]:
    """Return which of these jobs there are."""
    return set(session.scalars(select(JobRow.id).where(JobRow.id.in_(job_ids))))


def waiting_for_plans(session: Session, limit: int = 20) -> Sequence[JobRecord]:
    """Return jobs whose noise is not known yet, the oldest first."""
    query = _with_visibility().where(JobRow.status == JobStatus.VALIDATING)
    rows = session.execute(query.order_by(JobRow.created_at, JobRow.id).limit(limit)).all()
    return [JobRecord(job=row[0], private=row[1] == "private") for row in rows]


def count_by_queue(session: Session) -> dict[str, dict[str, int]]:
    """Return, for each queue with open jobs, how many of them have each status."""
    open_statuses = [JobStatus.QUEUED, *OWNED]
    query = (
        select(JobRow.queue, JobRow.status, func.count())
        .where(JobRow.status.in_(open_statuses))
        .group_by(JobRow.queue, JobRow.status)
    )
    counts: dict[str, dict[str, int]] = {}
    for queue, status, number in session.execute(query):
        counts.setdefault(queue, {})[status] = number
    return counts


def running_on(session: Session, worker_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the jobs that each of these workers runs now."""
    query = select(JobRow.worker_id, JobRow.id).where(
        JobRow.worker_id.in_(worker_ids), JobRow.status.in_(OWNED)
    )
    found: dict[str, list[str]] = {}
    for worker_id, job_id in session.execute(query.order_by(JobRow.id)):
        found.setdefault(str(worker_id), []).append(job_id)
    return found


@cache
def _add_tags(dialect: str) -> Insert:
    # All of them in one statement of the same text, however many there are.
    document = bindparam("tags", type_=Json)
    each = func.jsonb_each_text(document) if dialect == "postgresql" else func.json_each(document)
    tag = each.table_valued("key", "value")
    source = select(bindparam("job_id", type_=String()), tag.c.key, tag.c.value)
    return insert(Table.metadata.tables["job_tags"]).from_select(["job_id", "key", "value"], source)


def _with_visibility() -> Any:
    query = select(JobRow, PopulationRow.visibility).join(DatasetRow, DatasetRow.id == JobRow.dataset_id)
    return query.join(PopulationRow, PopulationRow.id == DatasetRow.population_id)


def _matching(session: Session, query: Any, wanted: JobFilter) -> Any:
    if wanted.ids is not None:
        query = query.where(JobRow.id.in_(wanted.ids))
    if wanted.statuses:
        query = query.where(JobRow.status.in_(wanted.statuses))
    if wanted.dataset is not None:
        # Found beforehand, so that the index of the data set's jobs gives them in their order.
        named = select(DatasetRow.id).where(
            or_(DatasetRow.id == wanted.dataset, DatasetRow.name == wanted.dataset)
        )
        query = query.where(JobRow.dataset_id.in_(session.scalars(named).all()))
    exact = (
        (JobRow.model_kind, wanted.model_kind),
        (JobRow.queue, wanted.queue),
        (JobRow.parent_id, wanted.parent),
        (JobRow.created_by, wanted.created_by),
    )
    query = query.where(*(column == value for column, value in exact if value is not None))
    if wanted.search:
        query = query.where(JobRow.search_name.contains(searchable(wanted.search), autoescape=True))
    for key, value in wanted.tags:
        tagged = select(JobTagRow.job_id).where(JobTagRow.key == key, JobTagRow.value == value)
        query = query.where(JobRow.id.in_(tagged))
    return query
