"""The per-sample clipping engine."""
