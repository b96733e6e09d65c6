"""Time, memory and correctness of engines' steps. Every function here runs in a child of its own."""

import ctypes
import gc
import random
import re
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.benchmarks.engines import ENGINES
from tests.benchmarks.row_by_row import relative_error, row_by_row
from tests.benchmarks.task import Prepared, Task

CHECK_RATE = 1e4
"""Learning rate of a checked step: the update outweighs the weights, and a difference shows all digits."""
OUR_TOLERANCE, PEER_TOLERANCE = 1e-4, 1e-3
BURST_SECONDS, LONG_SECONDS, SLOW_SECONDS = 0.1, 0.3, 1.0
"""Of the steps that follow each other in a round; of a step that stands alone; of one without a warm-up."""
MOST_STEPS, MOST_ROUNDS = 20, 25


def reference(task: Task, threads: int, path: str) -> tuple[float, float]:
    """Write the mean clipped gradient of a loop over rows to `path`.

    Returns:
        The bound that it is clipped to, and how far the ordinary gradient of a batch is from a loop over its
        rows: a ReLU that rounding opens or closes is no fault of anybody.
    """
    torch.set_num_threads(threads)
    bound, gradient, rounding = row_by_row(task)
    save_file({name: value.cpu().contiguous() for name, value in gradient.items()}, path)
    return bound, rounding


def probed(task: Task, name: str, threads: int, path: str, rounding: float) -> dict[str, Any]:
    """Run an engine's first steps; return its peak memory in bytes, seconds and relative error.

    Args:
        task: with the reference's bound, and `CHECK_RATE`.
        name: of the engine.
        threads: that it may use.
        path: of the reference.
        rounding: relative error that the workload has without clipping.
    """
    torch.set_num_threads(threads)
    engine, prepared = ENGINES[name], ENGINES[name].prepare(task)
    before = {key: value.clone() for key, value in prepared.module.state_dict().items()}
    _timed(prepared, 1, task.device)
    error = _relative_error(prepared, before, path) if engine.clips else None
    tolerance = max(3 * rounding, OUR_TOLERANCE if engine.peer is None else PEER_TOLERANCE)
    if error is not None and not error < tolerance:
        return {"wrong": error}
    _restore(prepared, before)
    held = _settled(task.device)
    seconds = _timed(prepared, 1, task.device)
    for _ in range(0 if seconds > LONG_SECONDS else 2):
        _restore(prepared, before)
        _timed(prepared, 1, task.device)
    peak = _peak(task.device) - held + prepared.held()
    return {"peak": peak, "probe_seconds": seconds, "error": error, "remark": prepared.remark()}


def timed(task: Task, names: dict[str, float], threads: int, budget: float, fewest: int) -> dict[str, Any]:
    """Return what each engine's step takes, and its ratio to what it is compared to, round by round.

    Args:
        task: what is computed.
        names: of the engines, with the seconds that a step took in a process of its own.
        threads: that they may use.
        budget: seconds for all of them together, roughly.
        fewest: rounds of ours and of what others are compared to.
    """
    torch.set_num_threads(threads)
    prepared = {name: ENGINES[name].prepare(task) for name in names}
    for name, seconds in names.items():
        if seconds < SLOW_SECONDS:
            _timed(prepared[name], 1 if seconds > BURST_SECONDS else 3, task.device)
    steps = {name: _steps(seconds) for name, seconds in names.items()}
    bases = {ENGINES[name].beside for name in names} & set(names)
    share = budget / len(names)
    rounds = {
        name: max(fewest, _rounds(seconds * steps[name], 2 * share))
        if name in ("ours", *bases)
        else _rounds(seconds * steps[name], share)
        for name, seconds in names.items()
    }
    for base in bases:  # each engine is compared in its own rounds
        rounds[base] = max(count for name, count in rounds.items() if ENGINES[name].beside == base)
    rows: dict[str, list[float]] = {name: [] for name in names}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    order, shuffle = list(names), random.Random(1)
    for number in range(max(rounds.values())):
        shuffle.shuffle(order)
        found = {
            name: _timed(prepared[name], steps[name], task.device) for name in order if number < rounds[name]
        }
        for name, seconds in found.items():
            rows[name].append(seconds)
            if ENGINES[name].beside in found:
                ratios[name].append(seconds / found[ENGINES[name].beside])
    return {
        name: {
            "seconds": statistics.median(rows[name]),
            "ratio": statistics.median(ratios[name]) if ratios[name] else None,
            "rounds": len(rows[name]),
        }
        for name in names
    }


def _steps(seconds: float) -> int:
    """Return how many steps of so many seconds follow each other; of several, the first is left out."""
    return 1 if seconds > LONG_SECONDS else max(2, min(MOST_STEPS, round(BURST_SECONDS / seconds)))


def _rounds(seconds: float, share: float) -> int:
    """Return how many rounds of so many seconds an engine takes part in, where nobody asks for more."""
    if seconds >= SLOW_SECONDS:
        return 1 if seconds > 4 * SLOW_SECONDS else 2
    return max(3, min(MOST_ROUNDS, round(share / seconds)))


def _timed(prepared: Prepared, steps: int, device: str) -> float:
    """Return the median seconds of so many steps, the first of several left out."""
    seconds = []
    for _ in range(steps):
        _wait_for(device)
        begun = time.perf_counter()
        prepared.step()
        _wait_for(device)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:] or seconds)


def _wait_for(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


@torch.no_grad()
def _restore(prepared: Prepared, before: dict[str, torch.Tensor]) -> None:
    for key, value in prepared.module.state_dict().items():
        value.copy_(before[key])


@torch.no_grad()
def _relative_error(prepared: Prepared, before: dict[str, torch.Tensor], path: str) -> float:
    """Return how far the update is from the reference's."""
    expected, after = load_file(path), prepared.module.state_dict()
    made = {name: (before[name] - after[name]).cpu() / CHECK_RATE for name in expected}
    return relative_error(made, expected)


def _settled(device: str) -> int:
    """Give back what nothing holds, forget the peak so far, and return the bytes that are held."""
    gc.collect()
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    # Without this, pages that the first steps freed would count as held, and never as used.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _peak(device: str) -> int:
    return int(torch.cuda.max_memory_allocated()) if device != "cpu" else _status("VmHWM")


def _status(field: str) -> int:
    """Return a figure of this process in bytes, as Linux keeps it."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])
