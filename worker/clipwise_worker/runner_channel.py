"""The runner's side of the pipes: messages out, wishes and answers in, and no life without a supervisor."""

import ctypes
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import final

from pydantic import ValidationError

from clipwise_worker.messages import Begin, Granted, Lease, Message, Stop, Stopped, Stored, to_runner

_PR_SET_PDEATHSIG = 1
SHORTEST_ANSWER_SECONDS = 60.0
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


class NoNews(Exception):
    """The supervisor has not answered for as long as a runner waits."""


@final
class Control:
    """Listens to the supervisor on standard input, in a thread of its own.

    Until training begins nothing is worth finishing (importing torch alone takes a second), so a stop
    ends the process at once; from then on `stopping` says so.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._news = threading.Condition()
        self._training = False
        self._stop: Stop | None = None
        self._deadline = math.inf
        self._granted = -1
        self._stored: dict[int, bool] = {}
        self._begin: Begin | None = None
        self.wait_seconds = 900.0

    def listen(self) -> None:
        """Start to listen."""
        threading.Thread(target=self._read, name="control", daemon=True).start()

    def stopping(self) -> bool:
        """Return whether the supervisor has said `stop`."""
        return self._stop is not None

    @property
    def keeps(self) -> bool:
        """Whether a checkpoint is wanted before the end."""
        return self._stop is not None and self._stop.keep

    @property
    def lease_is_over(self) -> bool:
        """Whether the job may be somebody else's by now."""
        return time.monotonic() > self._deadline

    def begin_training(self) -> None:
        """Let a stop be answered by the trainer, between two steps, from now on."""
        with self._news:
            self._training = True

    def wait_for_begin(self) -> Begin:
        """Wait for the attempt, for as long as the supervisor lives."""
        with self._news:
            self._news.wait_for(lambda: self._begin is not None)
        assert self._begin is not None  # noqa: S101 - that was waited for
        return self._begin

    def wait_for_lease(self) -> None:
        """Wait until the job is certainly this attempt's again, or it is told to stop.

        Raises:
            NoNews: if neither comes.
        """
        self._wait(lambda: not self.lease_is_over or self.stopping(), self.wait_seconds)

    def wait_for_grant(self, charged_steps: int) -> bool:
        """Wait until so many noisy steps are paid for; False if the attempt is told to stop meanwhile.

        Raises:
            NoNews: if neither comes.
        """
        self._wait(lambda: self._granted >= charged_steps or self.stopping())
        return self._granted >= charged_steps

    def wait_for_stored(self, step: int) -> bool:
        """Wait for what became of a checkpoint; False if it could not be stored, or nobody wants it any more.

        Raises:
            NoNews: if no answer comes.
        """
        self._wait(lambda: step in self._stored or (self.stopping() and not self.keeps))
        return self._stored.pop(step, False)

    def pause(self, seconds: float) -> None:
        """Wait for so long, or until a stop."""
        with self._news:
            self._news.wait_for(self.stopping, seconds)

    def _wait(self, happened: Callable[[], bool], seconds: float | None = None) -> None:
        # An answer may take its time however little patience there is with a lease that is over.
        seconds = max(self.wait_seconds, SHORTEST_ANSWER_SECONDS) if seconds is None else seconds
        with self._news:
            if not self._news.wait_for(happened, seconds):
                raise NoNews(f"the supervisor has not answered for {seconds:g} s")

    def _read(self) -> None:
        # Unbuffered and not `sys.stdin`: its lock would be held when the interpreter shuts down.
        for line in open(0, "rb", buffering=0, closefd=False):  # noqa: SIM115
            try:
                message = to_runner.validate_json(line)
            except ValidationError:
                print("the supervisor sent a message that cannot be read", file=sys.stderr, flush=True)
                os._exit(SUPERVISOR_GONE)
            with self._news:
                self._take(message)
                self._news.notify_all()
        os._exit(SUPERVISOR_GONE)

    def _take(self, message: Stop | Lease | Granted | Stored | Begin) -> None:
        match message:
            case Stop():
                # What is to end at once does not wait for a checkpoint any more.
                if self._stop is None or not message.keep:
                    self._stop = message
                if not self._training:
                    self._channel.send(Stopped(step=0))
                    os._exit(0)
            case Lease():
                self._deadline = time.monotonic() + message.seconds
            case Granted():
                self._granted = max(self._granted, message.charged_steps)
            case Stored():
                self._stored[message.step] = message.ok
            case Begin():
                self._begin = message


def die_with_parent() -> None:
    """Ask Linux to kill this process when the supervisor dies; the end of its pipe does so everywhere.

    The pipe alone would not do: a thread cannot act while a long computation holds the interpreter.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
