"""What a clipped step costs beside an ordinary one: `python -m tests.benchmarks.engine`, or `make bench`.

Each workload is measured in two ways. First every engine makes its first steps in a process of its own: there
its gradient is checked against a loop over rows, and its memory is taken. Then all that passed take turns in
one process, and time is compared round by round. A run of everything writes `docs/benchmarks/engine.md`,
and the README's table.

While working on the engine: `python -m tests.benchmarks.engine --workloads mlp,decoder --quick`.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.benchmarks.engines import ENGINES
from tests.benchmarks.isolation import Outcome, Work, outcome, outcomes
from tests.benchmarks.measuring import CHECK_RATE, probed, reference, timed
from tests.benchmarks.report import Cell, Results, document, shown, tables
from tests.benchmarks.summary import with_summary
from tests.benchmarks.task import Task
from tests.benchmarks.workloads import WORKLOADS

BEGUN = time.monotonic()
QUICK_ENGINES = ("ordinary", "ours")
README = Path("README.md")
DOCUMENTS = {"cpu": Path("docs/benchmarks/engine.md"), "cuda": Path("docs/benchmarks/engine-cuda.md")}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    threads: int
    device: str
    memory: int | None
    parallel: int
    budget: float
    fewest: int
    probe_seconds: float = 120.0


def main() -> None:
    """Measure what the arguments name, and print or write the tables."""
    arguments = _arguments()
    workloads = _chosen(arguments.workloads, WORKLOADS)
    default = [*QUICK_ENGINES, "vmap"] if arguments.quick else list(ENGINES)
    engines = _chosen(arguments.engines, ENGINES) if arguments.engines else default
    plan = Plan(
        threads=arguments.threads,
        device=arguments.device,
        memory=int(arguments.memory_limit * 2**30) if arguments.device == "cpu" else None,
        parallel=max(1, (os.cpu_count() or 1) // arguments.threads) if arguments.device == "cpu" else 1,
        budget=0.0 if arguments.untimed else 4.0 if arguments.quick else arguments.seconds,
        fewest=3 if arguments.quick else 7,
    )
    _import_ahead(engines)
    with tempfile.TemporaryDirectory(prefix="clipwise-bench-") as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        cells = _measured(workloads, engines, plan, Path(folder))
        device, versions = outcome(
            Work(name="device", function=shown, arguments=(plan.device,), memory=None, seconds=60)
        ).value
    results = Results(
        cells=cells,
        workloads=workloads,
        engines=engines,
        device=device,
        threads=plan.threads,
        versions=versions,
        seconds=time.monotonic() - BEGUN,
    )
    if not (arguments.quick or arguments.untimed or arguments.workloads or arguments.engines):
        DOCUMENTS[plan.device].write_text(document(results), encoding="utf-8")
        if plan.device == "cpu":
            README.write_text(with_summary(README.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(tables(results))


def _measured(
    workloads: list[str], engines: list[str], plan: Plan, folder: Path
) -> dict[tuple[str, str], Cell]:
    tasks, rounding = _references(workloads, plan, folder)
    cells: dict[tuple[str, str], Cell] = {}
    # The longest first, so that nothing waits for one straggler at the end.
    probes = [
        Work(
            name=(workload, engine),
            function=probed,
            arguments=(
                replace(task, learning_rate=CHECK_RATE),
                engine,
                plan.threads,
                _file(folder, workload),
                rounding[workload],
            ),
            memory=plan.memory,
            seconds=plan.probe_seconds,
        )
        for engine in sorted(engines, key=lambda one: one != "compiled")
        for workload, task in sorted(tasks.items(), key=lambda pair: pair[0] != "recommender")
    ]
    for name, found in outcomes(probes, plan.parallel):
        cells[name] = _cell(found)
        _say(f"{name[0]}, {name[1]}: {cells[name].reason or cells[name].remark or 'passed'}")
    for workload, task in tasks.items() if plan.budget else ():
        passed = {
            engine: cells[workload, engine].probe_seconds
            for engine in engines
            if not cells[workload, engine].reason
        }
        if not passed:
            continue
        found = outcome(
            Work(
                name=workload,
                function=timed,
                arguments=(task, passed, plan.threads, plan.budget, plan.fewest),
                memory=None,
                seconds=20 * plan.budget + 300,
            )
        )
        for engine in passed:
            cell = cells[workload, engine]
            cells[workload, engine] = (
                replace(cell, reason=found.reason) if found.reason else replace(cell, **found.value[engine])
            )
        _say(f"{workload}: {found.reason or 'timed'}")
    return cells


def _references(workloads: list[str], plan: Plan, folder: Path) -> tuple[dict[str, Task], dict[str, float]]:
    """Have the loop over rows write its gradients; return tasks with its bounds, and the rounding of each."""
    rounding = {}
    tasks = {name: Task(workload=name, rows=WORKLOADS[name].rows, device=plan.device) for name in workloads}
    works = [
        Work(
            name=name,
            function=reference,
            arguments=(task, plan.threads, _file(folder, name)),
            memory=plan.memory,
            seconds=plan.probe_seconds,
        )
        for name, task in tasks.items()
    ]
    for name, found in outcomes(works, plan.parallel):
        if found.reason:
            raise SystemExit(f"the loop over rows of '{name}' failed: {found.reason}")
        bound, rounding[name] = found.value
        tasks[name] = replace(tasks[name], max_norm=bound)
    return tasks, rounding


def _cell(found: Outcome) -> Cell:
    if found.reason:
        return Cell(reason=found.reason)
    if "wrong" in found.value:
        return Cell(reason=f"wrong: its gradient is off by {found.value['wrong']:.2g}")
    return Cell(**found.value)


def _file(folder: Path, workload: str) -> str:
    return str(folder / f"{workload}.safetensors")


def _say(text: str) -> None:
    print(f"{time.monotonic() - BEGUN:4.0f} s: {text}", file=sys.stderr, flush=True)


def _import_ahead(engines: Iterable[str]) -> None:
    """Import what children would, before they are forked; nothing here may compute."""
    peers = {ENGINES[engine].peer for engine in engines}
    with contextlib.suppress(ImportError):
        import transformers.models.bert  # noqa: F401
    if "opacus" in peers:
        with contextlib.suppress(ImportError):
            import opacus  # noqa: F401
    if "opake" in peers:
        with contextlib.suppress(ImportError):
            import opake.dpsgd.clipping  # noqa: F401


def _chosen(names: str | None, table: Mapping[str, object]) -> list[str]:
    chosen = names.split(",") if names else list(table)
    for name in chosen:
        if name not in table:
            raise SystemExit(f"'{name}' is unknown; there are {', '.join(table)}")
    return chosen


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.engine", description=__doc__)
    parser.add_argument("--workloads", help=f"of {','.join(WORKLOADS)}")
    parser.add_argument("--engines", help=f"of {','.join(ENGINES)}")
    parser.add_argument("--quick", action="store_true", help="few rounds, and few engines unless named")
    parser.add_argument("--untimed", action="store_true", help="gradients and memory alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=list(DOCUMENTS), default="cpu")
    parser.add_argument("--seconds", type=float, default=20.0, help="for the rounds of one workload, roughly")
    parser.add_argument("--memory-limit", type=float, default=8.0, help="of a first step, in GiB")
    return parser.parse_args()


if __name__ == "__main__":
    main()
