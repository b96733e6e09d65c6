"""In which pieces gradients of many units are made and kept on a processor."""

PART_BYTES = 16 * 2**20
"""Gradients of one allocation: malloc gives larger ones (32 MiB) back to the system at once, and the page
faults of the next take as long as the product that fills it."""
CACHED_BYTES = 4 * 2**20
"""Gradients that are made at a time, so that their norms are read from the processor's cache."""


def steps(size: int, step: int) -> list[tuple[int, int]]:
    """Return the beginnings and ends of slices of `size` things, of at least one and about `step` each."""
    step = max(1, step)
    return [(start, min(start + step, size)) for start in range(0, size, step)]
