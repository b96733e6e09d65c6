"""The processes of the service, each by itself: api, worker, and the migration of the database."""

import importlib.util
import os
import sys

from clipwise.cli.options import JsonFlag
from clipwise.cli.output import print_json, say
from clipwise.errors import ConfigurationError

NEEDS = {
    "api": ("clipwise_api", "fastapi", "uvicorn", "sqlalchemy", "celery", "pydantic_settings"),
    "worker": ("clipwise_worker", "torch", "safetensors", "sqlalchemy", "celery", "pydantic_settings"),
    "service": ("sqlalchemy", "alembic", "pydantic_settings"),
}
"""What tells that an extra of the distribution is installed; looked up, not imported."""


def api() -> None:
    """Run the api, which also serves the dashboard (settings: CLIPWISE_* in the environment)."""
    _become("api", "clipwise_api")


def worker() -> None:
    """Run a worker (settings: CLIPWISE_* in the environment)."""
    _become("worker", "clipwise_worker")


def migrate(as_json: JsonFlag = False) -> None:
    """Bring the database to the newest revision."""
    require_extra("service", install="api")
    from clipwise.settings import Settings
    from clipwise.store.migration import upgrade

    revision = upgrade(Settings().database)
    if as_json:
        print_json({"revision": revision})
    else:
        say(f"The database is at revision {revision}.")


def require_extra(extra: str, *, install: str | None = None) -> None:
    """Check that what `extra` brings is installed.

    Raises:
        ConfigurationError: if not, with the command that installs it.
    """
    missing = [name for name in NEEDS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"'{missing[0]}' is not installed, which this command needs; "
            f"run: pip install 'clipwise[{install or extra}]'"
        )


def _become(extra: str, package: str) -> None:
    require_extra(extra)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", package])  # noqa: S606  # no shell, our own package
