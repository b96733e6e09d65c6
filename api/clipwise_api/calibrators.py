"""Processes that calibrate noise: spawned, without torch, and gone with the api."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait

from clipwise.privacy.calibration import Calibration, NoiseRequest, settle

PROCESSES = 2
NICENESS = 5


class Calibrators:
    """A pool of processes, started when the first calibration is asked for."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._alive: Connection | None = None
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, request: NoiseRequest) -> "Future[Calibration]":
        """Start one calibration."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the service stops")
            try:
                return self._running().submit(settle, request)
            except BrokenProcessPool:  # a process was killed: start over
                self._stop()
                return self._running().submit(settle, request)

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


def _live_with_parent(alive: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the api, which ends us
    os.nice(NICENESS)

    def exit_with_parent() -> None:
        wait([alive])
        os._exit(0)

    threading.Thread(target=exit_with_parent, daemon=True).start()
