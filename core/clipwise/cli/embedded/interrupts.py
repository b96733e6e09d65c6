"""Ctrl-C, SIGTERM and a closed terminal, as one exception; and the stretch in which they must wait."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody wants this process to stop; no `except Exception` may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the block when a signal asks to stop, also where SIGINT was ignored."""

    def handle(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    yield from _handled_by(handle)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let no such signal into the block: what it does is short, and must be done to its end."""
    yield from _handled_by(signal.SIG_IGN)


def _handled_by(handler: Any) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
