"""A worker's consumer as it runs: one in its process."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, threading
from pathlib import Path
from clipwise.jobs.delivery import make_celery, wake
from clipwise_worker import tasks
from clipwise_worker.consumer import Consumer

broker, folder = sys.argv[1], Path(sys.argv[2])
woken = threading.Semaphore(0)
app = make_celery(broker, folder)
tasks.register(app, lambda: woken.release())
consumer = Consumer(app, ["cpu", "gpu"], 1)
consumer.start()
sender = make_celery(broker, folder)
for queue in ("cpu", "gpu", "cpu"):
    wake(sender, queue)
    assert woken.acquire(timeout=20), queue
consumer.stop(2.0)
print("woken")
"""


@pytest.mark.parametrize("kind", ["redis", "files"])
def test_a_message_wakes_the_worker(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    broker = request.getfixturevalue("redis_url") if kind == "redis" else "filesystem://"
    command = [sys.executable, "-c", PROGRAM, broker, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "woken\n", done.stderr
