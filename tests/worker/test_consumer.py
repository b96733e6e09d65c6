import threading
from pathlib import Path

import pytest

from clipwise.jobs.delivery import make_celery, wake
from clipwise_worker import tasks
from clipwise_worker.consumer import Consumer


@pytest.mark.parametrize("kind", ["redis", "files"])
def test_a_message_wakes_the_worker(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    broker = request.getfixturevalue("redis_url") if kind == "redis" else "filesystem://"
    woken = threading.Semaphore(0)
    app = make_celery(broker, tmp_path)
    tasks.register(app, lambda: woken.release())
    consumer = Consumer(app, ["cpu", "gpu"], 1)
    consumer.start()
    try:
        sender = make_celery(broker, tmp_path)
        for queue in ("cpu", "gpu", "cpu"):
            wake(sender, queue)
            assert woken.acquire(timeout=10)
    finally:
        consumer.stop(2.0)
