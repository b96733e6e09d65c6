"""Around every request: its id, the headers of every answer, an answer to every fault, and a note of it."""

import logging
import time
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clipwise import logs
from clipwise_api.errors import from_exception
from clipwise_api.traffic import Traffic, is_sane_id

log = logging.getLogger(__name__)

POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CLIENT_LEFT = 499
"""What a request is noted as whose client did not wait for an answer; nobody is sent it."""


class Envelope:
    """ASGI middleware, the outermost one."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens inside."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        begun = time.perf_counter()
        status = CLIENT_LEFT
        began_after: float | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status, began_after
            if message["type"] == "http.response.start":
                status, began_after = message["status"], time.perf_counter() - begun
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in HEADERS.items():
                    headers[name] = value
                if scope["path"].startswith("/v1/") and "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        with logs.context(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_headers)
            except ClientDisconnect:
                log.info("the client left")
            except Exception as error:
                if began_after is not None:
                    log.exception("the request failed after its answer had begun")
                    raise
                await from_exception(error, request_id)(scope, receive, send_with_headers)
            finally:
                seconds = time.perf_counter() - begun
                self._traffic.note(scope, status, seconds if began_after is None else began_after, seconds)


def _request_id(scope: Scope) -> str:
    """Return the id that the client gave its request, so that its logs and ours agree, or a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if is_sane_id(given) else f"req_{uuid4().hex}"
