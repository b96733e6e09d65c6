"""The processes that calibrate noise."""

import time

import pytest

from clipwise.errors import InvalidSpec
from clipwise.privacy.calibration import NoiseRequest
from clipwise_api.calibrators import Calibrators

EASY = NoiseRequest(target_epsilon=None, noise_multiplier=2.0, delta=1e-4, sampling_rate=0.1, steps=20)
HARD = NoiseRequest(target_epsilon=1.0, noise_multiplier=None, delta=1e-5, sampling_rate=1e-6, steps=10**6)


def test_what_takes_too_long_is_refused_and_the_process_goes_on() -> None:
    calibrators = Calibrators(seconds=4)
    try:
        begun = time.monotonic()
        with pytest.raises(InvalidSpec, match="within 4 s") as refused:
            calibrators.submit(HARD).result(timeout=60)
        assert time.monotonic() - begun < 50
        assert refused.value.problems[0].pointer == "/privacy"
        assert calibrators.submit(EASY).result(timeout=60).noise_multiplier == 2.0
    finally:
        calibrators.close()
