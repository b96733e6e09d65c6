"""Runners that are ready before there is an attempt: their imports are done, and each serves one attempt."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import final

from clipwise_worker.runner_process import COMMAND, RunnerProcess

log = logging.getLogger(__name__)

FAILED_STARTS = 3
"""So many runners that end while they get ready, and no more are made: something is wrong with all."""
PAUSE_SECONDS = 30.0
"""Between two tries where the system cannot start a process."""


@final
class Nursery:
    """Keeps runners ready, up to the number that is wanted, and gives them away.

    One thread makes all of them and lives as long as the worker: Linux kills a runner with the thread that
    made it.

    Args:
        environment: of every runner.
        cwd: where it starts.
        wanted: how many are to be ready now; asked again whenever one is taken or a slot becomes free.
        command: the runner's command.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        cwd: Path,
        wanted: Callable[[], int],
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._environment = dict(environment)
        self._cwd = cwd
        self._wanted = wanted
        self._command = command
        self._ready: deque[RunnerProcess] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="nursery", daemon=True)

    def start(self) -> None:
        """Begin to make runners."""
        self._thread.start()

    def stop(self) -> None:
        """End the runners that nobody has taken, and make no more; those that were taken go on."""
        with self._changed:
            self._stopping = True
            left = list(self._ready)
            self._ready.clear()
            self._changed.notify_all()
        for runner in left:
            runner.end()

    def take(self) -> RunnerProcess | None:
        """Return a runner that waits, or None if there is none."""
        with self._changed:
            while self._ready:
                runner = self._ready.popleft()
                if runner.returncode is None:
                    return runner
                self._bury(runner)
        return None

    def look(self) -> None:
        """Make runners if more are wanted by now."""
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_to_make, timeout=5.0)
                if self._stopping:
                    break
                dead = [runner for runner in self._ready if runner.returncode is not None]
                for runner in dead:
                    self._ready.remove(runner)
                    self._bury(runner)
                if not self._has_to_make():
                    continue
            try:
                runner = RunnerProcess(self._command, self._environment, self._cwd)
            except OSError as error:
                # Nothing is wrong with the runner: there are no more processes to be had just now, say.
                log.warning("no runner can be started ahead: %s", error.strerror)
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, timeout=PAUSE_SECONDS)
                continue
            with self._changed:
                if self._stopping:
                    runner.end()
                    break
                self._ready.append(runner)
        # Runners that were taken may still be at work, and would be killed with this thread.
        threading.Event().wait()

    def _has_to_make(self) -> bool:
        return self._stopping or (self._failures < FAILED_STARTS and len(self._ready) < self._wanted())

    def _bury(self, runner: RunnerProcess) -> None:
        self._failures += 1
        log.warning("a runner ended while it waited, with exit code %s", runner.returncode)
        runner.end()
