"""`make faults`: histories of faults, each from a seed that is printed and can be given again."""

import argparse
import os
import platform
import secrets
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.history import History

FEWEST_HITS = 5


def main() -> int:
    """Run one history, print its report, and return 1 if anything was broken."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between two faults, on average")
    parser.add_argument("--write", type=Path, help="keep the report in this file")
    parser.add_argument("--keep", action="store_true", help="leave the folder, with every process's log")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="clipwise-faults-"))
    print(f"seed {options.seed}, in {folder}", flush=True)
    history = History(
        folder / "cluster", seed=options.seed, jobs=options.jobs, steps=options.steps, pause=options.pause
    )
    try:
        report = history.run()
    finally:
        history.cluster.close(keep=options.keep)
    print("\n".join(report.lines()))
    if options.write is not None:
        options.write.write_text("\n".join([*_heading(options), *report.lines(), ""]), encoding="utf-8")
    broken = [line for line in report.broken if not line.startswith("(failed)")]
    if options.jobs >= 200:
        rare = [kind for kind in history.kinds if sum(report.hits.get(kind, {}).values()) < FEWEST_HITS]
        broken += [f"{kind}: hit fewer than {FEWEST_HITS} running attempts" for kind in rare]
    if not history.cluster.disk.is_real:
        broken.append("the disk could not be filled: it takes root to mount one")
    print("\n".join(broken))
    return 1 if broken else 0


def _heading(options: argparse.Namespace) -> list[str]:
    """Return what a report begins with: what was run, when and where."""
    return [
        "# Faults",
        "",
        (
            f'`make faults ARGS="--seed {options.seed} --jobs {options.jobs} --steps {options.steps} '
            f'--pause {options.pause:g}"`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, '
            f"{platform.machine()}, Python {platform.python_version()}. Leases of 3 s; what is checked "
            "is in [docs/jobs.md](../jobs.md)."
        ),
        "",
    ]


if __name__ == "__main__":
    sys.exit(main())
