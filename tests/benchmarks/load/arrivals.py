"""The load: requests at a constant rate, whether or not earlier ones were answered (an open loop).

`python -m tests.benchmarks.load.arrivals` reads a `Plan` as JSON from standard input and writes what
happened to standard output. A latency is counted from the moment at which its request was due, so that
waiting behind slow ones counts: a loop that waits for its answers would leave that out.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.load import wire
from tests.benchmarks.load.stack import KEY, LOAD_CORE

ROOT = Path(__file__).resolve().parents[3]
CONNECTIONS = 16
SPIN_SECONDS = 0.002
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to send; the requests take turns.

    Attributes:
        url: the server.
        requests: `[method, target, body]` of each.
        rate: requests a second.
        seconds: for how long.
        warm_up: requests sent one after the other before that, and not counted.
        core: where the load is made; None leaves it to the system.
    """

    url: str
    requests: Sequence[Sequence[Any]]
    rate: float
    seconds: float
    warm_up: int = 20
    core: int | None = LOAD_CORE


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What happened.

    Attributes:
        latencies: seconds from due to answered, in the order in which they were due.
        statuses: how often each status came; 0 stands for no answer at all.
        ids: the ids of what was made, warm-up included.
        lateness: how late, in seconds, the load itself sent its requests at worst.
    """

    latencies: Sequence[float]
    statuses: dict[str, int]
    ids: Sequence[str]
    lateness: float


def start(plan: Plan) -> subprocess.Popen[bytes]:
    """Make the load in a process of its own, which prints the outcome as JSON at its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.load.arrivals"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(plan)).encode())
    process.stdin.close()
    process.stdin = None
    return process


def run(plan: Plan) -> Outcome:
    """Make the load in a process of its own, and wait for its outcome."""
    process = start(plan)
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("the load could not be made")
    return Outcome(**json.loads(out))


async def _arrive(plan: Plan) -> Outcome:
    headers = {"Authorization": f"Bearer {KEY}"}
    messages = [
        wire.request(
            method, target, plan.url, json.dumps(body).encode() if body is not None else b"", headers
        )
        for method, target, body in plan.requests
    ]
    pool = wire.Pool(plan.url)
    await pool.open(CONNECTIONS)
    loop = asyncio.get_running_loop()
    ids: list[str] = []
    for index in range(plan.warm_up):
        _note(await pool.ask(messages[index % len(messages)]), ids)
    count = round(plan.rate * plan.seconds)
    latencies = [0.0] * count
    statuses: Counter[int] = Counter()
    lateness = 0.0

    async def one(index: int, due: float) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                answer = await pool.ask(messages[index % len(messages)])
        except (OSError, TimeoutError):
            statuses[0] += 1
        else:
            statuses[answer.status] += 1
            _note(answer, ids)
        latencies[index] = loop.time() - due

    gc.disable()
    begun = loop.time() + 0.1
    async with asyncio.TaskGroup() as group:
        for index in range(count):
            due = begun + index / plan.rate
            if (early := due - loop.time()) > SPIN_SECONDS:
                await asyncio.sleep(early - SPIN_SECONDS)
            while loop.time() < due:
                await asyncio.sleep(0)
            lateness = max(lateness, loop.time() - due)
            group.create_task(one(index, due))
    pool.close()
    return Outcome(
        latencies=latencies,
        statuses={str(status): number for status, number in statuses.items()},
        ids=ids,
        lateness=lateness,
    )


def _note(answer: wire.Answer, ids: list[str]) -> None:
    if answer.status == 201:
        ids.append(json.loads(answer.body)["id"])


def main() -> None:
    """Read a plan, follow it, say what happened."""
    plan = Plan(**json.load(sys.stdin))
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    json.dump(asdict(asyncio.run(_arrive(plan))), sys.stdout)


if __name__ == "__main__":
    main()
