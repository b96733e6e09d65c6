"""What one worker does with the metrics of its attempt: `python -m tests.benchmarks.load.telling`.

Reads from standard input a line of JSON (the database, the attempt, for how many seconds), says `ready`,
waits for another line, and then takes a runner's messages as fast as it can: each is parsed and handed to
the reporter, which writes batches under the attempt's token. Prints how many points are in the database
and how long that took, until the last one was committed.
"""

import json
import math
import sys
import time
from typing import Any

from clipwise.store.attempts import Attempt
from clipwise.store.sessions import connect
from clipwise_worker.messages import Measured
from clipwise_worker.reporter import Reporter

NAMES = tuple(f"train/metric_{number}" for number in range(10))
STEPS = 200
PATIENCE_SECONDS = 300.0


def value(name: int, step: int) -> float:
    """Return a number that is not short in decimal."""
    return math.sin(step * 0.01 + name) / 3 + name


def lines(first: int) -> list[str]:
    """Return what a runner says of some steps."""
    return [
        Measured(
            step=step,
            values={name: value(number, step) for number, name in enumerate(NAMES)},
            released=False,
        ).model_dump_json()
        for step in range(first, first + STEPS)
    ]


def main() -> None:
    """Tell metrics for so many seconds."""
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    engine = connect(given["database"])
    lost: list[str] = []
    reporter = Reporter(
        engine, Attempt(**given["attempt"]), on_lost=lambda: lost.append("lost"), on_failed=lost.append
    )
    first = given["first"]
    waiting = [lines(first + STEPS * number) for number in range(10)]
    print("ready", flush=True)
    sys.stdin.readline()
    begun, told = time.monotonic(), 0
    while time.monotonic() < begun + given["seconds"]:
        # Runners say it in processes of their own: making the next lines is left out of the time.
        paused = time.monotonic()
        if not waiting:
            waiting = [lines(first + STEPS * (told // STEPS + number)) for number in range(10)]
        begun += time.monotonic() - paused
        for line in waiting.pop(0):
            reporter.metrics(Measured.model_validate_json(line))
            told += 1
    reporter.close(PATIENCE_SECONDS)
    seconds = time.monotonic() - begun
    engine.dispose()
    if lost:
        raise RuntimeError(lost[0])
    print(json.dumps({"points": told * len(NAMES), "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
