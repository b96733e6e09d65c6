"""Calibration: never above the target, and not much below it."""

import copy

import pytest

from clipwise.errors import InvalidSpec
from clipwise.privacy import NoiseRequest, accountant, calibrate, settle


@pytest.mark.parametrize(
    ("target", "delta", "rate", "steps"),
    [
        (3.0, 1e-4, 128 / 1437, 300),
        (8.0, 1e-5, 0.01, 1000),
        (1.0, 1e-5, 0.25, 60),
        (0.1, 1e-5, 0.05, 1000),
        (3.0, 1e-5, 1.0, 100),
        (1e-3, 1e-5, 0.1, 10),
        (3.0, 0.5, 0.1, 100),
        (2.0, 1e-5, 1e-5, 10),
    ],
)
def test_epsilon_of_the_noise_is_just_below_the_target(
    target: float, delta: float, rate: float, steps: int
) -> None:
    noise = calibrate(target_epsilon=target, delta=delta, sampling_rate=rate, steps=steps)
    reached = accountant.epsilon(noise_multiplier=noise, sampling_rate=rate, steps=steps, delta=delta)
    assert target * 0.995 <= reached <= target


def test_a_target_out_of_reach_is_refused_and_named() -> None:
    with pytest.raises(InvalidSpec) as caught:
        calibrate(target_epsilon=1e-8, delta=1e-5, sampling_rate=0.5, steps=1000)
    assert caught.value.problems[0].pointer == "/privacy/target_epsilon"
    assert "out of reach" in caught.value.problems[0].detail


def request(**changes: float | None) -> NoiseRequest:
    numbers = {
        "target_epsilon": None,
        "noise_multiplier": 2.0,
        "delta": 1e-5,
        "sampling_rate": 0.1,
        "steps": 50,
    }
    return NoiseRequest(**{**numbers, **changes})  # type: ignore[arg-type]


def test_what_is_settled_agrees_with_itself_and_travels() -> None:
    # deepcopy takes the road that a process pool takes.
    asked = copy.deepcopy(request())
    assert hash(asked) == hash(request())
    found = copy.deepcopy(settle(asked))
    assert found.noise_multiplier == 2.0
    assert found.epsilon == found.curve.after(50)
    assert found.epsilon == accountant.epsilon(noise_multiplier=2.0, sampling_rate=0.1, steps=50, delta=1e-5)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"delta": 1e-12}, "/privacy/delta"),
        ({"noise_multiplier": 0.1, "sampling_rate": 1.0, "steps": 100_000}, "/privacy/noise_multiplier"),
    ],
)
def test_hopeless_requests_are_refused(changes: dict[str, float], pointer: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        settle(request(**changes))
    assert caught.value.problems[0].pointer == pointer
    # The refusal crosses a process boundary whole.
    assert copy.deepcopy(caught.value).problems == caught.value.problems
