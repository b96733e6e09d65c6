"""API keys: kept as SHA-256 of secrets that have 256 bits of their own, so no salt and no slow hash."""

import hashlib
import logging
import os
import secrets
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, bindparam, delete, func, select, text, update
from sqlalchemy.orm import Session

from clipwise.errors import ConfigurationError, Conflict, NotFound
from clipwise.ids import new_id
from clipwise.store.sessions import transaction
from clipwise.store.tables import ApiKeyRow, BrowserSessionRow, SignInTokenRow

log = logging.getLogger(__name__)

FIRST_KEY_LOCK = 0x636C6B31
SHOWN_CHARACTERS = 8
LONG_ENOUGH_TO_SHOW = 24
# Kept, because it is asked with every request: building it takes longer than answering it.
_WORKING = select(ApiKeyRow).where(
    ApiKeyRow.secret_hash == bindparam("secret_hash"), ApiKeyRow.revoked_at.is_(None)
)


def digest(secret: str) -> str:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def new_secret() -> str:
    """Return a new key."""
    return f"cw_{secrets.token_urlsafe(32)}"


def add_key(session: Session, name: str, role: str, secret: str) -> ApiKeyRow:
    """Store a key."""
    row = ApiKeyRow(
        id=new_id("key"),
        name=name,
        role=role,
        prefix=secret[:SHOWN_CHARACTERS] if len(secret) >= LONG_ENOUGH_TO_SHOW else "",
        secret_hash=digest(secret),
        created_at=datetime.now(UTC),
        last_used_at=None,
        revoked_at=None,
    )
    session.add(row)
    session.flush()
    return row


def find_key(session: Session, secret: str) -> ApiKeyRow | None:
    """Return the key with this secret, if there is one that works."""
    return session.scalars(_WORKING, {"secret_hash": digest(secret)}).one_or_none()


def get_key(session: Session, key_id: str) -> ApiKeyRow:
    """Return a key that works.

    Raises:
        NotFound: if there is none with this id.
    """
    row = session.get(ApiKeyRow, key_id)
    if row is None or row.revoked_at is not None:
        raise NotFound(f"there is no key '{key_id}'")
    return row


def list_keys(session: Session) -> Sequence[ApiKeyRow]:
    """Return the keys that work, the newest first."""
    query = select(ApiKeyRow).where(ApiKeyRow.revoked_at.is_(None))
    return session.scalars(query.order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.id.desc())).all()


def revoke_key(session: Session, key_id: str) -> None:
    """Revoke a key and sign its browsers out.

    Raises:
        NotFound: if there is no such key.
        Conflict: if it is the last one of an owner.
    """
    _lock(session)
    row = get_key(session, key_id)
    others = select(func.count()).where(
        ApiKeyRow.role == "owner", ApiKeyRow.revoked_at.is_(None), ApiKeyRow.id != key_id
    )
    if row.role == "owner" and session.execute(others).scalar_one() == 0:
        raise Conflict(f"'{key_id}' is the last key of an owner; make another one first")
    row.revoked_at = datetime.now(UTC)
    session.execute(delete(BrowserSessionRow).where(BrowserSessionRow.api_key_id == key_id))
    session.execute(delete(SignInTokenRow).where(SignInTokenRow.api_key_id == key_id))


def working(session: Session, key_ids: Collection[str]) -> frozenset[str]:
    """Return those of these keys that are not revoked."""
    query = select(ApiKeyRow.id).where(ApiKeyRow.id.in_(key_ids), ApiKeyRow.revoked_at.is_(None))
    return frozenset(session.scalars(query))


def mark_used(session: Session, key_ids: Collection[str]) -> None:
    """Note that these keys were used just now."""
    session.execute(update(ApiKeyRow).where(ApiKeyRow.id.in_(key_ids)).values(last_used_at=datetime.now(UTC)))


def ensure_first_key(engine: Engine, given: str | None, key_file: Path) -> None:
    """Make sure that somebody can get in: with the key from the settings, else with a generated one.

    A generated key is written to `key_file`, readable by its owner only. Several processes may do this
    at once: the database lets one of them through.

    Raises:
        ConfigurationError: if the file cannot be written.
    """
    with transaction(engine) as session:
        _lock(session)
        if given is not None:
            known = session.scalars(select(ApiKeyRow).where(ApiKeyRow.secret_hash == digest(given)))
            if known.one_or_none() is None:
                add_key(session, "CLIPWISE_API_KEY", "owner", given)
                if len(given) < LONG_ENOUGH_TO_SHOW:
                    log.warning("CLIPWISE_API_KEY is short; use %d random characters", LONG_ENOUGH_TO_SHOW)
        elif session.execute(select(func.count()).select_from(ApiKeyRow)).scalar_one() == 0:
            add_key(session, "first key", "owner", _secret_in(key_file))


def _secret_in(key_file: Path) -> str:
    """Write a new secret into a file of its own, or take the one that an interrupted start left there."""
    try:
        key_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret = new_secret()
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{secret}\n")
    except FileExistsError:
        secret = key_file.read_text().strip()
        if not secret.startswith("cw_"):
            raise ConfigurationError(
                f"{key_file} holds no key of Clipwise; remove it and start again"
            ) from None
    except OSError as error:
        raise ConfigurationError(
            f"the first key cannot be written to {key_file} ({error.strerror}); set CLIPWISE_DATA_DIR to a "
            "folder that can be written, or CLIPWISE_API_KEY"
        ) from error
    return secret


def _lock(session: Session) -> None:
    # On SQLite the transaction itself (BEGIN IMMEDIATE) is the lock.
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": FIRST_KEY_LOCK})
