"""Clipwise: training with per-sample gradient clipping, as a library and as a service."""

__version__ = "0.1.0"
