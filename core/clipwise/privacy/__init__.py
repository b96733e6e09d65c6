"""The privacy mechanism: sampling, noise, accounting, calibration, statement. Knows no framework."""

from clipwise.privacy.accountant import EpsilonCurve, epsilon
from clipwise.privacy.calibration import Calibration, NoiseRequest, calibrate, settle
from clipwise.privacy.mechanism import PoissonGaussian
from clipwise.privacy.statement import plain_statement, private_statement

__all__ = [
    "Calibration",
    "EpsilonCurve",
    "NoiseRequest",
    "PoissonGaussian",
    "calibrate",
    "epsilon",
    "plain_statement",
    "private_statement",
    "settle",
]
