"""The runner's side of the pipes: messages out, `stop` in, and no life without a supervisor."""

import ctypes
import os
import signal
import sys
import threading
from typing import final

from pydantic import ValidationError

from clipwise_worker.messages import Message, Stopped, to_runner

_PR_SET_PDEATHSIG = 1
SUPERVISOR_GONE = 3
"""Exit code when the supervisor's pipe has closed, or spoke what cannot be read."""


@final
class Channel:
    """Sends messages to the supervisor, one JSON object a line; from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send `message`; without anyone to read it the runner ends here."""
        line = message.model_dump_json().encode() + b"\n"
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except BrokenPipeError:
                os._exit(SUPERVISOR_GONE)


@final
class Control:
    """Listens to the supervisor on standard input, in a thread of its own.

    Until training begins nothing is worth finishing (importing torch alone takes a second), so a stop
    ends the process at once; from then on `stopping` says so.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._training = False

    def listen(self) -> None:
        """Start to listen."""
        threading.Thread(target=self._read, name="control", daemon=True).start()

    def stopping(self) -> bool:
        """Return whether the supervisor has said `stop`."""
        return self._stop.is_set()

    def begin_training(self) -> None:
        """Let a stop be answered by the trainer, between two steps, from now on."""
        with self._lock:
            self._training = True

    def _read(self) -> None:
        # Unbuffered and not `sys.stdin`: its lock would be held when the interpreter shuts down.
        for line in open(0, "rb", buffering=0, closefd=False):  # noqa: SIM115
            try:
                to_runner.validate_json(line)
            except ValidationError:
                print("the supervisor sent a message that cannot be read", file=sys.stderr, flush=True)
                os._exit(SUPERVISOR_GONE)
            self._stop.set()
            with self._lock:
                if not self._training:
                    self._channel.send(Stopped(step=0))
                    os._exit(0)
        os._exit(SUPERVISOR_GONE)


def die_with_parent() -> None:
    """Ask Linux to kill this process when the supervisor dies; the end of its pipe does so everywhere.

    The pipe alone would not do: a thread cannot act while a long computation holds the interpreter.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
