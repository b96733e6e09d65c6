"""Quantiles of latencies, and how they are written."""

import math
from collections.abc import Sequence


def quantile(seconds: Sequence[float], share: float) -> float:
    """Return the smallest of the latencies that so many of them do not exceed (nearest rank)."""
    ordered = sorted(seconds)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def p50(seconds: Sequence[float]) -> float:
    """Return the median."""
    return quantile(seconds, 0.5)


def p99(seconds: Sequence[float]) -> float:
    """Return what one request in a hundred exceeds."""
    return quantile(seconds, 0.99)


def milliseconds(seconds: float) -> str:
    """Write a latency."""
    value = 1e3 * seconds
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def row(*cells: object) -> str:
    """Write a line of a table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a table."""
    return "\n".join([row(*head), f"|{'---|' * len(head)}", *(row(*cells) for cells in rows)])
