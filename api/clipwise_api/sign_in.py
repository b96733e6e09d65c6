"""Keys, sign-in links and browser sessions: from the wire to the store."""

from datetime import UTC, datetime

from fastapi import Response
from sqlalchemy.orm import Session as DatabaseSession

from clipwise.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from clipwise.store import access, idempotency, keys
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import ApiKeyRow
from clipwise.wire.fleet import ApiKey, NewApiKey, Session, SignIn, SignInLink
from clipwise.wire.jobs import Deleted
from clipwise_api.gate import cookie_name
from clipwise_api.principals import Principal
from clipwise_api.services import ServiceSet

CREATE = "POST /v1/api_keys"


def create_key(
    services: ServiceSet, who: Principal, new: NewApiKey, idempotency_key: str | None
) -> tuple[ApiKey, bool]:
    """Make a key; a replay gives it without its secret, which is stored nowhere."""
    body = idempotency.body_hash(new.model_dump())
    with transaction(services.engine) as session:
        secret = keys.new_secret()
        row = keys.add_key(session, new.name, new.role, secret)
        if idempotency_key is not None:
            first = idempotency.claim(session, who.key_id, idempotency_key, CREATE, body, row.id)
            if first is not None:
                session.delete(row)
                return _key_view(_replayed_key(session, first)), True
    return _key_view(row, secret), False


def keys_of(services: ServiceSet) -> list[ApiKey]:
    """Return the keys that work."""
    with reading(services.engine) as session:
        return [_key_view(row) for row in keys.list_keys(session)]


def revoke_key(services: ServiceSet, key_id: str) -> Deleted:
    """Revoke a key."""
    with transaction(services.engine) as session:
        keys.revoke_key(session, key_id)
    return Deleted(id=key_id, object="api_key")


def link(services: ServiceSet, who: Principal) -> SignInLink:
    """Make a link whose one-time token is in the fragment, which browsers never send."""
    with transaction(services.engine) as session:
        token, expires_at = access.new_token(session, who.key_id)
    return SignInLink(url=f"{base_url(services)}/#sign-in={token}", expires_at=expires_at)


def start_session(services: ServiceSet, given: SignIn, response: Response) -> Session:
    """Sign a browser in."""
    with transaction(services.engine) as session:
        if given.token is not None:
            key = access.spend_token(session, given.token)
        else:
            found = keys.find_key(session, given.api_key or "")
            if found is None:
                raise Unauthenticated("this key is not known here, or was revoked")
            key = found
        started = access.start_session(session, key)
    lasting = int((started.expires_at - datetime.now(UTC)).total_seconds())
    response.set_cookie(
        cookie_name(services.settings),
        started.cookie,
        max_age=lasting,
        httponly=True,
        samesite="strict",
        secure=base_url(services).startswith("https:"),
    )
    return Session(name=key.name, role=key.role, csrf_token=started.csrf_token)


def session_of(who: Principal) -> Session:
    """Return who asks."""
    return Session(name=who.name, role=who.role, csrf_token=who.csrf_token or "")


def end_session(services: ServiceSet, who: Principal, response: Response) -> Deleted:
    """Sign the browser out.

    Raises:
        InvalidInput: if a key asks, which has no session.
    """
    if who.session_hash is None:
        raise InvalidInput("a key has no session to end; revoke it with DELETE /v1/api_keys/{id}")
    with transaction(services.engine) as session:
        access.end_session(session, who.session_hash)
    response.delete_cookie(cookie_name(services.settings), httponly=True, samesite="strict")
    return Deleted(id="session", object="session")


def base_url(services: ServiceSet) -> str:
    """Return the address at which people reach the dashboard."""
    settings = services.settings
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::", ""} else settings.host  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _replayed_key(session: DatabaseSession, key_id: str) -> ApiKeyRow:
    try:
        return keys.get_key(session, key_id)
    except NotFound:
        raise Conflict(
            "the key that this Idempotency-Key made was revoked since; use a new Idempotency-Key"
        ) from None


def _key_view(row: ApiKeyRow, secret: str | None = None) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        role=row.role,
        prefix=row.prefix,
        secret=secret,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
    )
