"""The page of a run, in Markdown: how it was measured, the bars, and the tables."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from tests.benchmarks.load import seeding
from tests.benchmarks.load.arrivals import Outcome
from tests.benchmarks.load.charting import RATE as CHARTS_A_SECOND
from tests.benchmarks.load.charting import Chart
from tests.benchmarks.load.figures import milliseconds, p50, p99, table
from tests.benchmarks.load.ingesting import ATTEMPTS, METRICS_OF_A_REQUEST, Rates
from tests.benchmarks.load.listing import RATE as LISTS_A_SECOND
from tests.benchmarks.load.listing import Listed
from tests.benchmarks.load.streaming import EVENTS_A_SECOND, GETS_A_SECOND, Streamed
from tests.benchmarks.load.submitting import RATE, Run

SUBMISSION_BAR, LIST_BAR, CHART_BAR, RATIO_BAR = 0.050, 0.050, 0.150, 5.0
PACKAGES = ("fastapi", "uvicorn", "SQLAlchemy", "psycopg")

METHOD = f"""\
# The api under load

`make bench-api` measures this and writes it. PostgreSQL (with the settings that `initdb` gives it, and every
commit on the disk), Redis and one api process (`python -m clipwise_api`, with nothing but environment
variables) run on this machine, on all cores but one; the load is made by another process, alone on the last
core. {seeding.WORKERS} living workers are in the database, none of which takes a job.

- **An open loop**: requests are sent at a constant rate, whether or not earlier ones were answered, and a
  latency counts from the moment at which its request was due. Waiting behind slow requests counts, which a
  loop that waits for its answers leaves out. p99 is the nearest rank.
- **Submissions**: two specifications in turns, one without privacy and one with a target epsilon whose noise
  was calibrated before. After each run every job that was answered for must be in the database once, queued,
  with its two events, and the outbox empty. In turns with it, under the same load: a bare FastAPI application
  with the same uvicorn, driver and database that stores the same body by one INSERT.
- **Lists**: a year of jobs over four data sets, with plans, tags and names; pages of 20.
- **Metrics**: {ATTEMPTS} attempts in as many processes do what a worker does: parse a runner's messages, hand
  them to the reporter, which writes batches under the attempt's token. MLflow's tracking server runs with as
  many processes over the same PostgreSQL and gets batches of {METRICS_OF_A_REQUEST:,} metrics, the most
  that it takes, by its REST api, on connections that are kept, as JSON that was made beforehand. All of this
  shares all cores, in turns.
- **Charts**: one metric of one job, written as a worker writes it; a request every
  {1 / CHARTS_A_SECOND:g} s, so that nothing is warm but the database's pages.
- **Streams**: each of another job, all held by one process. Every job has events in turns,
  {EVENTS_A_SECOND:g} a second; a delay counts from before the event's transaction to its arrival.
