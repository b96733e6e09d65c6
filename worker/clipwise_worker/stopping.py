"""Why an attempt is stopped from outside of its runner."""

from enum import Enum, auto


class Stopping(Enum):
    """The first reason counts, but a lost job overrules every other."""

    CANCELLED = auto()
    MAX_RUNTIME = auto()
    WORKER_STOPS = auto()
    BROKEN = auto()
    LOST = auto()
