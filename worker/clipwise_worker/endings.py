"""How an attempt ends that its runner did not complete, in words for people."""

import signal
from collections.abc import Sequence
from typing import assert_never

from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise.store.attempts import CANCELLED, MAX_RUNTIME, Blamed, Outcome, Release
from clipwise_worker.stopping import Stopping

Ending = Outcome | Release
NO_MEMORY = ("std::bad_alloc", "MemoryError", "can't allocate memory", "Cannot allocate memory")
"""What programs say before they die for want of memory."""


def failed(reason: ReasonCode, message: str) -> Outcome:
    """Return the outcome of an attempt that failed."""
    return Outcome(status=JobStatus.FAILED, reason=reason, message=message)


def stop_ending(why: Stopping, message: str) -> Ending:
    """Return how an attempt ends that was stopped from outside of its runner."""
    match why:
        case Stopping.CANCELLED:
            return CANCELLED
        case Stopping.PAUSED:
            return Release(message="the job was paused")
        case Stopping.DRAINED | Stopping.WORKER_STOPS:
            return Release(message="the worker was told to stop")
        case Stopping.LOST:
            return Release(message="the worker was lost", blames=Blamed.WORKER)
        case Stopping.MAX_RUNTIME:
            return MAX_RUNTIME
        case Stopping.HINDERED:
            return Release(message=message, blames=Blamed.WORKER)
        case Stopping.BROKEN:
            return failed(ReasonCode.INTERNAL, message)
        case _:
            assert_never(why)


def death_ending(returncode: int, *, killed_for_memory: bool, last_words: Sequence[str] = ()) -> Ending:
    """Return how an attempt ends whose runner ended without a word.

    Args:
        returncode: of the process; negative for a signal.
        killed_for_memory: whether the kernel says that it killed for want of memory meanwhile.
        last_words: the last lines of its standard error.
    """
    if (returncode == -signal.SIGKILL and killed_for_memory) or any(
        words in line for line in last_words for words in NO_MEMORY
    ):
        return failed(
            ReasonCode.OUT_OF_MEMORY,
            "the runner ran out of the machine's memory; set training.microbatch_size lower, take a smaller "
            "model, or give the worker more memory",
        )
    if returncode < 0:
        names = {int(known): known.name for known in signal.Signals}
        name = names.get(-returncode, "unknown")
        hint = " (out of memory?)" if returncode == -signal.SIGKILL else ""
        message = f"the runner was killed by signal {-returncode}, {name}{hint}"
    else:
        message = f"the runner ended with exit code {returncode} and without a result"
    return Release(message=message, blames=Blamed.RUNNER)
