"""The tables of a run, in Markdown."""

import math
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata

import torch

from tests.benchmarks.engines import ENGINES
from tests.benchmarks.workloads import WORKLOADS

PACKAGES = ("torch", "opacus", "opake", "transformers")


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


def shown(device: str) -> tuple[str, dict[str, str]]:
    """Return what the device is called, and the versions of what was measured. Run it in a child."""
    name = torch.cuda.get_device_name() if device != "cpu" else _processor()
    versions = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return name, versions


def document(results: Results) -> str:
    """Return the page of `results`."""
    stepping = [name for name in results.engines if ENGINES[name].beside == "ordinary"]
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    parts = [
        (
            f"{datetime.now(UTC):%Y-%m-%d}; {results.device}, {results.threads} threads; {versions}; "
            f"{results.seconds:.0f} s for all of it"
        ),
        "## Time of a step, over an ordinary step",
        _table(results, stepping, _time),
        "## Peak memory of a step, over an ordinary step",
        _table(results, stepping, _memory),
    ]
    return "\n\n".join(parts) + "\n"


def geometric_mean(values: Iterable[float]) -> float | None:
    """Return the geometric mean, or None of nothing."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None


def _table(results: Results, engines: list[str], figure: "Figure") -> str:  # noqa: F821
    head = ["workload", *(ENGINES[name].title for name in engines)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for workload in results.workloads:
        cells = [figure(results, workload, name) for name in engines]
        lines.append(f"| {WORKLOADS[workload].title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _time(results: Results, workload: str, engine: str) -> str:
    cell = results.cells[workload, engine]
    if cell.reason:
        return cell.reason.partition(":")[0]
    if engine == "ordinary":
        return f"{1e3 * (cell.seconds or 0):.1f} ms"
    return "" if cell.ratio is None else f"{cell.ratio:.2f}"


def _memory(results: Results, workload: str, engine: str) -> str:
    cell, base = results.cells[workload, engine], results.cells.get((workload, "ordinary"))
    if cell.reason or cell.peak is None:
        return cell.reason.partition(":")[0]
    if engine == "ordinary" or base is None or not base.peak:
        return f"{cell.peak / 2**20:.0f} MiB"
    return f"{cell.peak / base.peak:.2f}"


def _processor() -> str:
    return f"{platform.machine()}"
