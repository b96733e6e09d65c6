"""One runner: a process group of its own, a pipe for messages, and its output as lines."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, final

from clipwise_worker.messages import Begin, Message, Stop

COMMAND = (sys.executable, "-m", "clipwise_worker.runner")
MESSAGE_BYTES = 4 * 2**20
LINE_BYTES = 8_192
DRAIN_SECONDS = 2.0


@final
class RunnerProcess:
    """A running runner. The thread that makes it must live as long: Linux kills the runner with that thread.

    Args:
        command: what to run; `--messages FD` is added, and the folder if there is one.
        environment: the whole environment of the runner.
        cwd: where it starts.
        folder: the attempt's folder, with `attempt.json` in it; None for a runner that waits for `begin`.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], cwd: Path, folder: Path | None = None
    ) -> None:
        reading, writing = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [*command, "--messages", str(writing), *([] if folder is None else [str(folder)])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(writing,),
                cwd=cwd,
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
        self._writing = threading.Lock()

    @property
    def pid(self) -> int:
        """The runner's process id, which is also its group's."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended: None while it runs, negative for a signal."""
        return self._process.poll()

    def limit_memory(self, size: int) -> None:
        """Let the runner allocate so many bytes at most, where the system can say so: beyond is an error."""
        if sys.platform == "linux":
            with suppress(ProcessLookupError):
                resource.prlimit(self.pid, resource.RLIMIT_DATA, (size, size))

    def begin(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Tell a runner that waits where its attempt lies, and what else is to be in its environment."""
        self.send(Begin(folder=str(folder), environment=dict(environment)))

    def read(
        self,
        on_message: Callable[[bytes], None],
        on_line: Callable[[str, str], None],
        on_end: Callable[[], None],
    ) -> None:
        """Start to read: `on_message` gets each message, `on_line` the stream and text of each line.

        `on_end` is called once, from another thread, when the process has ended.
        """

        def lines(stream: str, pipe: IO[bytes]) -> None:
            for line in _lines(pipe, LINE_BYTES):
                on_line(stream, line.decode("utf-8", "replace"))

        def messages() -> None:
            for message in _lines(self._messages, MESSAGE_BYTES):
                on_message(message)

        def watch() -> None:
            self._process.wait()
            on_end()

        assert self._process.stdout is not None and self._process.stderr is not None  # noqa: S101, PT018
        self._readers = [
            threading.Thread(target=messages, name="runner-messages", daemon=True),
            threading.Thread(target=lines, args=("stdout", self._process.stdout), daemon=True),
            threading.Thread(target=lines, args=("stderr", self._process.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        threading.Thread(target=watch, name="runner-end", daemon=True).start()

    def send(self, message: Message) -> None:
        """Send a message to the runner; one that has ended, or does not read, does not hear it."""
        assert self._process.stdin is not None  # noqa: S101
        with suppress(OSError, ValueError), self._writing:
            self._process.stdin.write(message.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()

    def ask_to_stop(self, *, keep: bool) -> None:
        """Tell the runner to finish its step and exit; with `keep`, to write a checkpoint before."""
        self.send(Stop(keep=keep))

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


def _lines(pipe: IO[bytes], limit: int) -> Iterator[bytes]:
    """Yield each line without its end; what goes beyond `limit` bytes of a line is passed over."""
    with suppress(OSError, ValueError):
        while line := pipe.readline(limit + 1):
            whole = line.endswith(b"\n")
            yield line.rstrip(b"\r\n") if len(line) <= limit else line[:limit]
            while not whole and (rest := pipe.readline(limit)):
                whole = rest.endswith(b"\n")
