"""How an attempt ends that its runner did not complete, in words for people."""

import signal
from typing import assert_never

from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise.store.attempts import Outcome, lost_outcome
from clipwise_worker.stopping import Stopping


def failed(reason: ReasonCode, message: str) -> Outcome:
    """Return the outcome of an attempt that failed."""
    return Outcome(status=JobStatus.FAILED, reason=reason, message=message)


def stop_outcome(why: Stopping, message: str) -> Outcome:
    """Return the outcome of an attempt that was stopped from outside of its runner."""
    match why:
        case Stopping.CANCELLED:
            return lost_outcome(cancelling=True)
        case Stopping.WORKER_STOPS | Stopping.LOST:
            return lost_outcome(cancelling=False)
        case Stopping.MAX_RUNTIME:
            return failed(
                ReasonCode.MAX_RUNTIME_EXCEEDED,
                "the job ran for longer than limits.max_runtime_seconds; raise it, or train for fewer steps",
            )
        case Stopping.BROKEN:
            return failed(ReasonCode.INTERNAL, message)
        case _:
            assert_never(why)


def death_outcome(returncode: int, *, killed_for_memory: bool) -> Outcome:
    """Return the outcome of an attempt whose runner ended without a word.

    Args:
        returncode: of the process; negative for a signal.
        killed_for_memory: whether the kernel says that it killed for want of memory meanwhile.
    """
    if returncode == -signal.SIGKILL and killed_for_memory:
        return failed(
            ReasonCode.OUT_OF_MEMORY,
            "the runner was killed because the machine ran out of memory; "
            "set training.microbatch_size lower, or give the worker more memory",
        )
    if returncode < 0:
        names = {int(known): known.name for known in signal.Signals}
        name = names.get(-returncode, "unknown")
        hint = " (out of memory?)" if returncode == -signal.SIGKILL else ""
        return failed(
            ReasonCode.INTERNAL,
            f"the runner was killed by signal {-returncode}, {name}{hint}; see the job's log",
        )
    return failed(
        ReasonCode.INTERNAL,
        f"the runner ended with exit code {returncode} and without a result; see the job's log",
    )
