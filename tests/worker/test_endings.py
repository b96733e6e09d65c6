import signal

import pytest

from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise.store.attempts import Blamed, Outcome, Release
from clipwise_worker.endings import death_ending, stop_ending
from clipwise_worker.stopping import Stopping


@pytest.mark.parametrize(
    ("why", "status", "reason"),
    [
        (Stopping.CANCELLED, JobStatus.CANCELLED, ReasonCode.USER_CANCELLED),
        (Stopping.MAX_RUNTIME, JobStatus.FAILED, ReasonCode.MAX_RUNTIME_EXCEEDED),
        (Stopping.BROKEN, JobStatus.FAILED, ReasonCode.INTERNAL),
    ],
)
def test_a_job_that_is_over_has_its_reason(why: Stopping, status: JobStatus, reason: ReasonCode) -> None:
    outcome = stop_ending(why, "what was broken")
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.reason) == (status, reason)
    assert outcome.message


@pytest.mark.parametrize(
    ("why", "blames"),
    [
        (Stopping.PAUSED, None),
        (Stopping.DRAINED, None),
        (Stopping.WORKER_STOPS, None),
        (Stopping.LOST, Blamed.WORKER),
        (Stopping.HINDERED, Blamed.WORKER),
    ],
)
def test_a_job_that_goes_on_is_blamed_for_nothing(why: Stopping, blames: Blamed | None) -> None:
    back = stop_ending(why, "")
    assert isinstance(back, Release)
    assert back.blames is blames


def test_the_reason_further_down_counts() -> None:
    order = list(Stopping)
    for place, why in enumerate(order):
        assert why.overrules(None)
        assert [why.overrules(other) for other in order] == [index < place for index in range(len(order))]


def test_out_of_memory_is_said_only_with_evidence() -> None:
    for ending in (
        death_ending(-signal.SIGKILL, killed_for_memory=True),
        death_ending(-signal.SIGABRT, killed_for_memory=False, last_words=["what():  std::bad_alloc"]),
        death_ending(1, killed_for_memory=False, last_words=["MemoryError"]),
    ):
        assert isinstance(ending, Outcome)
        assert ending.reason == ReasonCode.OUT_OF_MEMORY
        assert "microbatch_size" in str(ending.message)
    for ending in (
        death_ending(-signal.SIGKILL, killed_for_memory=False),
        death_ending(-signal.SIGSEGV, killed_for_memory=True),
        death_ending(1, killed_for_memory=False, last_words=["KeyError"]),
    ):
        assert isinstance(ending, Release)
        assert ending.blames is Blamed.RUNNER


def test_a_signal_without_a_name_is_still_reported() -> None:
    assert "signal 200, unknown" in death_ending(-200, killed_for_memory=False).message  # type: ignore[operator]
