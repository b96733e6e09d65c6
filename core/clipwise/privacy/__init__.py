"""The privacy mechanism: sampling, noise, accounting, statement."""
