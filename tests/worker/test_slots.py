import threading
import time
from collections import deque
from typing import Any, cast

from clipwise.store.attempts import Attempt
from clipwise.store.claims import Claimed
from clipwise_worker.slots import Slots
from clipwise_worker.stopping import Stopping
from clipwise_worker.supervisor import Supervisor


class Recorded:
    """What a slot sees of a supervisor: it runs until it is released or stopped."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.stopped: list[Stopping] = []

    def run(self) -> None:
        self.release.wait(10)

    def stop(self, why: Stopping) -> None:
        self.stopped.append(why)
        self.release.set()


class Queue:
    def __init__(self, jobs: int) -> None:
        self.waiting = deque(range(jobs))
        self.supervisors: list[Recorded] = []

    def claim(self) -> Claimed | None:
        if not self.waiting:
            return None
        attempt = Attempt(job_id=f"job_{self.waiting.popleft()}", number=1, token=1)
        return Claimed(attempt=attempt, spec={}, plan={}, dataset_schema={}, rows_key=None, builtin="digits")

    def supervise(self, _: Claimed) -> Supervisor:
        self.supervisors.append(Recorded())
        return cast("Any", self.supervisors[-1])

    def slots(self, count: int) -> Slots:
        return Slots(count, self.claim, self.supervise)


def start(slots: Slots) -> threading.Thread:
    thread = threading.Thread(target=slots.work)
    thread.start()
    return thread


def wait_for_running(slots: Slots, count: int) -> None:
    deadline = time.monotonic() + 5
    while len(slots.running()) != count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_one_message_is_enough_for_every_job_that_waits() -> None:
    queue = Queue(3)
    slots = queue.slots(1)
    thread = start(slots)
    for index in range(3):
        while len(queue.supervisors) <= index:
            time.sleep(0.005)
        queue.supervisors[index].release.set()
    thread.join(5)
    assert (len(queue.waiting), slots.running()) == (0, {})


def test_no_more_run_at_once_than_there_are_slots() -> None:
    queue = Queue(5)
    slots = queue.slots(2)
    threads = [start(slots) for _ in range(5)]
    wait_for_running(slots, 2)
    time.sleep(0.05)
    assert len(slots.running()) == 2
    assert not slots.has_free()
    assert slots.stop(5)
    for thread in threads:
        thread.join(5)


def test_stopping_stops_what_runs_and_takes_nothing_new() -> None:
    queue = Queue(3)
    slots = queue.slots(1)
    thread = start(slots)
    wait_for_running(slots, 1)
    assert slots.stop(5)
    thread.join(5)
    slots.work()
    assert queue.supervisors[0].stopped == [Stopping.WORKER_STOPS]
    assert len(queue.waiting) == 2
    assert not slots.has_free()


def test_a_worker_that_drains_puts_back_what_it_has_and_takes_nothing_until_it_is_told() -> None:
    queue = Queue(2)
    slots = queue.slots(1)
    thread = start(slots)
    wait_for_running(slots, 1)
    assert (slots.has_free(), slots.count_next()) == (False, 1)
    slots.drain(draining=True)
    thread.join(5)
    slots.work()
    assert queue.supervisors[0].stopped == [Stopping.DRAINED]
    assert (len(queue.waiting), slots.has_free(), slots.count_next()) == (1, False, 0)
    slots.drain(draining=False)
    assert (slots.has_free(), slots.count_next()) == (True, 1)
    thread = start(slots)
    wait_for_running(slots, 1)
    assert slots.stop(5)
    thread.join(5)
