"""Where a job is, from its row or from the columns that event streams watch."""

from typing import Protocol

from clipwise.wire.jobs import JobPrivacy, Progress


class Advancing(Protocol):
    """What has the columns of a job's progress."""

    @property
    def step(self) -> int | None: ...  # noqa: D102
    @property
    def steps(self) -> int | None: ...  # noqa: D102
    @property
    def eta_seconds(self) -> float | None: ...  # noqa: D102
    @property
    def samples_per_second(self) -> float | None: ...  # noqa: D102
    @property
    def epsilon(self) -> float | None: ...  # noqa: D102
    @property
    def delta(self) -> float | None: ...  # noqa: D102


def progress_of(job: Advancing) -> Progress | None:
    """Return how far an attempt is; null before the first."""
    if job.step is None or job.steps is None:
        return None
    return Progress(
        step=job.step,
        steps=job.steps,
        eta_seconds=job.eta_seconds,
        samples_per_second=job.samples_per_second,
    )


def privacy_of(job: Advancing) -> JobPrivacy | None:
    """Return what has been spent; null without a guarantee, and before the first step."""
    if job.epsilon is None or job.delta is None:
        return None
    return JobPrivacy(epsilon=job.epsilon, delta=job.delta)
