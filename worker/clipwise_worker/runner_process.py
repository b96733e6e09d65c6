"""One runner: a process group of its own, a pipe for messages, and its output as lines."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, final

from clipwise_worker.messages import Stop

COMMAND = (sys.executable, "-m", "clipwise_worker.runner")
MESSAGE_BYTES = 4 * 2**20
LINE_BYTES = 8_192
DRAIN_SECONDS = 2.0


@final
class RunnerProcess:
    """A running runner.

    Args:
        command: what to run; `--messages FD FOLDER` is added.
        folder: the attempt's folder, with `attempt.json` in it.
        environment: the whole environment of the runner.
        on_end: called once, from another thread, when the process has ended.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], on_end: Callable[[], None]
    ) -> None:
        reading, writing = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [*command, "--messages", str(writing), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(writing,),
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._messages = os.fdopen(reading, "rb")
        self._readers: list[threading.Thread] = []
        threading.Thread(target=self._watch, args=(on_end,), name="runner-end", daemon=True).start()

    @property
    def pid(self) -> int:
        """The runner's process id, which is also its group's."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended: None while it runs, negative for a signal."""
        return self._process.returncode

    def read(self, on_message: Callable[[bytes], None], on_line: Callable[[str, str], None]) -> None:
        """Start to read: `on_message` gets each message, `on_line` the stream and text of each line."""

        def lines(stream: str, pipe: IO[bytes]) -> None:
            for line in _lines(pipe, LINE_BYTES):
                on_line(stream, line.decode("utf-8", "replace"))

        def messages() -> None:
            for message in _lines(self._messages, MESSAGE_BYTES):
                on_message(message)

        assert self._process.stdout is not None and self._process.stderr is not None  # noqa: S101, PT018
        self._readers = [
            threading.Thread(target=messages, name="runner-messages", daemon=True),
            threading.Thread(target=lines, args=("stdout", self._process.stdout), daemon=True),
            threading.Thread(target=lines, args=("stderr", self._process.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def ask_to_stop(self) -> None:
        """Tell the runner to finish its step and exit."""
        assert self._process.stdin is not None  # noqa: S101
        # A runner that has ended, or does not read, is stopped by a signal anyway.
        with suppress(OSError, ValueError):
            self._process.stdin.write(Stop().model_dump_json().encode() + b"\n")
            self._process.stdin.flush()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the runner and all of its children."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def end(self) -> None:
        """Leave nothing of the runner behind: kill its group, reap it, read its last words."""
        self.signal_group(signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + DRAIN_SECONDS
        for reader in self._readers:
            reader.join(max(deadline - time.monotonic(), 0.0))
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr, self._messages):
            # A reader that is still inside (a grandchild that left the group holds the pipe) keeps its pipe.
            if pipe is not None and not any(reader.is_alive() for reader in self._readers):
                with suppress(OSError):
                    pipe.close()

    def _watch(self, on_end: Callable[[], None]) -> None:
        self._process.wait()
        on_end()


def _lines(pipe: IO[bytes], limit: int) -> Iterator[bytes]:
    """Yield each line without its end; what goes beyond `limit` bytes of a line is passed over."""
    with suppress(OSError, ValueError):
        while line := pipe.readline(limit + 1):
            whole = line.endswith(b"\n")
            yield line.rstrip(b"\r\n") if len(line) <= limit else line[:limit]
            while not whole and (rest := pipe.readline(limit)):
                whole = rest.endswith(b"\n")
