"""Watching a job: a live bar at a terminal, a line a second elsewhere, nothing for machines."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, final

from clipwise.cli.output import is_terminal, printable, say

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

    from clipwise.client import Client
    from clipwise.wire.jobs import Job, MetricSeries

POLL_SECONDS = 0.25
LINE_SECONDS = 1.0
WIDE_COLUMNS = 112
"""What the numbers beside a bar take, with a bar of 30 columns."""
LOSS = "train/loss"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What is known of a job at one moment."""

    status: str
    phase: str | None
    step: int
    steps: int
    loss: float | None
    epsilon: float | None
    samples_per_second: float | None
    eta_seconds: float | None

    def facts(self) -> str:
        """Return the numbers in one line; those that are not known yet are left out."""
        found = (
            (self.loss, "loss {:.4f}"),
            (self.epsilon, "epsilon {:.3f}"),
            (self.samples_per_second, "{:,.0f} samples/s"),
        )
        return "  ".join(form.format(value) for value, form in found if value is not None)


class Display(Protocol):
    """Shows moments of a job, inside its `with` block."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""

    def update(self, moment: Moment) -> None:
        """Show `moment`."""


def display_for(*, as_json: bool) -> "Display | None":
    """Return the display that fits who reads stdout."""
    if as_json:
        return None
    return Bar() if is_terminal() else Lines()


def watch(
    client: "Client",
    job_id: str,
    display: Display | None,
    between: Callable[[], None] = lambda: None,
) -> "Job":
    """Show a job until it has ended, and return it.

    Args:
        client: where the job is.
        job_id: its id.
        display: what shows it, if anything does.
        between: called a few times a second.
    """
    loss = _LatestLoss(client, job_id)
    shown: AbstractContextManager[Display | None] = display if display is not None else nullcontext()
    with shown:
        while True:
            job = client.job(job_id)
            if display is not None:
                display.update(_moment(job, loss.value()))
            if job.finished_at is not None:
                return job
            between()
            time.sleep(POLL_SECONDS)


@final
class Bar:
    """A bar with the numbers beside it, redrawn in place."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        from clipwise.cli.output import console

        drawn_on = console()
        narrow = drawn_on.width < WIDE_COLUMNS
        columns: list[ProgressColumn] = [
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=8 if narrow else 30),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[facts]}", style="cyan"),
        ]
        if not narrow:
            columns.append(TextColumn("{task.fields[left]}", style="dim"))
        self._progress = Progress(*columns, console=drawn_on)
        self._task = self._progress.add_task("waiting", total=None, count="", facts="", left="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, moment: Moment) -> None:
        """Redraw it."""
        started = moment.steps > 0
        self._progress.update(
            self._task,
            description=(moment.phase or moment.status).ljust(10),
            total=moment.steps if started else None,
            completed=moment.step,
            count=f"step {moment.step}/{moment.steps}" if started else "",
            facts=moment.facts(),
            left=f"{moment.eta_seconds:.0f} s left" if moment.eta_seconds else "",
        )


@final
class Lines:
    """A line about every second in which something changed."""

    def __init__(self) -> None:
        self._last = ""
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, moment: Moment) -> None:
        """Print a line, if it is time for one or this is the end."""
        count = f"step {moment.step}/{moment.steps}" if moment.steps else ""
        line = "  ".join(part for part in (moment.phase or moment.status, count, moment.facts()) if part)
        now = time.monotonic()
        over = moment.status in ("succeeded", "failed", "cancelled")
        if line != self._last and (over or now >= self._next):
            say(printable(line))
            self._last, self._next = line, now + LINE_SECONDS


class _LatestLoss:
    """The newest loss of a job, asking for new points only."""

    def __init__(self, client: "Client", job_id: str) -> None:
        self._client = client
        self._job_id = job_id
        self._step = -1
        self._value: float | None = None

    def value(self) -> float | None:
        found: dict[str, MetricSeries] = self._client.metrics(
            self._job_id, names=[LOSS], after_step=self._step, max_points=10
        )
        series = found.get(LOSS)
        if series is not None and series.step:
            self._step, self._value = series.step[-1], series.value[-1]
        return self._value


def _moment(job: "Job", loss: float | None) -> Moment:
    progress = job.progress
    return Moment(
        status=str(job.status),
        phase=job.phase,
        step=progress.step if progress else 0,
        steps=progress.steps if progress else 0,
        loss=loss,
        epsilon=job.privacy.epsilon if job.privacy else None,
        samples_per_second=progress.samples_per_second if progress else None,
        eta_seconds=progress.eta_seconds if progress else None,
    )
