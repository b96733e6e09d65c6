"""Worker processes: who is there, what they can run, and when they were last heard of."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import JSON, ColumnElement, Select, and_, cast, func, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from clipwise.errors import Conflict, NotFound
from clipwise.store import devices
from clipwise.store.devices import Device
from clipwise.store.sessions import database_clock, database_time
from clipwise.store.tables import WorkerRow

ALIVE_SECONDS = 30.0
"""A worker that was not heard of for longer is not counted on; three missed heartbeats."""


@dataclass(frozen=True, kw_only=True)
class WorkerInfo:
    """What a worker says about itself; `kinds` maps each kind of model that it has to its JSON schema."""

    id: str
    host: str
    pid: int
    queues: Sequence[str]
    slots: int
    kinds: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]
    devices: Sequence[Device] = ()


@dataclass(frozen=True, kw_only=True)
class Mustered:
    """What a live worker could take; one that is draining takes nothing."""

    id: str
    queues: frozenset[str]
    kinds: frozenset[str]
    gpus: int
    draining: bool


@dataclass(frozen=True, kw_only=True)
class LiveKind:
    """A kind of model that live workers have."""

    json_schema: Mapping[str, Any]
    workers: int


def register(session: Session, worker: WorkerInfo) -> None:
    """Write a worker that has just started."""
    now = database_time(session)
    session.add(
        WorkerRow(
            id=worker.id,
            host=worker.host,
            pid=worker.pid,
            queues=list(worker.queues),
            slots=worker.slots,
            kinds={kind: dict(schema) for kind, schema in worker.kinds.items()},
            versions=dict(worker.versions),
            devices=[vars(device) for device in worker.devices],
            started_at=now,
            heartbeat_at=now,
        )
    )
    session.flush()
    devices.announce(session, worker.host, worker.devices)


def heartbeat(session: Session, worker_id: str) -> bool:
    """Note that a worker is alive; False when nobody knows it (any more): it has to register again."""
    found = session.execute(
        update(WorkerRow)
        .where(WorkerRow.id == worker_id)
        .values(heartbeat_at=database_time(session), stopped_at=None)
        .returning(WorkerRow.id)
    )
    return found.scalar_one_or_none() is not None


def stop(session: Session, worker_id: str) -> None:
    """Note that a worker has stopped."""
    session.execute(
        update(WorkerRow)
        .where(WorkerRow.id == worker_id, WorkerRow.stopped_at.is_(None))
        .values(stopped_at=database_time(session))
    )


def drain(session: Session, worker_id: str, *, draining: bool) -> WorkerRow:
    """Ask a worker to take no more jobs and to put back those that it has, or to take jobs again.

    Raises:
        NotFound: if there is no such worker.
        Conflict: if it has stopped.
    """
    row = session.get(WorkerRow, worker_id, with_for_update=True)
    if row is None:
        raise NotFound(f"there is no worker '{worker_id}'")
    if row.stopped_at is not None:
        raise Conflict(f"the worker '{worker_id}' has stopped; start another one")
    if draining != (row.draining_at is not None):
        row.draining_at = database_time(session) if draining else None
    session.flush()
    return row


def alive(session: Session, within_seconds: float = ALIVE_SECONDS) -> list[WorkerRow]:
    """Return the workers that were heard of within so many seconds, oldest first."""
    return list(
        session.scalars(
            select(WorkerRow)
            .where(_lives(session.get_bind().dialect.name, within_seconds))
            .order_by(WorkerRow.started_at, WorkerRow.id)
        )
    )


def muster(session: Session) -> tuple[datetime, list[Mustered]]:
    """Return the time on the database's clock and what each live worker could take, in one small query."""
    rows = session.execute(_muster(session.get_bind().dialect.name)).all()
    return rows[0].now, [
        Mustered(
            id=row.id,
            queues=frozenset(row.queues),
            kinds=frozenset(row.kinds),
            gpus=len(row.devices),
            draining=row.draining_at is not None,
        )
        for row in rows
        if row.id is not None
    ]


def by_id(session: Session, worker_ids: Collection[str]) -> dict[str, WorkerRow]:
    """Return the workers with these ids, whatever has become of them."""
    rows = session.scalars(select(WorkerRow).where(WorkerRow.id.in_(worker_ids)))
    return {row.id: row for row in rows}


def silent(session: Session, host: str, for_seconds: float) -> list[WorkerRow]:
    """Return the workers of `host` that did not say that they stop, and were not heard of for so long."""
    since = database_time(session) - timedelta(seconds=for_seconds)
    return list(
        session.scalars(
            select(WorkerRow).where(
                WorkerRow.host == host, WorkerRow.stopped_at.is_(None), WorkerRow.heartbeat_at < since
            )
        )
    )


def kinds_of_live_workers(session: Session, within_seconds: float = ALIVE_SECONDS) -> dict[str, LiveKind]:
    """Return every kind of model that a live worker has, with its JSON schema (the newest worker's)."""
    kinds: dict[str, LiveKind] = {}
    for worker in alive(session, within_seconds):
        for kind, schema in worker.kinds.items():
            before = kinds[kind].workers if kind in kinds else 0
            kinds[kind] = LiveKind(json_schema=schema, workers=before + 1)
    return kinds


@cache
def _muster(dialect: str) -> Select[Any]:
    # Kept, because it is asked with every job that is shown: building it takes longer than answering it.
    clock = select(database_clock(dialect).label("now")).subquery("clock")
    worker = WorkerRow.__table__.c
    return (
        select(
            clock.c.now,
            worker.id,
            worker.queues,
            _names_in(dialect, worker.kinds).label("kinds"),
            worker.devices,
            worker.draining_at,
        )
        .select_from(clock)
        .outerjoin(WorkerRow.__table__, _lives(dialect, ALIVE_SECONDS))
        .order_by(worker.started_at, worker.id)
    )


def _lives(dialect: str, within_seconds: float) -> ColumnElement[bool]:
    worker = WorkerRow.__table__.c
    since = database_clock(dialect, ago_seconds=within_seconds)
    return and_(worker.stopped_at.is_(None), worker.heartbeat_at >= since)


def _names_in(dialect: str, document: ColumnElement[Any]) -> ColumnElement[Any]:
    # The schemas of all kinds of all workers are too much to read each time.
    if dialect == "postgresql":
        path = cast("$.keyvalue().key", postgresql.JSONPATH)
        return func.jsonb_path_query_array(document, path, type_=JSON)
    member = func.json_each(document).table_valued("key")
    return select(func.json_group_array(member.c.key, type_=JSON)).scalar_subquery()
