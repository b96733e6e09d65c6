import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from kombu.exceptions import OperationalError

from clipwise.jobs.delivery import TASK, make_celery, queue_of, wake
from tests.conftest import free_port


@pytest.fixture(params=["filesystem", "redis"])
def broker(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "filesystem":
        yield "filesystem://"
    else:
        yield request.getfixturevalue("redis_url")


def consumer(broker: str, folder: Path, queue: str) -> tuple[Celery, list[str]]:
    app = make_celery(broker, folder)
    app.conf.task_queues = [queue_of(queue)]
    heard: list[str] = []

    @app.task(name=TASK, shared=False)
    def hear(queue: str) -> None:
        heard.append(queue)

    return app, heard


def test_a_wake_up_reaches_a_worker_of_its_queue_alone(broker: str, tmp_path: Path) -> None:
    app, heard = consumer(broker, tmp_path, "cpu")
    bell = make_celery(broker, tmp_path)
    wake(bell, "cpu")  # it waits for a worker that starts later
    wake(bell, "gpu")
    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False):
        wake(bell, "cpu")
        deadline = time.monotonic() + 10
        while len(heard) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
    assert heard == ["cpu", "cpu"]


def test_many_writers_and_a_reader_never_see_half_a_message(tmp_path: Path) -> None:
    app, heard = consumer("filesystem://", tmp_path, "cpu")
    bells = [make_celery("filesystem://", tmp_path) for _ in range(4)]

    def ring(bell: Celery) -> None:
        for _ in range(50):
            wake(bell, "cpu")

    with start_worker(app, pool="threads", concurrency=4, perform_ping_check=False):
        ringers = [threading.Thread(target=ring, args=(bell,)) for bell in bells]
        for ringer in ringers:
            ringer.start()
        deadline = time.monotonic() + 60
        while len(heard) < 200 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert len(heard) == 200
    assert list((tmp_path / "broker" / "messages").iterdir()) == []


def test_a_broker_that_is_down_says_so_in_seconds(tmp_path: Path) -> None:
    bell = make_celery(f"redis://127.0.0.1:{free_port()}/0", tmp_path)
    started = time.monotonic()
    with pytest.raises(OperationalError):
        wake(bell, "cpu")
    assert time.monotonic() - started < 5


def test_the_folders_of_the_embedded_broker_are_its_owners_alone(tmp_path: Path) -> None:
    make_celery("filesystem://", tmp_path)
    assert (tmp_path / "broker" / "messages").stat().st_mode & 0o777 == 0o700
