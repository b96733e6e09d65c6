"""Processes that calibrate noise: spawned, without torch, and gone with the api."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from typing import NoReturn

from clipwise.errors import InvalidSpec, Problem
from clipwise.privacy.calibration import Calibration, NoiseRequest, settle

PROCESSES = 2
NICENESS = 5
MOST_SECONDS = 300.0
"""Processor time of one calibration: the hardest known take 45, and two that never end would stop all."""


class Calibrators:
    """A pool of processes, started when the first calibration is asked for.

    Args:
        seconds: processor time that one calibration may take.
    """

    def __init__(self, seconds: float = MOST_SECONDS) -> None:
        self._seconds = seconds
        self._pool: ProcessPoolExecutor | None = None
        self._alive: Connection | None = None
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, request: NoiseRequest) -> "Future[Calibration]":
        """Start one calibration; it fails with `InvalidSpec` where there is none, or none in time."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the service stops")
            try:
                return self._running().submit(_settle_within, self._seconds, request)
            except BrokenProcessPool:  # a process was killed: start over
                self._stop()
                return self._running().submit(_settle_within, self._seconds, request)

    def close(self) -> None:
        """End the processes at once, whatever they compute."""
        with self._lock:
            self._closed = True
            self._stop()

    def _running(self) -> ProcessPoolExecutor:
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")
            theirs, self._alive = spawn.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(
                PROCESSES, mp_context=spawn, initializer=_live_with_parent, initargs=(theirs,)
            )
        return self._pool

    def _stop(self) -> None:
        if self._alive is not None:
            self._alive.close()  # every process of the pool waits for this, and exits
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)  # they are ending: leave no zombie behind
        self._pool = self._alive = None


def _settle_within(seconds: float, request: NoiseRequest) -> Calibration:
    """Settle `request` in the main thread of this process.

    Raises:
        InvalidSpec: as `settle` does, and after `seconds` of processor time: a busy machine refuses nothing.
    """

    def give_up(*_: object) -> NoReturn:
        detail = (
            f"the noise could not be calibrated within {seconds:g} s of computing; lower the number of "
            "steps, or raise delta or batch_size"
            + (", or raise noise_multiplier" if request.noise_multiplier else ", or give noise_multiplier")
        )
        raise InvalidSpec(detail, (Problem(pointer="/privacy", detail=detail, code="too_slow"),))

    signal.signal(signal.SIGPROF, give_up)
    try:
        # Again every second: Python drops an exception that meets it in a destructor.
        signal.setitimer(signal.ITIMER_PROF, seconds, 1.0)
        return settle(request)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _live_with_parent(alive: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the api, which ends us
    os.nice(NICENESS)

    def exit_with_parent() -> None:
        wait([alive])
        os._exit(0)

    threading.Thread(target=exit_with_parent, daemon=True).start()
