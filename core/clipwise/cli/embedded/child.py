"""A child process that cannot outlive its parent, with a log file that cannot fill the disk."""

import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import final

LARGEST_LOG_BYTES = 10 * 2**20
PR_SET_PDEATHSIG = 1


@final
class Child:
    """One process of the service: `python -m module`, in a session of its own.

    Args:
        name: what people call it.
        module: what it runs.
        log: file that its output is appended to.
        environment: its whole environment.
    """

    def __init__(self, name: str, module: str, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.module = module
        self.log = log
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def exit_code(self) -> int | None:
        """Its exit code, None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it. Only from the main thread: the system ends it when the thread that started it ends."""
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and package
                [sys.executable, "-m", self.module],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                umask=0o077,
                preexec_fn=dying_with_parent(),  # there are no threads here
            )

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it and all that is left of its process group, at once."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def last_lines(self, count: int = 12) -> list[str]:
        """Return the end of what it has printed since it was last started."""
        with suppress(OSError), self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(min(self._log_start, size))
            lines = deque(file, maxlen=count)
            return [line.decode("utf-8", errors="replace").rstrip() for line in lines]
        return []

    def limit_log(self) -> None:
        """Move a log that has grown large aside, replacing the one before."""
        with suppress(OSError):
            if self.log.stat().st_size > LARGEST_LOG_BYTES:
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
                # The child appends through its own descriptor: the file is emptied, not replaced.
                os.truncate(self.log, 0)
                self._log_start = 0


def dying_with_parent() -> Callable[[], None] | None:
    """Return what a new process runs before its program, so that the system kills it with its parent.

    Linux only. Elsewhere a killed `clipwise up` leaves its children behind.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return prepare
