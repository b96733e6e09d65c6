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

from tests.benchmarks.engines import ENGINES, row_by_row
from tests.benchmarks.task import Prepared, Task

CHECK_RATE = 1e4
"""Learning rate of a checked step: the update outweighs the weights, and a difference shows all digits."""
OUR_TOLERANCE, PEER_TOLERANCE = 1e-4, 1e-3
SLOW_SECONDS = 4.0
"""A step that takes longer is measured once and not warmed up."""
BURST_SECONDS, MOST_STEPS = 0.1, 20


def reference(task: Task, threads: int, path: str) -> float:
    """Write the mean clipped gradient of a loop over rows to `path`; return the bound of it."""
    torch.set_num_threads(threads)
    bound, gradient = row_by_row(task.module(), task)
    save_file({name: value.cpu().contiguous() for name, value in gradient.items()}, path)
    return bound


def probed(task: Task, name: str, threads: int, path: str) -> dict[str, Any]:
    """Run an engine's first steps; return its peak memory in bytes, seconds and relative error.

    Args:
        task: with the reference's bound, and `CHECK_RATE`.
        name: of the engine.
        threads: that it may use.
        path: of the reference.
    """
    torch.set_num_threads(threads)
    engine, prepared = ENGINES[name], ENGINES[name].prepare(task)
    before = {key: value.clone() for key, value in prepared.module.state_dict().items()}
    _timed(prepared, 1, task.device)
    error = _relative_error(prepared, before, path) if engine.clips else None
    if error is not None and not error < (OUR_TOLERANCE if engine.peer is None else PEER_TOLERANCE):
        return {"wrong": error}
    _restore(prepared, before)
    held = _settled(task.device)
    seconds = _timed(prepared, 1, task.device)
    for _ in range(0 if seconds > 1 else 2):
        _restore(prepared, before)
        _timed(prepared, 1, task.device)
    return {"peak": _peak(task.device) - held, "seconds": seconds, "error": error}


def timed(
    task: Task, names: dict[str, float], threads: int, budget: float, fewest: int, most: int
) -> dict[str, Any]:
    """Return what each engine's step takes, and its ratios to what it is compared to, round by round.

    Args:
        task: what is computed.
        names: of the engines, with the seconds that a step took before; 0.0 if that is not known.
        threads: that they may use.
        budget: seconds for all of them together, roughly.
        fewest: rounds of every engine that is not slow.
        most: rounds of any.
    """
    torch.set_num_threads(threads)
    prepared = {name: ENGINES[name].prepare(task) for name in names}
    slow = {name for name, seconds in names.items() if seconds > SLOW_SECONDS}
    for name, one in prepared.items():
        if name not in slow:
            _timed(one, 2, task.device)
    steps = {}
    for name, one in prepared.items():
        seconds = names[name] if name in slow else _timed(one, 1, task.device)
        steps[name] = 1 if seconds > 1 else max(2, min(MOST_STEPS, round(BURST_SECONDS / seconds)))
    rows: dict[str, list[float]] = {name: [] for name in names}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    spent = dict.fromkeys(names, 0.0)
    share = budget / len(names)
    bases = {ENGINES[name].beside for name in names} & set(names)
    order, shuffle = list(names), random.Random(1)
    for number in range(most):
        open_ = [name for name in names if number < (1 if name in slow else fewest) or spent[name] < share]
        if not (set(open_) - bases or number < fewest):
            break
        found: dict[str, float] = {}
        shuffle.shuffle(order)
        for name in order:
            if name in open_ or name in bases:
                begun = time.perf_counter()
                found[name] = _timed(prepared[name], steps[name], task.device)
                spent[name] += time.perf_counter() - begun
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
    """Return how far the update is from the reference's, over all parameters together."""
    expected = load_file(path)
    after = prepared.module.state_dict()
    difference, size = 0.0, 0.0
    for name, value in expected.items():
        made = (before[name] - after[name]).cpu().double() / CHECK_RATE
        difference += float((made - value.double()).square().sum())
        size += float(value.double().square().sum())
    return (difference / size) ** 0.5


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
