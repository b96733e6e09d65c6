"""GPUs as rows: one is held by the attempt with its token, for as long as that owns its job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from clipwise.jobs.states import OWNED
from clipwise.store.sessions import database_time
from clipwise.store.tables import DeviceRow, JobRow


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU that a worker sees, by the UUID that its driver gives it."""

    uuid: str
    name: str
    memory_bytes: int | None


def announce(session: Session, host: str, devices: Sequence[Device]) -> None:
    """Write the devices that a worker of `host` sees; who holds them stays as it is."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    now = database_time(session)
    # In one order, so that workers of one host that start together do not wait for each other in a ring.
    for device in sorted(devices, key=lambda device: device.uuid):
        facts = {"name": device.name, "memory_bytes": device.memory_bytes, "seen_at": now}
        row = insert(DeviceRow).values(host=host, uuid=device.uuid, **facts)
        session.execute(row.on_conflict_do_update(index_elements=["host", "uuid"], set_=facts))


def count_free(session: Session, host: str, uuids: Sequence[str]) -> int:
    """Return how many of these devices nobody holds."""
    return int(session.scalar(select(func.count()).select_from(DeviceRow).where(_free(host, uuids))) or 0)


def hold(session: Session, host: str, uuids: Sequence[str], count: int, job_id: str, token: int) -> list[str]:
    """Take `count` free devices for an attempt, in the transaction of its claim; return their UUIDs."""
    found = session.scalars(
        select(DeviceRow.uuid)
        .where(_free(host, uuids))
        .order_by(DeviceRow.uuid)
        .limit(count)
        .with_for_update(skip_locked=True)
    ).all()
    taken = list(found)
    if len(taken) == count and taken:
        session.execute(
            update(DeviceRow)
            .where(DeviceRow.host == host, DeviceRow.uuid.in_(taken))
            .values(job_id=job_id, token=token)
            .execution_options(synchronize_session=False)
        )
    return taken


def holders(session: Session, hosts: Sequence[str]) -> Mapping[tuple[str, str], str]:
    """Return the job that holds each device of these hosts, by host and UUID; free ones are missing."""
    rows = session.execute(
        select(DeviceRow.host, DeviceRow.uuid, DeviceRow.job_id).where(DeviceRow.host.in_(hosts), _held())
    )
    return {(host, uuid): job_id for host, uuid, job_id in rows if job_id is not None}


def _held() -> ColumnElement[bool]:
    return exists().where(
        JobRow.id == DeviceRow.job_id, JobRow.token == DeviceRow.token, JobRow.status.in_(OWNED)
    )


def _free(host: str, uuids: Sequence[str]) -> ColumnElement[bool]:
    return and_(
        DeviceRow.host == host, DeviceRow.uuid.in_(list(uuids)), or_(DeviceRow.job_id.is_(None), ~_held())
    )
