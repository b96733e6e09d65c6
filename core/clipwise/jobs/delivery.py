"""Celery as the bell: a message says that a queue has work, and the database says which."""

from pathlib import Path
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue

TASK = "clipwise.work"
FOLDER_POLL_SECONDS = 0.1
CONNECT_SECONDS = 2.0
DIRECT = Exchange("", type="direct")  # type: ignore[no-untyped-call]
"""The default exchange: a message goes to the queue that it names, and no binding is kept anywhere."""


def make_celery(broker: str, data_dir: Path) -> Celery:
    """Return the Celery application of one process.

    Args:
        broker: the broker's URL; `filesystem://` keeps messages below `data_dir`.
        data_dir: the service's data folder.
    """
    in_folder = broker.startswith("filesystem:")
    # Kombu warns about a URL without a host, which a folder has no use for.
    url = "filesystem://localhost/" if in_folder else broker
    app = Celery("clipwise", broker=url, set_as_current=False, fixups=[])
    app.conf.update(
        task_acks_late=False,  # the message only says "there is work"; the database says who does it
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_create_missing_queues=False,
        task_publish_retry=False,  # the outbox tries again
        worker_pool="threads",
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_pool_acquire_timeout=5,
        broker_connection_timeout=CONNECT_SECONDS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    if in_folder:
        app.conf.update(
            broker_transport="clipwise.jobs.folder_broker:Transport",
            broker_transport_options=_folders(data_dir),
        )
    elif broker.startswith(("redis:", "rediss:")):
        app.conf.update(
            worker_disable_prefetch=True,
            broker_transport_options={
                "socket_connect_timeout": CONNECT_SECONDS,
                "socket_keepalive": True,
                "health_check_interval": 25,
            },
        )
    return app


def queue_of(name: str) -> Queue:
    """Return the Celery queue that wakes the workers of the queue `name`."""
    full = f"clipwise.{name}"
    return Queue(full, DIRECT, routing_key=full)  # type: ignore[no-untyped-call]


def wake(app: Celery, queue: str) -> None:
    """Wake one worker of `queue`.

    Raises:
        Exception: whatever the broker's driver raises when the broker is down, within seconds.
    """
    app.send_task(TASK, args=[queue], queue=queue_of(queue), retry=False, ignore_result=True)


def _folders(data_dir: Path) -> dict[str, Any]:
    root = data_dir.resolve() / "broker"
    messages, processed, control = root / "messages", root / "processed", root / "control"
    for folder in (messages, processed, control):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return {
        # One folder: what one process puts out is what the other takes in.
        "data_folder_in": str(messages),
        "data_folder_out": str(messages),
        "processed_folder": str(processed),
        "control_folder": str(control),
        "polling_interval": FOLDER_POLL_SECONDS,
    }
