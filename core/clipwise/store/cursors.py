"""Cursors of lists: opaque, and stable while rows are added or removed (they name the last row seen)."""

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, literal, tuple_

from clipwise.errors import InvalidInput, Problem

Position = tuple[str, str]
"""The sort value and the id of the last row of a page."""
UNTIL = "~"
"""What stands between a cursor and the end of its list; none has it in itself."""


def encode(order: str, value: datetime | str, row_id: str) -> str:
    """Return the cursor that continues after this row, under this order."""
    plain = value.isoformat() if isinstance(value, datetime) else value
    document = json.dumps([order, plain, row_id], ensure_ascii=False)
    return base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")


def decode(order: str, cursor: str) -> Position:
    """Read a cursor that was made under the same order.

    Raises:
        InvalidInput: if it is not one of ours.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        made_for, value, row_id = (str(part) for part in found)
    except (ValueError, TypeError, UnicodeError, binascii.Error, RecursionError):
        raise _invalid("it is not a cursor; pass 'next_cursor' of the page before, as it came") from None
    if made_for != order:
        raise _invalid(f"it belongs to the order '{made_for}', not '{order}'; start the list again")
    if not all(_is_storable(part) for part in (value, row_id)):
        raise _invalid("it is not a cursor; pass 'next_cursor' of the page before, as it came")
    return value, row_id


def decode_time(order: str, cursor: str) -> tuple[datetime, str]:
    """Read a cursor of a list in the order of creation.

    Raises:
        InvalidInput: if it is not one of ours.
    """
    value, row_id = decode(order, cursor)
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC), row_id
    except (ValueError, OverflowError):  # at the ends of the calendar a time can have no UTC
        pass
    raise _invalid("it is not a cursor; pass 'next_cursor' of the page before, as it came")


def encode_until(until: datetime, cursor: str) -> str:
    """Return a cursor of a list in the order of creation that ends at a time."""
    return f"{cursor}{UNTIL}{until.isoformat()}"


def decode_until(cursor: str) -> tuple[datetime, str]:
    """Read what `encode_until` wrote: the time, and the cursor of the list.

    Raises:
        InvalidInput: if it is not one of ours.
    """
    inner, found, value = cursor.partition(UNTIL)
    try:
        until = datetime.fromisoformat(value)
        if found and until.tzinfo is not None:
            return until.astimezone(UTC), inner
    except (ValueError, OverflowError):
        pass
    raise _invalid("it is not a cursor; pass 'next_cursor' of the answer before, as it came")


def seek(
    query: Select[Any],
    column: ColumnElement[Any],
    identity: ColumnElement[str],
    *,
    descending: bool,
    after: tuple[object, str] | None,
) -> Select[Any]:
    """Order `query` by a column, then by id, and start behind `after`."""
    if after is not None:
        value, row_id = after
        # As one comparison of pairs, which an index answers; `or` would go through all that lies before.
        place = tuple_(column, identity)
        reached = tuple_(literal(value, column.type), literal(row_id, identity.type))
        query = query.where(place < reached if descending else place > reached)
    if descending:
        return query.order_by(column.desc(), identity.desc())
    return query.order_by(column.asc(), identity.asc())


def _is_storable(text: str) -> bool:
    # A name can have any character but these: NUL, and halves of surrogate pairs.
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _invalid(detail: str) -> InvalidInput:
    message = f"'after' cannot be used: {detail}"
    return InvalidInput(message, (Problem(pointer="/query/after", detail=detail, code="invalid_cursor"),))
