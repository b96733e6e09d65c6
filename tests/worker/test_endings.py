import signal

import pytest

from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise_worker.endings import death_outcome, stop_outcome
from clipwise_worker.stopping import Stopping


@pytest.mark.parametrize(
    ("why", "status", "reason"),
    [
        (Stopping.CANCELLED, JobStatus.CANCELLED, ReasonCode.USER_CANCELLED),
        (Stopping.MAX_RUNTIME, JobStatus.FAILED, ReasonCode.MAX_RUNTIME_EXCEEDED),
        (Stopping.WORKER_STOPS, JobStatus.FAILED, ReasonCode.WORKER_LOST),
        (Stopping.LOST, JobStatus.FAILED, ReasonCode.WORKER_LOST),
        (Stopping.BROKEN, JobStatus.FAILED, ReasonCode.INTERNAL),
    ],
)
def test_every_way_of_stopping_has_its_reason(why: Stopping, status: JobStatus, reason: ReasonCode) -> None:
    outcome = stop_outcome(why, "what was broken")
    assert (outcome.status, outcome.reason) == (status, reason)
    assert outcome.message


def test_out_of_memory_is_said_only_with_evidence() -> None:
    with_evidence = death_outcome(-signal.SIGKILL, killed_for_memory=True)
    assert with_evidence.reason == ReasonCode.OUT_OF_MEMORY
    assert "microbatch_size" in str(with_evidence.message)
    assert death_outcome(-signal.SIGKILL, killed_for_memory=False).reason == ReasonCode.INTERNAL
    assert death_outcome(-signal.SIGSEGV, killed_for_memory=True).reason == ReasonCode.INTERNAL


def test_a_signal_without_a_name_is_still_reported() -> None:
    assert "signal 200, unknown" in str(death_outcome(-200, killed_for_memory=False).message)
