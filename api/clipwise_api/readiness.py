"""Whether the process can do its work: database, revision, broker, artifact store."""

import logging
from collections.abc import Callable

from sqlalchemy import text

from clipwise.store.migration import require_current
from clipwise.store.sessions import reading
from clipwise.wire.fleet import Health
from clipwise_api.services import ServiceSet

log = logging.getLogger(__name__)

PROBE_KEY = "health/probe"


def check(services: ServiceSet) -> Health:
    """Try each part; the answer has no detail, the log has."""
    parts: dict[str, Callable[[], object]] = {
        "database": lambda: _database(services),
        "revision": lambda: require_current(services.engine),
        "broker": services.delivery.check,
        "artifacts": lambda: services.artifacts.exists(PROBE_KEY),
    }
    checks: dict[str, str] = {}
    for name, probe in parts.items():
        try:
            probe()
            checks[name] = "ok"
        except Exception as error:
            log.warning("not ready: %s: %s", name, type(error).__name__)
            checks[name] = "unavailable"
    ready = all(state == "ok" for state in checks.values())
    return Health(status="ok" if ready else "unavailable", checks=dict(checks))


def _database(services: ServiceSet) -> None:
    with reading(services.engine) as session:
        session.execute(text("SELECT 1"))
