"""Idempotency keys: for a day the same key and body give the first answer; with another body, an error."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from clipwise.errors import IdempotencyMismatch
from clipwise.store.tables import IdempotencyRow

KEPT = timedelta(hours=24)


def body_hash(body: Any) -> str:
    """Return what is stored of a request's body."""
    plain = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def find(session: Session, api_key_id: str, key: str, route: str, body: str) -> str | None:
    """Return the id of what this key created before, or null if it is new.

    Raises:
        IdempotencyMismatch: if it was used with another body or route.
    """
    query = select(IdempotencyRow).where(
        IdempotencyRow.api_key_id == api_key_id, IdempotencyRow.key == key, ~_expired()
    )
    row = session.scalars(query).one_or_none()
    if row is None:
        return None
    if row.body_hash != body or row.route != route:
        raise IdempotencyMismatch(
            f"the Idempotency-Key '{key}' was used before, with another request; use a new key"
        )
    return row.resource_id


def claim(session: Session, api_key_id: str, key: str, route: str, body: str, resource_id: str) -> str | None:
    """Take the key for `resource_id`, or return the id of what was created with it before.

    A request with the same key that has not committed yet is waited for.

    Raises:
        IdempotencyMismatch: if it was used with another body or route.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    request = {
        "route": route,
        "body_hash": body,
        "resource_id": resource_id,
        "created_at": datetime.now(UTC),
    }
    taken = session.execute(
        insert(IdempotencyRow)
        .values(api_key_id=api_key_id, key=key, **request)
        .on_conflict_do_update(index_elements=["api_key_id", "key"], set_=request, where=_expired())
        .returning(IdempotencyRow.key)
    ).one_or_none()
    return None if taken is not None else find(session, api_key_id, key, route, body)


def remove_expired(session: Session) -> None:
    """Forget keys that nobody repeats any more."""
    session.execute(delete(IdempotencyRow).where(_expired()))


def _expired() -> ColumnElement[bool]:
    return IdempotencyRow.created_at < datetime.now(UTC) - KEPT
