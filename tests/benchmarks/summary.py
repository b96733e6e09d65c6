"""The README's table: a short form of the page of a full run."""

from tests.benchmarks.engines import ENGINES
from tests.benchmarks.report import Results, figure, geometric_mean
from tests.benchmarks.workloads import WORKLOADS

BEGIN, END = "<!-- benchmark of the engine -->\n", "<!-- end of the benchmark -->\n"
PEERS = {
    "vmap": "`vmap(grad)`, best chunk",
    "opacus": "Opacus, best mode",
    "opake": "Opake, best chunk",
}


def summary(results: Results) -> str:
    """Return ours beside the best of every peer, over an ordinary step."""
    head = ["time over an ordinary step", "Clipwise", *PEERS.values(), "Clipwise's peak memory"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for workload in results.workloads:
        peers = [_best(results, workload, peer) for peer in PEERS]
        cells = [figure(results.time(workload, "ours")), *peers, figure(results.memory(workload, "ours"))]
        lines.append(f"| {WORKLOADS[workload].title} | {' | '.join(cells)} |")
    time = geometric_mean(results.time(workload, "ours") for workload in results.workloads)
    memory = geometric_mean(results.memory(workload, "ours") for workload in results.workloads)
    lines.append(f"| geometric mean | {figure(time)} | {' | '.join('' for _ in PEERS)} | {figure(memory)} |")
    return "\n".join(lines) + "\n"


def with_summary(readme: str, results: Results) -> str:
    """Return the README with the table of `results` in place of the one that it has."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{summary(results)}{END}{after}"


def _best(results: Results, workload: str, peer: str) -> str:
    """Return the shortest time of a peer's modes, or why there is none."""
    found = results.best(workload, [peer])
    if found is not None:
        return figure(found)
    reasons = {
        results.cells[workload, name].reason.partition(":")[0]
        for name in results.engines
        if ENGINES[name].peer == peer
    }
    return ", ".join(sorted(reasons))
