"""Functions that run in processes of their own, so that one cannot spoil what the next one measures.

A child is forked from a process that has imported libraries and computed nothing: it is as fresh as one that
was started anew, without the seconds that importing takes.
"""

import multiprocessing
import resource
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

FORK = multiprocessing.get_context("fork")
OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "Cannot allocate memory",
    "bad_alloc",
    "MemoryError",
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """A call for a child.

    Attributes:
        name: to know the outcome by.
        function: called with `arguments`; it returns what a pipe can carry.
        arguments: of the function.
        memory: most bytes of data that the child may hold; None does not limit it.
        seconds: after which it is ended.
    """

    name: Any
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    memory: int | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a call.

    Attributes:
        value: what it returned; None if it did not.
        reason: why it did not return, as the table tells it: "out: ...", "refused: ..."; "" if it did.
    """

    value: Any = None
    reason: str = ""


def outcomes(works: Iterable[Work], parallel: int) -> Iterator[tuple[Any, Outcome]]:
    """Run so many children at a time; yield names and outcomes as they end."""
    waiting = list(works)
    running: dict[Connection, tuple[Work, Any, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                work = waiting.pop(0)
                receiver, sender = FORK.Pipe(duplex=False)
                process = FORK.Process(target=_child, args=(work, sender))
                process.start()
                sender.close()
                running[receiver] = (work, process, time.monotonic() + work.seconds)
            soonest = min(deadline for _, _, deadline in running.values())
            ready = set(wait(list(running), max(0.0, soonest - time.monotonic())))
            for receiver, (work, process, deadline) in list(running.items()):
                if receiver in ready:
                    outcome = _received(receiver)
                elif time.monotonic() >= deadline:
                    process.kill()
                    outcome = Outcome(reason=f"out: more than {work.seconds:.0f} s")
                else:
                    continue
                del running[receiver]
                process.join()
                receiver.close()
                yield work.name, outcome
    finally:
        for _, process, _ in running.values():
            process.kill()
            process.join()


def outcome(work: Work) -> Outcome:
    """Run one child to its end."""
    return next(found for _, found in outcomes([work], 1))


def _received(receiver: Connection) -> Outcome:
    try:
        value, reason = receiver.recv()
    except EOFError:
        return Outcome(reason="out: the process was killed")
    return Outcome(value=value, reason=reason)


def _child(work: Work, sender: Connection) -> None:
    if work.memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (work.memory, work.memory))
    warnings.simplefilter("ignore")  # of hooks and of fallbacks, in every step
    try:
        sender.send((work.function(*work.arguments), ""))
    except BaseException as error:  # whatever a peer raises is what the table tells of it
        sender.send((None, _reason(error, work.memory)))
    finally:
        sender.close()


def _reason(error: BaseException, memory: int | None) -> str:
    text = "".join(traceback.format_exception_only(error)).strip()
    if any(sign in text for sign in OUT_OF_MEMORY):
        return "out: of memory" if memory is None else f"out: more than {memory / 2**30:.0f} GiB"
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"refused: {type(error).__name__}: {first.partition('tensor([')[0]}"[:240]
