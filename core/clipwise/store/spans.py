"""What the points of a metric come to, span by span: a chart of a million points reads some thousand rows.

A span of width `w` and number `n` holds the points of the steps `n * w` to `n * w + w - 1` of one metric
and one attempt. It is written in the transaction that writes its points.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Double,
    Integer,
    String,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from clipwise.store.tables import Table

WIDTHS = (64, 4096)
"""Steps of a narrow span and of a wide one; the second is a multiple of the first."""
METRICS = Table.metadata.tables["metrics"]
SPANS = Table.metadata.tables["metric_spans"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of one metric; `released`: a privacy guarantee covers it."""

    name: str
    step: int
    value: float | None
    released: bool


Place = tuple[str, bool, int]
"""Whose a span is: the metric's name, whether it is released, and the span's number."""
Values = dict[Place, list[tuple[float, int]]]
Nulls = dict[Place, list[int]]


def add(session: Session, job_id: str, attempt: int, points: Sequence[Point]) -> None:
    """Add points to their spans; they must be new."""
    _merge(session, job_id, attempt, _summed(points))


def renew(session: Session, job_id: str, attempt: int, points: Sequence[Point]) -> None:
    """Draw up the spans of these points anew, from all that is written in them."""
    widest = WIDTHS[-1]
    for name in {point.name for point in points}:
        numbers = [point.step // widest for point in points if point.name == name]
        start, end = min(numbers) * widest, (max(numbers) + 1) * widest - 1
        of_metric = (SPANS.c.job_id == job_id, SPANS.c.attempt == attempt, SPANS.c.name == name)
        touched = or_(
            *(and_(SPANS.c.width == w, SPANS.c.number.between(start // w, end // w)) for w in WIDTHS)
        )
        session.execute(delete(SPANS).where(*of_metric, touched))
        written = select(METRICS.c.step, METRICS.c.value, METRICS.c.released).where(
            METRICS.c.job_id == job_id,
            METRICS.c.attempt == attempt,
            METRICS.c.name == name,
            METRICS.c.step.between(start, end),
        )
        found = [
            Point(name=name, step=step, value=value, released=released)
            for step, value, released in session.execute(written)
        ]
        _merge(session, job_id, attempt, _summed(found))


def _summed(points: Sequence[Point]) -> list[dict[str, Any]]:
    narrow, wide = WIDTHS
    values: Values = defaultdict(list)
    nulls: Nulls = defaultdict(list)
    for point in points:
        place = (point.name, point.released, point.step // narrow)
        if point.value is None:
            nulls[place].append(point.step)
        else:
            values[place].append((point.value, point.step))
    spans = _rows(narrow, values, nulls)
    above: Values = defaultdict(list)
    for (name, released, number), found in values.items():
        above[name, released, number * narrow // wide] += (min(found), max(found))
    nulls_above: Nulls = defaultdict(list)
    for (name, released, number), steps in nulls.items():
        nulls_above[name, released, number * narrow // wide] += steps
    return spans + _rows(wide, above, nulls_above)


def _rows(width: int, values: Values, nulls: Nulls) -> list[dict[str, Any]]:
    spans = []
    for place in values.keys() | nulls.keys():
        name, released, number = place
        found, empty = values.get(place), nulls.get(place)
        lowest, highest = (min(found), max(found)) if found else ((None, None), (None, None))
        spans.append(
            {
                "name": name,
                "width": width,
                "number": number,
                "released": released,
                "lowest": lowest[0],
                "lowest_step": lowest[1],
                "highest": highest[0],
                "highest_step": highest[1],
                "first_null": min(empty) if empty else None,
                "last_null": max(empty) if empty else None,
            }
        )
    return spans


def _merge(session: Session, job_id: str, attempt: int, spans: Sequence[Mapping[str, Any]]) -> None:
    if not spans:
        return
    owner: dict[str, Any] = {"job_id": job_id, "attempt": attempt}
    dialect = session.get_bind().dialect.name
    if dialect == "postgresql":
        arrays = {f"{column}s": [span[column] for span in spans] for column in COLUMNS}
        session.execute(_merge_query(dialect), {**owner, **arrays})
    else:
        session.execute(_merge_query(dialect), [{**owner, **span} for span in spans])


COLUMNS: Mapping[str, TypeEngine[Any]] = {
    "name": String(),
    "width": Integer(),
    "number": BigInteger(),
    "released": Boolean(),
    "lowest": Double(),
    "lowest_step": BigInteger(),
    "highest": Double(),
    "highest_step": BigInteger(),
    "first_null": BigInteger(),
    "last_null": BigInteger(),
}


@cache
def _merge_query(dialect: str) -> Any:
    if dialect == "postgresql":
        # One array per column: the statement has the same text for any number of spans.
        arrays = [bindparam(f"{name}s", type_=ARRAY(kind)) for name, kind in COLUMNS.items()]
        rows = func.unnest(*arrays).table_valued(*COLUMNS).render_derived()
        owner = bindparam("job_id", type_=String()), bindparam("attempt", type_=Integer())
        source = select(*owner, *(rows.c[name] for name in COLUMNS))
        insert: Any = postgresql.insert(SPANS).from_select(["job_id", "attempt", *COLUMNS], source)
    else:
        insert = sqlite.insert(SPANS)
    new, old = insert.excluded, SPANS.c
    lower = and_(
        new.lowest.is_not(None),
        or_(
            old.lowest.is_(None),
            new.lowest < old.lowest,
            and_(new.lowest == old.lowest, new.lowest_step < old.lowest_step),
        ),
    )
    higher = and_(
        new.highest.is_not(None),
        or_(
            old.highest.is_(None),
            new.highest > old.highest,
            and_(new.highest == old.highest, new.highest_step > old.highest_step),
        ),
    )
    earlier = or_(old.first_null.is_(None), new.first_null < old.first_null)
    later = or_(old.last_null.is_(None), new.last_null > old.last_null)
    return insert.on_conflict_do_update(
        index_elements=list(SPANS.primary_key),
        set_={
            "lowest": case((lower, new.lowest), else_=old.lowest),
            "lowest_step": case((lower, new.lowest_step), else_=old.lowest_step),
            "highest": case((higher, new.highest), else_=old.highest),
            "highest_step": case((higher, new.highest_step), else_=old.highest_step),
            "first_null": case((earlier, new.first_null), else_=old.first_null),
            "last_null": case((later, new.last_null), else_=old.last_null),
        },
    )