"""


@dataclass(kw_only=True)
class Results:
    """What a run found; null is what it did not look at."""

    versions: dict[str, str] = field(default_factory=dict)
    load_before: float = 0.0
    submissions: tuple[Sequence[Run], Sequence[Run]] | None = None
    seconds: float = 0.0
    lists: Sequence[Listed] | None = None
    jobs: int = 0
    rates: Rates | None = None
    charts: Sequence[Chart] | None = None
    streams: Streamed | None = None
    streams_count: int = 0


def document(results: Results) -> str:
    """Return the page."""
    return f"{METHOD}\n{tables(results)}"


def tables(results: Results) -> str:
    """Return what was found, without the method."""
    parts = [
        _run(results),
        _bars(results),
        *_submissions(results),
        *_lists(results),
        *_metrics(results),
        *_charts(results),
        *_streams(results),
    ]
    return "\n\n".join(parts) + "\n"


def _run(results: Results) -> str:
    versions = {"Python": platform.python_version(), **results.versions}
    versions |= {package: metadata.version(package) for package in PACKAGES}
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({_processor()}); {named}; "
        f"load of the machine {results.load_before:.1f} before and {os.getloadavg()[0]:.1f} at the end."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _bars(results: Results) -> str:
    rows: list[tuple[str, str, str]] = []
    if results.submissions is not None:
        ours, bare = results.submissions
        best = min(p99(run.outcome.latencies) for run in ours)
        beside = min(p99(run.outcome.latencies) for run in bare)
        rows += [
            (
                f"{RATE:g} submissions a second for {results.seconds:g} s, p99, best of {len(ours)} runs",
                f"under {milliseconds(SUBMISSION_BAR)}",
                f"{milliseconds(best)} (bare INSERT: {milliseconds(beside)})",
            ),
            (
                "submissions lost or doubled",
                "none",
                "; ".join(run.lost for run in ours if run.lost) or "none",
            ),
        ]
    if results.lists is not None:
        worst = max(results.lists, key=lambda listed: p99(listed.outcome.latencies))
        rows.append(
            (
                f"lists over {results.jobs:,} jobs, the largest p99",
                f"under {milliseconds(LIST_BAR)}",
                f"{milliseconds(p99(worst.outcome.latencies))} ({worst.title})",
            )
        )
    if results.rates is not None:
        rows.append(
            (
                "metric points written, over MLflow's tracking server",
                f"at least {RATIO_BAR:g}",
                f"{_middle(results.rates.ratios):.1f}",
            )
        )
    if results.charts is not None:
        first = results.charts[0]
        rows.append(
            (
                f"a chart of {first.title}, p99",
                f"under {milliseconds(CHART_BAR)}",
                milliseconds(p99(first.outcome.latencies)),
            )
        )
    if results.streams is not None:
        rows.append(
            (
                f"{results.streams_count} event streams open, each sent its job's events once",
                "all",
                results.streams.lost or "all",
            )
        )
    return table(("what", "bar", "measured"), rows)


def _submissions(results: Results) -> list[str]:
    if results.submissions is None:
        return []
    ours, bare = results.submissions
    rows: list[Sequence[object]] = []
    for number, pair in enumerate(zip(ours, bare, strict=True), start=1):
        for title, run in zip(("submission", "bare INSERT"), pair, strict=True):
            cpu = f"{run.cpu_milliseconds:.1f} ms"
            rows.append((number, title, *_latencies(run.outcome), cpu, milliseconds(run.outcome.lateness)))
    head = ("run", "what", "p50", "p99", "longest", "answers", "CPU of the process, each", "load late by")
    return [f"## {RATE:g} submissions a second", table(head, rows)]


def _lists(results: Results) -> list[str]:
    if results.lists is None:
        return []
    rows = [(listed.title, *_latencies(listed.outcome)) for listed in results.lists]
    title = f"## Lists over {results.jobs:,} jobs, {LISTS_A_SECOND:g} a second"
    return [title, table(("what", "p50", "p99", "longest", "answers"), rows)]


def _metrics(results: Results) -> list[str]:
    if results.rates is None:
        return []
    rates = results.rates
    rows = [
        (number, f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.1f}")
        for number, (ours, theirs) in enumerate(zip(rates.ours, rates.mlflow, strict=True), start=1)
    ]
    head = ("round", "ours, points a second", f"MLflow {rates.mlflow_version}, points a second", "ratio")
    return ["## Metrics", table(head, rows)]


def _charts(results: Results) -> list[str]:
    if results.charts is None:
        return []
    rows = [(chart.title, *_latencies(chart.outcome)) for chart in results.charts]
    return ["## Charts", table(("what", "p50", "p99", "longest", "answers"), rows)]


def _streams(results: Results) -> list[str]:
    if results.streams is None:
        return []
    found = results.streams
    delays = (
        milliseconds(p50(found.delays)),
        milliseconds(p99(found.delays)),
        milliseconds(max(found.delays)),
    )
    rows: list[Sequence[object]] = [
        ("an event's delay", *delays, f"{len(found.delays):,} events"),
        (f"GET of a job, {GETS_A_SECOND:g} a second, without streams", *_latencies(found.alone)),
        (f"the same beside {results.streams_count} streams", *_latencies(found.beside)),
    ]
    return [
        "## Streams",
        f"All {results.streams_count} were open after {found.opened_in:.1f} s.",
        table(("what", "p50", "p99", "longest", "answers"), rows),
    ]


def _latencies(outcome: Outcome) -> tuple[str, str, str, str]:
    seen = outcome.latencies
    answers = ", ".join(f"{number:,} of {status}" for status, number in sorted(outcome.statuses.items()))
    return milliseconds(p50(seen)), milliseconds(p99(seen)), milliseconds(max(seen)), answers


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
