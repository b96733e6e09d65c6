"""Data sets and the populations that they are about."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

from sqlalchemy import String, bindparam, func, or_, select, true
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from clipwise.errors import Conflict, NotFound
from clipwise.ids import new_id
from clipwise.jobs.states import TERMINAL
from clipwise.store import cursors, orphans
from clipwise.store.tables import DatasetRow, JobRow, PopulationRow

ORDER = "-created_at"
DatasetRecord = tuple[DatasetRow, PopulationRow]
Lock = Literal["share", "change"]


def population_named(session: Session, name: str, visibility: str) -> PopulationRow:
    """Return the population of this name, made now if it is new.

    Raises:
        Conflict: if there is one with the other visibility.
    """
    row = session.scalars(select(PopulationRow).where(PopulationRow.name == name)).one_or_none()
    if row is None:
        row = PopulationRow(id=new_id("pop"), name=name, visibility=visibility, created_at=datetime.now(UTC))
        try:
            with session.begin_nested():
                session.add(row)
        except IntegrityError:  # made beside us
            row = session.scalars(select(PopulationRow).where(PopulationRow.name == name)).one()
    if row.visibility != visibility:
        raise Conflict(
            f"the population '{name}' is {row.visibility}; give visibility={row.visibility}, or another "
            "population's name"
        )
    return row


def populations(session: Session, *, exact: bool) -> Sequence[PopulationRow]:
    """Return every population that has a data set which may be shown, by name."""
    used = select(DatasetRow.id).where(
        DatasetRow.population_id == PopulationRow.id, _live(), _shown(exact=exact)
    )
    return session.scalars(select(PopulationRow).where(used.exists()).order_by(PopulationRow.name)).all()


def add(session: Session, row: DatasetRow) -> None:
    """Write a data set.

    Raises:
        Conflict: if its name is taken.
    """
    require_free(session, row.name)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise _taken(row.name) from error


def require_free(session: Session, name: str) -> None:
    """Check that no data set has this name.

    Raises:
        Conflict: if one has.
    """
    if session.scalar(select(DatasetRow.id).where(DatasetRow.name == name, _live())):
        raise _taken(name)


def get(session: Session, id_or_name: str, *, exact: bool = True, lock: Lock | None = None) -> DatasetRecord:
    """Return a data set, by its id, else by its name.

    Args:
        session: an open session.
        id_or_name: its id or its name.
        exact: whether what was read off private rows may be shown.
        lock: until the transaction ends, keep it as it is (`share`), or change it alone (`change`).

    Raises:
        NotFound: if there is none.
    """
    found = session.execute(_get(exact, lock), {"wanted": id_or_name}).one_or_none()
    if found is None:
        raise NotFound(f"there is no data set '{id_or_name}'")
    return found[0], found[1]


def of_job(session: Session, dataset_id: str) -> DatasetRow:
    """Return the data set of a job, even a deleted one."""
    return session.get_one(DatasetRow, dataset_id)


def page(
    session: Session, *, exact: bool, limit: int, after: str | None
) -> tuple[list[DatasetRecord], str | None]:
    """Return one page of data sets, the newest first, and the cursor of the next one if there is more."""
    columns = DatasetRow.__table__.c
    position = cursors.decode_time(ORDER, after) if after is not None else None
    query = cursors.seek(
        _with_population().where(_shown(exact=exact)),
        columns.created_at,
        columns.id,
        descending=True,
        after=position,
    )
    rows = session.execute(query.limit(limit + 1)).all()
    records = [(row[0], row[1]) for row in rows[:limit]]
    if len(rows) <= limit:
        return records, None
    last = records[-1][0]
    return records, cursors.encode(ORDER, last.created_at, last.id)


def confirm(session: Session, row: DatasetRow, changes: Mapping[str, Any]) -> None:
    """Make a data set ready with what a confirmed schema changes of it. `row` must be locked."""
    if row.rows_key and changes.get("rows_key", row.rows_key) != row.rows_key:
        orphans.add(session, [row.rows_key])
    for name, value in changes.items():
        setattr(row, name, value)
    row.status = "ready"
    row.version += 1


def require_unused(session: Session, row: DatasetRow, verb: str) -> None:
    """Check that no open job needs a data set.

    Raises:
        Conflict: if one does.
    """
    query = select(func.count(), func.min(JobRow.id)).where(
        JobRow.dataset_id == row.id, JobRow.status.not_in(TERMINAL)
    )
    number, example = session.execute(query).one()
    if number:
        raise Conflict(
            f"the data set '{row.name}' cannot be {verb} now: {number} open job(s) use it, such as "
            f"{example}; wait for them, or cancel them"
        )


def remove(session: Session, row: DatasetRow) -> None:
    """Delete a data set: its row stays for its jobs, its files go after the commit. `row` must be locked."""
    require_unused(session, row, "deleted")
    orphans.add(session, [key for key in (row.source_key, row.rows_key) if key is not None])
    row.deleted_at = datetime.now(UTC)
    row.source_key = row.rows_key = None
    row.version += 1


@cache
def _get(exact: bool, lock: Lock | None) -> Any:
    # Kept, because it is asked with every submission: building it takes longer than answering it.
    wanted = bindparam("wanted", type_=String())
    query = _with_population().where(
        or_(DatasetRow.id == wanted, DatasetRow.name == wanted), _shown(exact=exact)
    )
    query = query.order_by((DatasetRow.id == wanted).desc()).limit(1)
    return query if lock is None else query.with_for_update(of=DatasetRow, read=lock == "share")


def _taken(name: str) -> Conflict:
    return Conflict(f"there is a data set named '{name}' already; give another name, or delete it first")


def _with_population() -> Any:
    joined = select(DatasetRow, PopulationRow)
    return joined.join(PopulationRow, PopulationRow.id == DatasetRow.population_id).where(_live())


def _live() -> Any:
    return DatasetRow.deleted_at.is_(None)


def _shown(*, exact: bool) -> Any:
    # A proposed schema was read off the rows, so that of private rows is for their owner's eyes.
    return true() if exact else or_(DatasetRow.status == "ready", PopulationRow.visibility == "public")
