"""The privacy statement."""

import json

import clipwise
from clipwise.privacy import PoissonGaussian, plain_statement, private_statement

CLIPPING = {"kind": "flat", "max_norm": 0.5}


def test_a_private_statement_has_everything_to_check_it_by() -> None:
    mechanism = PoissonGaussian(
        sampling_rate=0.1, noise_multiplier=2.5, sensitivity=0.5, expected_batch_size=12.0
    )
    said = private_statement(
        mechanism, clipping=CLIPPING, steps=7, epsilon=0.75, delta=1e-6, accountant_version="0.6.0"
    )
    assert json.loads(json.dumps(said)) == said
    assert (said["guarantee"]["epsilon"], said["guarantee"]["delta"]) == (0.75, 1e-6)
    numbers = {k: v for k, v in said["mechanism"].items() if not isinstance(v, str)}
    assert numbers == {
        "noise_multiplier": 2.5,
        "clipping": CLIPPING,
        "sensitivity": 0.5,
        "sampling_rate": 0.1,
        "expected_batch_size": 12.0,
        "steps": 7,
        "discarded_steps": 0,
    }
    assert said["accountant"]["version"] == "0.6.0"
    assert said["code"]["version"] == clipwise.__version__
    outside = " ".join(said["outside"])
    for word in ("evaluation", "training loss", "gradient norms", "clip fraction"):
        assert word in outside
    assert any("noise" in line and "floating point" in line for line in said["assumptions"])
    assert any("summed in floating point" in line for line in said["assumptions"])


def test_delta_is_not_rounded_for_the_summary() -> None:
    mechanism = PoissonGaussian(
        sampling_rate=0.1, noise_multiplier=2.5, sensitivity=0.5, expected_batch_size=12.0
    )
    said = private_statement(
        mechanism, clipping=CLIPPING, steps=7, epsilon=0.75, delta=1.2345604e-6, accountant_version="0.6.0"
    )
    assert "1.2345604e-06" in said["guarantee"]["summary"]  # six digits would be a smaller delta


def test_without_privacy_the_statement_says_so() -> None:
    for clipping in (None, CLIPPING):
        said = plain_statement(clipping=clipping, steps=7)
        assert said["mechanism"]["clipping"] == clipping
        assert ("clipped by the rule 'flat'" in said["guarantee"]["summary"]) == (clipping is not None)
        assert said["guarantee"]["kind"] == "none"
        assert "no privacy guarantee" in said["guarantee"]["summary"]
        assert "epsilon" not in said["guarantee"]
