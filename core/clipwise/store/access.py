"""Browsers: one-time sign-in tokens and the sessions that they start, both kept as hashes."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from clipwise.errors import Unauthenticated
from clipwise.store.keys import digest
from clipwise.store.tables import ApiKeyRow, BrowserSessionRow, SignInTokenRow

LINK_LIFETIME = timedelta(minutes=10)
SESSION_LIFETIME = timedelta(days=30)


@dataclass(frozen=True, kw_only=True)
class NewSession:
    """A session that was just started; `cookie` is known to the browser alone."""

    cookie: str
    csrf_token: str
    expires_at: datetime
    key: ApiKeyRow


def new_token(session: Session, key_id: str) -> tuple[str, datetime]:
    """Return a token that signs one browser in as this key, once, and when it expires."""
    token, expires_at = secrets.token_urlsafe(32), datetime.now(UTC) + LINK_LIFETIME
    session.add(SignInTokenRow(token_hash=digest(token), api_key_id=key_id, expires_at=expires_at))
    return token, expires_at


def spend_token(session: Session, token: str) -> ApiKeyRow:
    """Use a sign-in token up and return its key.

    Raises:
        Unauthenticated: if it was used before, has expired or never was one.
    """
    spent = session.execute(
        delete(SignInTokenRow)
        .where(SignInTokenRow.token_hash == digest(token))
        .returning(SignInTokenRow.api_key_id, SignInTokenRow.expires_at)
    ).one_or_none()
    key = session.get(ApiKeyRow, spent.api_key_id) if spent else None
    if spent is None or spent.expires_at <= datetime.now(UTC) or key is None or key.revoked_at is not None:
        raise Unauthenticated("this sign-in link was used or has expired; make a new one: clipwise open")
    return key


def start_session(session: Session, key: ApiKeyRow) -> NewSession:
    """Start a browser's session as this key."""
    now = datetime.now(UTC)
    started = NewSession(
        cookie=secrets.token_urlsafe(32),
        csrf_token=secrets.token_urlsafe(32),
        expires_at=now + SESSION_LIFETIME,
        key=key,
    )
    session.add(
        BrowserSessionRow(
            cookie_hash=digest(started.cookie),
            api_key_id=key.id,
            csrf_token=started.csrf_token,
            created_at=now,
            expires_at=started.expires_at,
        )
    )
    return started


def find_session(session: Session, cookie: str) -> tuple[BrowserSessionRow, ApiKeyRow] | None:
    """Return the session of a cookie with its key, while both are valid."""
    query = (
        select(BrowserSessionRow, ApiKeyRow)
        .join(ApiKeyRow, ApiKeyRow.id == BrowserSessionRow.api_key_id)
        .where(
            BrowserSessionRow.cookie_hash == digest(cookie),
            BrowserSessionRow.expires_at > datetime.now(UTC),
            ApiKeyRow.revoked_at.is_(None),
        )
    )
    found = session.execute(query).one_or_none()
    return (found[0], found[1]) if found else None


def end_session(session: Session, cookie_hash: str) -> None:
    """Sign a browser out."""
    session.execute(delete(BrowserSessionRow).where(BrowserSessionRow.cookie_hash == cookie_hash))


def remove_expired(session: Session) -> None:
    """Delete tokens and sessions that have expired."""
    now = datetime.now(UTC)
    session.execute(delete(SignInTokenRow).where(SignInTokenRow.expires_at <= now))
    session.execute(delete(BrowserSessionRow).where(BrowserSessionRow.expires_at <= now))
