"""Jobs, attempts and workers for Prometheus: read from the database when somebody asks, and not too often.

Every replica of the api gives the same numbers. Totals never go down while the process lives, although
people delete jobs: Prometheus takes a smaller number for a restart, and would count everything again.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sized
from itertools import accumulate
from time import monotonic
from typing import Generic, TypeVar, final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from clipwise.store import fleet_metrics
from clipwise.store.fleet_metrics import SECONDS, Durations, Now, Totals
from clipwise.store.sessions import reading

KEPT_SECONDS = 5.0
KEPT_TIMES = 20
"""What took long to read is kept for longer: reading takes a twentieth of the time at most."""

T = TypeVar("T")


@final
class Kept(Generic[T]):
    """What was read, for as long as it is young enough; of several who ask at once, one reads."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._until = 0.0
        self._value: T | None = None

    def get(self) -> T:
        """Return it, read again if need be."""
        with self._lock:
            begun = monotonic()
            if self._value is None or begun >= self._until:
                self._value = self._read()
                ended = monotonic()
                self._until = ended + max(KEPT_SECONDS, KEPT_TIMES * (ended - begun))
            return self._value


Labels = tuple[str, ...]


@final
class Rising:
    """Numbers that others may lower, counted on from where they were; some for each set of labels."""

    def __init__(self) -> None:
        self._last: dict[Labels, tuple[float, ...]] = {}
        self._risen: dict[Labels, tuple[float, ...]] = {}

    def of(self, found: Mapping[Labels, tuple[float, ...]]) -> Mapping[Labels, tuple[float, ...]]:
        """Return the numbers as they would be, had nothing been taken away."""
        for labels, values in found.items():
            nothing = (0.0,) * len(values)
            last, risen = self._last.get(labels, nothing), self._risen.get(labels, nothing)
            self._risen[labels] = tuple(
                so_far + max(0.0, value - before)
                for so_far, value, before in zip(risen, values, last, strict=True)
            )
        self._last = dict(found)
        return self._risen


@final
class FleetCollector(Collector):
    """What the database knows, as metrics.

    Args:
        engine: the database.
        streams: the event streams that are open in this process.
    """

    def __init__(self, engine: Engine, streams: Sized) -> None:
        self._streams = streams
        self._ended, self._interruptions, self._waits, self._runs = Rising(), Rising(), Rising(), Rising()
        self._now = Kept(lambda: _read(engine, fleet_metrics.now))
        self._totals = Kept(lambda: list(self._risen(_read(engine, fleet_metrics.totals))))

    def collect(self) -> Iterator[Metric]:
        """Give every metric."""
        yield GaugeMetricFamily(
            "clipwise_event_streams", "Event streams that are open in this process.", len(self._streams)
        )
        yield from _gauges(self._now.get())
        yield from self._totals.get()

    def _risen(self, totals: Totals) -> Iterator[Metric]:
        ended = CounterMetricFamily(
            "clipwise_jobs_ended", "Jobs that have ended, by status and reason.", labels=["status", "reason"]
        )
        for labels, (count,) in self._ended.of({key: (n,) for key, n in totals.ended.items()}).items():
            ended.add_metric(labels, count)
        yield ended
        interruptions = CounterMetricFamily(
            "clipwise_interruptions", "Attempts that ended before their job did, by kind.", labels=["kind"]
        )
        kinds: dict[Labels, tuple[float, ...]] = {(kind,): (n,) for kind, n in totals.interruptions.items()}
        for labels, (count,) in self._interruptions.of(kinds).items():
            interruptions.add_metric(labels, count)
        yield interruptions
        waits = HistogramMetricFamily(
            "clipwise_attempt_wait_seconds", "How long jobs waited for an attempt.", labels=["queue"]
        )
        _fill(waits, self._waits.of({(queue,): _values(found) for queue, found in totals.waits.items()}))
        yield waits
        runs = HistogramMetricFamily(
            "clipwise_attempt_run_seconds",
            "How long attempts ran that have ended.",
            labels=["queue", "outcome"],
        )
        _fill(runs, self._runs.of({key: _values(found) for key, found in totals.runs.items()}))
        yield runs


def _values(found: Durations) -> tuple[float, ...]:
    return (*found.counts, found.total)


def _fill(family: HistogramMetricFamily, durations: Mapping[Labels, tuple[float, ...]]) -> None:
    names = [*(str(float(bound)) for bound in SECONDS), "+Inf"]
    for labels, (*counts, total) in durations.items():
        family.add_metric(labels, list(zip(names, accumulate(counts), strict=True)), total)


def _read(engine: Engine, what: Callable[[Session], T]) -> T:
    with reading(engine) as session:
        return what(session)


def _gauges(now: Now) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("clipwise_jobs", "Jobs that have not ended.", labels=["queue", "status"])
    for (queue, status), count in now.jobs.items():
        jobs.add_metric([queue, status], count)
    yield jobs
    oldest = GaugeMetricFamily(
        "clipwise_queue_oldest_wait_seconds",
        "How long the job that waits longest has waited.",
        labels=["queue"],
    )
    for queue, seconds in now.oldest_seconds.items():
        oldest.add_metric([queue], seconds)
    yield oldest
    states = GaugeMetricFamily("clipwise_workers", "Workers that have not stopped.", labels=["state"])
    for state in ("alive", "draining", "silent"):
        states.add_metric([state], sum(worker.state == state for worker in now.workers))
    yield states
    age = GaugeMetricFamily(
        "clipwise_worker_heartbeat_age_seconds", "Since a worker was heard of.", labels=["worker"]
    )
    slots = GaugeMetricFamily(
        "clipwise_worker_slots", "Attempts that a worker may run at once.", labels=["worker"]
    )
    busy = GaugeMetricFamily("clipwise_worker_busy_slots", "Jobs that a worker owns.", labels=["worker"])
    for worker in now.workers:
        age.add_metric([worker.id], worker.heartbeat_age_seconds)
        slots.add_metric([worker.id], worker.slots)
        busy.add_metric([worker.id], worker.busy_slots)
    yield from (age, slots, busy)
    devices = GaugeMetricFamily("clipwise_devices", "GPUs of hosts with a live worker.", labels=["state"])
    for state, count in now.devices.items():
        devices.add_metric([state], count)
    yield devices
    yield GaugeMetricFamily("clipwise_outbox_messages", "Messages that wait for the broker.", now.outbox)
    yield GaugeMetricFamily(
        "clipwise_outbox_oldest_seconds", "Age of the message that waits longest.", now.outbox_seconds
    )
