"""Who may come in: Host and Origin, the key or the session's cookie, and the CSRF token of a change."""

import secrets
from urllib.parse import urlsplit

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from clipwise.errors import Forbidden, InvalidInput, Unauthenticated
from clipwise.settings import Settings
from clipwise.store import access, keys
from clipwise.store.sessions import reading
from clipwise_api.errors import problem, request_id_of, response_of
from clipwise_api.principals import Principal
from clipwise_api.services import ServiceSet

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  # not bound to, only recognised
PROBES = frozenset({"/healthz", "/readyz"})
METRICS = "/metrics"
"""Asked by an address inside of a network, as probes are, and so under any Host; but with a key."""
READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Gate:
    """ASGI middleware: refuses a request, or gives it its `Principal`."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        public = urlsplit(settings.public_url or "")
        self._public_origin = _authority(public.netloc, public.scheme)
        names = {settings.host.lower().strip("[]"), (public.hostname or "").lower()}
        self._hosts = LOOPBACK | (names - ANY_ADDRESS)
        self._cookie = cookie_name(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refusal = None
        if scope["path"] not in PROBES:
            host = request.headers.get("host", "")
            if scope["path"] != METRICS and _hostname(host) not in self._hosts:
                detail = (
                    "this Host is not served here; set CLIPWISE_PUBLIC_URL to the address that people use"
                )
                refusal = problem(request_id_of(request), 421, "misdirected_request", detail)
            else:
                try:
                    self._require_same_origin(request, host)
                    _require_storable(scope)
                    if needs_key(scope["method"], scope["path"]):
                        scope["state"]["principal"] = await self._principal(request)
                except (Forbidden, InvalidInput, Unauthenticated) as error:
                    refusal = response_of(error, request_id_of(request))
        await (refusal or self._app)(scope, receive, send)

    def _require_same_origin(self, request: Request, host: str) -> None:
        origin = request.headers.get("origin")
        if origin is None:
            return
        scheme, _, netloc = origin.partition("://")
        given = _authority(netloc, scheme)
        if not given or given not in {_authority(host, scheme), self._public_origin}:
            raise Forbidden("requests from pages of other sites are refused; open the dashboard here")

    async def _principal(self, request: Request) -> Principal:
        services: ServiceSet = request.app.state.services
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme:
            if scheme.lower() != "bearer" or not secret.strip():
                raise Unauthenticated("send the key as: Authorization: Bearer cw_...")
            return await run_in_threadpool(_of_key, services, secret.strip())
        cookie = request.cookies.get(self._cookie)
        if not cookie:
            raise Unauthenticated("no key was sent; send it as: Authorization: Bearer cw_...")
        principal = await run_in_threadpool(_of_cookie, services, cookie)
        if request.method not in READING:
            token = request.headers.get("x-csrf-token", "")
            if not secrets.compare_digest(token.encode(), (principal.csrf_token or "").encode()):
                raise Forbidden("a change from a browser needs the session's csrf_token as X-CSRF-Token")
        return principal


def needs_key(method: str, path: str) -> bool:
    """Return whether a request needs a key: all but the dashboard's files, probes and signing in."""
    if path == "/v1/session" and method == "POST":
        return False
    return path in {"/openapi.json", METRICS, "/v1"} or path.startswith("/v1/")


def cookie_name(settings: Settings) -> str:
    """Return the session cookie's name; cookies do not tell ports apart, so that it does."""
    return f"clipwise_session_{settings.port}"


def _of_key(services: ServiceSet, secret: str) -> Principal:
    with reading(services.engine) as session:
        key = keys.find_key(session, secret)
    if key is None:
        raise Unauthenticated("this key is not known here, or was revoked")
    services.used_keys.add(key.id)
    return Principal(key_id=key.id, name=key.name, role=key.role)  # type: ignore[arg-type]


def _of_cookie(services: ServiceSet, cookie: str) -> Principal:
    with reading(services.engine) as session:
        found = access.find_session(session, cookie)
    if found is None:
        raise Unauthenticated("this browser's session has ended; sign in again")
    signed_in, key = found
    services.used_keys.add(key.id)
    return Principal(
        key_id=key.id,
        name=key.name,
        role=key.role,  # type: ignore[arg-type]  # the column holds nothing else
        session_hash=signed_in.cookie_hash,
        csrf_token=signed_in.csrf_token,
    )


def _require_storable(scope: Scope) -> None:
    # No text with a NUL can be stored or looked up; PostgreSQL would answer with an error of its own.
    if "\x00" in scope["path"] or b"%00" in scope["query_string"] or b"\x00" in scope["query_string"]:
        raise InvalidInput("the address has a NUL character; remove it")


def _hostname(host: str) -> str:
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises if it is none
        return (parts.hostname or "").rstrip(".")
    except ValueError:
        return ""


def _authority(netloc: str, scheme: str) -> str:
    try:
        parts = urlsplit(f"//{netloc}")
        port = parts.port or (443 if scheme == "https" else 80)
    except ValueError:
        return ""
    return f"{parts.hostname}:{port}" if parts.hostname else ""
