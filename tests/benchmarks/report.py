"""The page of a run, in Markdown: method, bars, and the tables."""

import math
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from tests.benchmarks.engines import ENGINES
from tests.benchmarks.workloads import WORKLOADS

PACKAGES = ("torch", "opacus", "opake", "transformers")
ALLOCATOR = ("LD_PRELOAD", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""Settings of the C library's allocator that a run may be under; every engine has the same ones."""

METHOD = """\
# A clipped step beside an ordinary one

`make bench-engine` measures this and writes it; `make bench` does so after the service. A step is forward,
mean loss, backward, SGD update, gradients set to None. Every engine trains a module of its own with the
same weights on the same batch, clips to the median norm of the first rows, and adds no noise. Nothing is
dropped out. Modules are written so that peers can take them where that costs nothing
(`tests/benchmarks/architectures.py`); Opacus gets its own `DPLSTM` and `DPGRU`.

- **Exactness** comes first: each clipped step is checked against a loop over single rows, ours to a
  relative error of 1e-4 and peers to 1e-3 (or to three times what rounding alone does to the ordinary
  gradient of that workload, where a ReLU opens or closes by it). What is off is told as wrong and not
  measured.
- **Time**: all engines take turns in one process, in an order that is shuffled for each round. A ratio is
  the median over rounds of the engine's time over the ordinary step's of the same round. A short step is
  repeated within a round and the first of each turn left out; a step that takes over a second has fewer
  rounds.
- **Memory**: each engine and workload has a process of its own, forked from one that has imported its
  libraries and computed nothing. After construction and a first step, free memory is handed back
  (`malloc_trim`), the kernel's record of the peak is reset (`/proc/self/clear_refs`), and further steps are
  made: the figure is the peak of the resident set (`VmHWM`) minus what was resident before them. On CUDA it
  is `max_memory_allocated` minus `memory_allocated`. Memory that our engine keeps between steps, for
  instantiated gradients, was resident before and is added.
- **out** is a first step that needs more than the limit of memory or time; **refused** is an engine that
  raised.
"""

FASTDP = """\
fastDP is on no package registry and is not measured here. Its best mode, measured once on two CPU cores
against an ordinary step (other hardware and versions than above): MLP 1.2, small CNN 2.0, ResNet-18 3.2,
decoder 1.4, ViT 1.3 to 1.7, recommender 2.1 (patched; out of memory else); of an LSTM it leaves the weights
untrained.
"""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One engine on one workload.

    Attributes:
        reason: why there is no figure: "refused: ...", "out: ...", "wrong: ..."; "" if there is one.
        peak: bytes of a step above what is held between steps.
        error: relative error of the clipped gradient, where it was checked.
        remark: what is worth knowing of how it was computed.
        probe_seconds: of a step in a process of its own.
        seconds: of a step, the median over rounds.
        ratio: to the ordinary step, the median over rounds.
        rounds: how many.
    """

    reason: str = ""
    peak: int | None = None
    error: float | None = None
    remark: str = ""
    probe_seconds: float = 0.0
    seconds: float | None = None
    ratio: float | None = None
    rounds: int = 0


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a run found, and where."""

    cells: dict[tuple[str, str], Cell]
    workloads: list[str]
    engines: list[str]
    device: str
    threads: int
    versions: dict[str, str]
    seconds: float

    def time(self, workload: str, engine: str) -> float | None:
        """Return the time of a step over an ordinary one, or None if it was not measured."""
        cell = self.cells.get((workload, engine), Cell())
        return None if cell.reason else cell.ratio

    def memory(self, workload: str, engine: str) -> float | None:
        """Return the peak of a step over an ordinary one's, or None if it was not measured."""
        cell, base = (self.cells.get((workload, name), Cell()) for name in (engine, "ordinary"))
        return None if cell.reason or cell.peak is None or not base.peak else cell.peak / base.peak

    def best(self, workload: str, peers: Iterable[str]) -> float | None:
        """Return the shortest time of the engines of `peers`, over an ordinary step."""
        times = [self.time(workload, name) for name in self.engines if ENGINES[name].peer in tuple(peers)]
        return min((time for time in times if time is not None), default=None)


def shown(device: str) -> tuple[str, dict[str, str]]:
    """Return what the device is called, and the versions of what was measured. Run it in a child."""
    name = (
        torch.cuda.get_device_name() if device != "cpu" else f"{os.cpu_count()} cores, {platform.machine()}"
    )
    versions = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return name, versions


def tables(results: Results) -> str:
    """Return the tables alone, for a run that looks at a part."""
    stepping = [name for name in results.engines if ENGINES[name].beside == "ordinary"]
    return "\n\n".join(
        part
        for part in (
            _run(results),
            "## Time of a step, over an ordinary step",
            _steps(results, stepping, Results.time, "seconds"),
            "## Peak memory of a step, over an ordinary step",
            _steps(results, stepping, Results.memory, "peak"),
            _whole(results),
            _reasons(results),
        )
        if part
    )


def document(results: Results) -> str:
    """Return the page of a full run."""
    return f"{METHOD}\n{_bars(results)}\n\n{tables(results)}\n\n## fastDP\n\n{FASTDP}"


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Return the geometric mean of those that are there, or None of nothing."""
    logs = [math.log(value) for value in values if value is not None]
    return math.exp(sum(logs) / len(logs)) if logs else None


def _run(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    settings = [f"{name}={Path(os.environ[name]).name}" for name in ALLOCATOR if os.environ.get(name)]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {results.device}, {results.threads} threads; {versions}; "
        f"allocator {', '.join(settings) or 'as it comes'}; "
        f"load {os.getloadavg()[0]:.1f} at the end; {results.seconds:.0f} s for all of it"
    )


def _bars(results: Results) -> str:
    """Return what the project asks of the engine, and what was found."""
    plain = [name for name in results.workloads if not WORKLOADS[name].recurrent]
    recurrent = [name for name in results.workloads if WORKLOADS[name].recurrent]
    ours = {name: results.time(name, "ours") for name in results.workloads}
    over_opacus = [_quotient(results.best(name, ["opacus"]), ours[name]) for name in results.workloads]
    ahead = {
        name: _quotient(results.best(name, ["opacus", "opake", "vmap"]), ours[name])
        for name in results.workloads
    }
    behind = [WORKLOADS[name].title for name, value in ahead.items() if value is not None and value < 1]
    memory = [results.memory(name, "ours") for name in results.workloads]
    rows = [
        ("time, geometric mean without LSTM and GRU", "at most 1.2", geometric_mean, map(ours.get, plain)),
        ("time, most of these", "at most 1.4", _most, map(ours.get, plain)),
        ("time, LSTM and GRU, most", "at most 3", _most, map(ours.get, recurrent)),
        ("peak memory, geometric mean", "at most 1.3", geometric_mean, memory),
        ("Opacus's best mode over ours, geometric mean", "at least 2.5", geometric_mean, over_opacus),
        ("the fastest peer over ours, least", "above 1", _least, ahead.values()),
    ]
    lines = ["| what | bar | measured |", "|---|---|---|"]
    lines += [f"| {what} | {bar} | {_of(list(values), of)} |" for what, bar, of, values in rows]
    lines += ["", f"A peer is faster on: {', '.join(behind) or 'none'}."]
    return "\n".join(lines)


def _steps(
    results: Results,
    engines: list[str],
    ratio: Callable[[Results, str, str], float | None],
    absolute: str,
) -> str:
    """Return a table of ratios to the ordinary step, which is there as it is."""
    head = ["workload", *(ENGINES[name].title for name in engines)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for workload in results.workloads:
        figures = [
            _absolute(results.cells[workload, name], absolute)
            if name == "ordinary"
            else figure(ratio(results, workload, name), results.cells[workload, name].reason)
            for name in engines
        ]
        lines.append(f"| {WORKLOADS[workload].title} | {' | '.join(figures)} |")
    if len(results.workloads) > 1:
        plain = [name for name in results.workloads if not WORKLOADS[name].recurrent]
        for title, names in (
            ("geometric mean, all", results.workloads),
            ("geometric mean without LSTM and GRU", plain),
        ):
            means = ["" if name == "ordinary" else _mean(results, names, name, ratio) for name in engines]
            lines.append(f"| {title} | {' | '.join(means)} |")
    return "\n".join(lines)


def _mean(
    results: Results,
    workloads: list[str],
    engine: str,
    ratio: Callable[[Results, str, str], float | None],
) -> str:
    """Return a column's mean."""
    return _of([ratio(results, workload, engine) for workload in workloads], geometric_mean)


def _of(values: Sequence[float | None], function: Callable[[Iterable[float | None]], float | None]) -> str:
    """Return `function` of the values that are there, and how many they are where some are not."""
    count = sum(value is not None for value in values)
    text = figure(function(values))
    return text if count in (0, len(values)) else f"{text} (of {count})"


def _whole(results: Results) -> str:
    """Return the table of whole steps: batches drawn, gradient, noise, optimizer with momentum."""
    if not {"whole-ordinary", "whole-private"} <= set(results.engines):
        return ""
    lines = [
        "## A whole DP step, over a whole ordinary step",
        "",
        "DP: Poisson sampling, clipped gradient of a batch padded to one size, noise from the operating",
        "system's entropy, momentum, as the trainer makes it. Ordinary: a batch of a shuffled epoch,",
        "gradient, `torch.optim.SGD` with momentum.",
        "",
        "| workload | ordinary | DP | DP / ordinary |",
        "|---|---|---|---|",
    ]
    for workload in results.workloads:
        cells = [results.cells[workload, name] for name in ("whole-ordinary", "whole-private")]
        figures = [_absolute(cell, "seconds") for cell in cells]
        ratio = figure(results.time(workload, "whole-private"), cells[1].reason)
        lines.append(f"| {WORKLOADS[workload].title} | {' | '.join(figures)} | {ratio} |")
    mean = geometric_mean(results.time(workload, "whole-private") for workload in results.workloads)
    lines.append(f"| geometric mean | | | {figure(mean)} |")
    return "\n".join(lines)


def _reasons(results: Results) -> str:
    """Return why cells have no figure, those of one reason together; and remarks on others."""
    found: dict[str, list[str]] = {}
    for (workload, engine), cell in results.cells.items():
        text = cell.reason or cell.remark
        if text:
            found.setdefault(f"{ENGINES[engine].title}: {text}", []).append(workload)
    lines = [f"- {text} ({', '.join(sorted(names))})" for text, names in sorted(found.items())]
    return "\n".join(["## Cells without a figure, and remarks", "", *lines]) if lines else ""


def _absolute(cell: Cell, field: str) -> str:
    if cell.reason:
        return cell.reason.partition(":")[0]
    if field == "peak":
        return "" if cell.peak is None else f"{cell.peak / 2**20:.0f} MiB"
    return "" if cell.seconds is None else f"{1e3 * cell.seconds:.1f} ms"


def figure(value: float | None, reason: str = "") -> str:
    """Return a ratio as the tables have it, or in one word why there is none."""
    if reason:
        return reason.partition(":")[0]
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _quotient(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above / below


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)
