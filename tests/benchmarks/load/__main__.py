"""The api under load: `python -m tests.benchmarks.load [PART ...]`, or `make bench-api`.

Parts are `submissions`, `lists`, `metrics`, `charts` and `streams`; without one all are measured, and
`docs/benchmarks/api.md` is written. A part alone is only printed.
"""

import argparse
import os
import sys
from pathlib import Path

from tests.benchmarks.load import charting, ingesting, listing, page, streaming, submitting
from tests.benchmarks.load.arrivals import ROOT
from tests.benchmarks.load.page import Results
from tests.benchmarks.load.stack import Stack, stack

PARTS = ("submissions", "lists", "metrics", "charts", "streams")
PAGE = ROOT / "docs" / "benchmarks" / "api.md"


def main() -> None:
    """Measure, print what was found, and write the page of a whole run."""
    options = _options()
    results = Results(load_before=os.getloadavg()[0])
    parts = options.parts or PARTS
    try:
        with stack() as servers:
            results.versions = servers.versions()
            for part in PARTS:
                if part in parts:
                    print(f"measuring {part} ...", file=sys.stderr, flush=True)
                    _measure(part, servers, results, options)
    finally:
        print(page.tables(results))
    if set(parts) == set(PARTS) and not options.small:
        PAGE.write_text(page.document(results))


def _measure(part: str, servers: Stack, results: Results, options: argparse.Namespace) -> None:
    small = options.small
    match part:
        case "submissions":
            results.seconds = options.seconds or (5.0 if small else 60.0)
            results.submissions = submitting.measure(servers, 1 if small else options.runs, results.seconds)
        case "lists":
            results.jobs = 2_000 if small else 100_000
            results.lists = listing.measure(servers, results.jobs, 1.0 if small else 15.0, 1 if small else 3)
        case "metrics":
            seconds = 3.0 if small else 20.0
            results.rates = ingesting.measure(servers, 1 if small else 3, seconds, options.mlflow)
        case "charts":
            points = 20_000 if small else 1_000_000
            results.charts = charting.measure(servers, points, 3.0 if small else 50.0)
        case "streams":
            results.streams_count = 20 if small else 500
            results.streams = streaming.measure(servers, results.streams_count, 1 if small else 3)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--runs", type=int, default=3, help="of the submissions")
    parser.add_argument("--seconds", type=float, help="of each run of the submissions")
    parser.add_argument("--small", action="store_true", help="only see that it works; nothing is written")
    parser.add_argument("--mlflow", type=Path, default=ingesting.MLFLOW, help="MLflow's command")
    return parser.parse_args()


if __name__ == "__main__":
    main()
