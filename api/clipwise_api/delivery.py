"""The outbox's way to the broker, as the api uses it."""

from celery import Celery
from sqlalchemy import Engine

from clipwise.jobs.delivery import CONNECT_SECONDS, make_celery, wake
from clipwise.settings import Settings
from clipwise.store import outbox


class Delivery:
    """Publishes what waits in the outbox."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._engine = engine
        self._celery: Celery = make_celery(settings.broker, settings.data_dir)

    def relay(self) -> int:
        """Publish waiting messages and return how many went out; a broker that is down leaves them."""
        return outbox.relay(self._engine, lambda queue: wake(self._celery, queue))

    def check(self) -> None:
        """Connect to the broker.

        Raises:
            Exception: whatever the broker's driver raises if it cannot.
        """
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_SECONDS)
