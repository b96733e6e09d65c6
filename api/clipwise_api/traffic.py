"""What was asked of this process: a line of its log and a measurement for every request."""

import logging
import re
from typing import Any

from prometheus_client import CollectorRegistry, Histogram
from starlette.types import Scope

from clipwise import logs
from clipwise_api.gate import needs_key

log = logging.getLogger(__name__)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DASHBOARD = "(dashboard)"
NOWHERE = "(none)"
"""An address of the api that no route has, or a request that was refused before one was looked for."""
QUIET = frozenset({"/healthz", "/readyz", "/metrics", DASHBOARD})
"""Asked every few seconds by machines, or for a file of the dashboard: worth a line if it failed."""
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Traffic:
    """Notes every request of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "clipwise_http_request_duration_seconds",
            "Time until an answer of this process began, by method, route and class of the status.",
            ["method", "route", "status"],
            buckets=SECONDS,
            registry=registry,
        )

    def note(self, scope: Scope, status: int, began_after: float, seconds: float) -> None:
        """Note one request that is over.

        Args:
            scope: of the request, after it was routed.
            status: of the answer.
            began_after: seconds until the answer began; how long a stream or a download lasts says nothing.
            seconds: until its end.
        """
        route = route_of(scope)
        method = scope["method"] if scope["method"] in METHODS else "(other)"
        self._seconds.labels(method, route, f"{status // 100}xx").observe(began_after)
        level = logging.DEBUG if route in QUIET and status < 500 else logging.INFO
        if not log.isEnabledFor(level):
            return
        principal = scope.get("state", {}).get("principal")
        fields: dict[str, Any] = {
            "method": method,
            "route": route,
            "status": status,
            "duration_ms": round(1000 * seconds, 1),
            "key_id": principal.key_id if principal is not None else None,
        }
        with logs.context(job_id=_id_in_path(scope, "job_id")):
            log.log(
                level,
                "%s %s %d in %.1f ms, %s",
                method,
                route,
                status,
                fields["duration_ms"],
                fields["key_id"] or "no key",
                extra=fields,
            )


def route_of(scope: Scope) -> str:
    """Return the template of a request's route: few values, and no id that somebody sent."""
    path = getattr(scope.get("route"), "path", None)
    if path is not None:
        return str(path)
    return NOWHERE if needs_key(scope["method"], scope["path"]) else DASHBOARD


def is_sane_id(text: str) -> bool:
    """Tell whether an id from outside may be repeated in logs and answers; a key is none."""
    return _ID.fullmatch(text) is not None and not text.startswith("cw_")


def _id_in_path(scope: Scope, name: str) -> str | None:
    given = str((scope.get("path_params") or {}).get(name, ""))
    return given if is_sane_id(given) else None
