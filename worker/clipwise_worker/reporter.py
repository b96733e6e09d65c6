"""What a runner says, on its way to the database: in batches, on a thread of its own, through outages."""

import logging
import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import final

from sqlalchemy import Engine

from clipwise.errors import StaleToken
from clipwise.jobs.states import Phase
from clipwise.redaction import LineRedactor
from clipwise.store import reports
from clipwise.store.attempts import Attempt
from clipwise.store.outages import is_outage
from clipwise.store.reports import Line
from clipwise.store.sessions import transaction
from clipwise.store.spans import Point
from clipwise_worker.messages import Measured, Progressed

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.4
FLUSH_POINTS = 1_000
HELD_POINTS = 100_000
"""Points held while the database is away; then the runner is made to wait."""
EVENTS = 1_000
"""Phases and warnings taken from one attempt."""
OUTAGE_SECONDS = 900.0


@dataclass
class Batch:
    """What has not been written yet."""

    phases: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=reports.LOG_LINES))
    progress: Progressed | None = None

    def __bool__(self) -> bool:
        return bool(self.phases or self.warnings or self.points or self.lines or self.progress)


@final
class Reporter:
    """Writes what an attempt reports.

    Args:
        engine: the database.
        attempt: whose token every write carries.
        on_lost: called when the attempt has lost its job, or the database is away for too long.
        on_failed: called with a message when the database refuses what it is given.
        outage_seconds: how long an outage of the database is sat out.
    """

    def __init__(
        self,
        engine: Engine,
        attempt: Attempt,
        on_lost: Callable[[], None],
        on_failed: Callable[[str], None],
        outage_seconds: float = OUTAGE_SECONDS,
    ) -> None:
        self._engine = engine
        self._attempt = attempt
        self._on_lost = on_lost
        self._on_failed = on_failed
        self._outage_seconds = outage_seconds
        self._batch = Batch()
        self._changed = threading.Condition()
        self._closing = False
        self._given_up = threading.Event()
        self._events = 0
        self._reports = 0
        self._redactors: defaultdict[str, LineRedactor] = defaultdict(LineRedactor)
        self._phase: str = Phase.STARTING  # the claim has written it
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def phase(self, phase: str) -> None:
        """Take a new phase; one that is said again is no news."""
        with self._changed:
            if phase != self._phase and self._count_event():
                self._batch.phases.append(phase)
            self._phase = phase

    def warning(self, message: str) -> None:
        """Take a warning, which becomes an event."""
        with self._changed:
            if self._count_event():
                self._batch.warnings.append(message)

    def progress(self, progress: Progressed) -> None:
        """Take progress; only the latest is written."""
        with self._changed:
            self._batch.progress = progress

    def metrics(self, measured: Measured) -> None:
        """Take metrics; waits while too many are held, which makes the runner wait."""
        points = [
            Point(name=name, step=measured.step, value=_finite(value), released=measured.released)
            for name, value in measured.values.items()
        ]
        with self._changed:
            while len(self._batch.points) > HELD_POINTS and not (self._closing or self._given_up.is_set()):
                self._changed.wait(1.0)
            self._batch.points += points
            if len(self._batch.points) >= FLUSH_POINTS:
                self._changed.notify_all()

    def line(self, stream: str, text: str) -> None:
        """Take a line of output; printing never makes a runner wait, of too many the last are kept."""
        with self._changed:
            clean = self._redactors[stream].redacted(text)
            self._batch.lines.append(Line(stream=stream, text=clean, at=datetime.now(UTC)))

    def close(self, within_seconds: float) -> None:
        """Write what is left, and give up after so many seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(within_seconds)
        self._given_up.set()

    def _count_event(self) -> bool:
        self._events += 1
        self._changed.notify_all()
        return self._events <= EVENTS

    def _run(self) -> None:
        while not self._given_up.is_set():
            with self._changed:
                if not self._closing:
                    self._changed.wait(FLUSH_SECONDS)
                closing, batch, self._batch = self._closing, self._batch, Batch()
                self._changed.notify_all()
            if batch:
                self._write(batch)
            if closing and not batch:
                return

    def _write(self, batch: Batch) -> None:
        self._reports += 1
        try:
            through_outages(lambda: self._write_once(batch), self._outage_seconds, self._given_up)
        except StaleToken:
            self._given_up.set()
            self._on_lost()
        except Exception as error:
            self._given_up.set()
            if is_outage(error):
                # Nobody can say whose the job is by now: whoever finds the lease over puts it back.
                self._on_lost()
                return
            log.exception("job %s: a report could not be written", self._attempt.job_id)
            self._on_failed(f"the database did not take the job's reports ({type(error).__name__})")

    def _write_once(self, batch: Batch) -> None:
        with transaction(self._engine) as session:
            if not reports.begin(session, self._attempt, self._reports):
                return  # the commit went through, and the answer was lost with the connection
            for phase in batch.phases:
                reports.set_phase(session, self._attempt, phase)
            for message in batch.warnings:
                reports.add_event(session, self._attempt, "warning", "warning", message)
            if batch.points:
                reports.add_metrics(session, self._attempt, batch.points)
            if batch.lines:
                reports.add_logs(session, self._attempt, list(batch.lines))
            if batch.progress is not None:
                reports.record_progress(
                    session,
                    self._attempt,
                    step=batch.progress.step,
                    steps=batch.progress.steps,
                    samples_per_second=_finite(batch.progress.samples_per_second),
                    eta_seconds=_finite(batch.progress.eta_seconds),
                )


def through_outages(write: Callable[[], None], seconds: float, given_up: threading.Event) -> None:
    """Call `write`, and again after a while as long as the database is away, for so many seconds at most.

    Raises:
        StaleToken: from `write`.
        Exception: the last error, when the time is over, or an error that waiting does not cure.
    """
    deadline = time.monotonic() + seconds
    pause = 0.25
    while True:
        try:
            return write()
        except Exception as error:
            if not is_outage(error) or time.monotonic() + pause > deadline:
                raise
            log.warning("the database is away (%s), trying again in %.1f s", type(error).__name__, pause)
        if given_up.wait(pause):
            return None
        pause = min(2 * pause, 5.0)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
