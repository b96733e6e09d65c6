"""The privacy statement: what a finished job guarantees, to whom, by what, and what it does not."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import clipwise
from clipwise.privacy.accountant import DEFAULT_INTERVAL
from clipwise.privacy.mechanism import PoissonGaussian

FORMAT = "clipwise.privacy_statement/1"

ZERO_OUT = (
    "Two data sets are neighbours if one has a row where the other has a row that contributes nothing. "
    "The number of rows is public."
)
EXACT_NUMBERS = (
    "evaluation on held-out rows (accuracy, errors, loss): exact numbers, for the data's owner",
    "training loss: exact numbers, for the data's owner",
    "gradient norms and clip fraction: exact numbers, for the data's owner",
    "the choice of this job's settings, if they were chosen after looking at the rows or at exact numbers",
)
THREATS = (
    "gradients are clipped (within 1e-6 of the sensitivity) and summed in floating point, as it rounds",
    "noise is drawn and added in floating point: its least significant bits (Mironov 2012) are not covered",
    "coins and noise come from PCG64DXSM with 128 bits of entropy of the operating system, not predictable",
    "the time that a job takes, and a failure for want of memory, are not covered",
)


def private_statement(
    mechanism: PoissonGaussian,
    *,
    clipping: Mapping[str, Any],
    steps: int,
    epsilon: float,
    delta: float,
    accountant_version: str,
    from_rows: Sequence[str] = (),
    unit_rows: int = 1,
    discarded_steps: int = 0,
) -> dict[str, Any]:
    """Return the statement of a job that was trained with differential privacy, as JSON.

    Args:
        mechanism: what drew the batches and the noise.
        clipping: the clip rule, as JSON; `mechanism.sensitivity` is what it states of the trained parameters.
        steps: how many steps were paid for: those of the model, and `discarded_steps`.
        epsilon: what the accountant says of exactly these numbers.
        delta: the job's delta.
        accountant_version: version of `dp_accounting` that computed epsilon.
        from_rows: public numbers that were read off the rows (`DatasetSchema.outside_of_guarantee`).
        unit_rows: most rows that one person may own, as the data set's schema says.
        discarded_steps: steps that were lost with an interrupted attempt. What they released is gone, but
            they count: the run had so many fewer left.
    """
    outside = [*EXACT_NUMBERS, *(f"{name}: read off the rows by the data's owner" for name in from_rows)]
    if unit_rows != 1:
        outside.append(
            f"people who own several rows (up to {unit_rows}): the guarantee is for each row, "
            "not for all of theirs"
        )
    return {
        "format": FORMAT,
        "guarantee": {
            "kind": "differential_privacy",
            "epsilon": epsilon,
            "delta": delta,
            "summary": f"The trained weights are ({_up(epsilon)}, {delta!r})-differentially private for "
            "each row.",
        },
        "unit": {"kind": "row", "max_rows": 1},
        "adjacency": {"kind": "zero_out", "explanation": ZERO_OUT},
        "mechanism": {
            "kind": "poisson_gaussian",
            "sampling": "an independent coin for each row and step",
            "noise": "Gaussian, on the sum of clipped gradients, once for each step",
            "noise_multiplier": mechanism.noise_multiplier,
            "clipping": dict(clipping),
            "sensitivity": mechanism.sensitivity,
            "sampling_rate": mechanism.sampling_rate,
            "expected_batch_size": mechanism.expected_batch_size,
            "steps": steps,
            "discarded_steps": discarded_steps,
        },
        "accountant": {
            "name": "dp_accounting",
            "version": accountant_version,
            "method": "PLD",
            "neighboring_relation": "REPLACE_SPECIAL",
            "value_discretization_interval": DEFAULT_INTERVAL,
            "event": "SelfComposed(PoissonSampled(sampling_rate, Gaussian(noise_multiplier)), steps)",
        },
        "covers": [
            "the weights after every step, and so the model",
            "epsilon, steps, noise and sampling rate",
        ],
        "outside": outside,
        "assumptions": list(THREATS),
        "code": {"name": "clipwise", "version": clipwise.__version__},
    }


def plain_statement(*, clipping: Mapping[str, Any] | None, steps: int) -> dict[str, Any]:
    """Return the statement of a job without differential privacy: that there is no guarantee.

    Args:
        clipping: the clip rule, as JSON; None without clipping.
        steps: how many steps were executed.
    """
    how = (
        "ordinary gradients"
        if clipping is None
        else f"every row's gradient clipped by the rule '{clipping['kind']}' and no noise"
    )
    return {
        "format": FORMAT,
        "guarantee": {
            "kind": "none",
            "summary": f"There is no privacy guarantee: the model was trained with {how}. "
            "It may reveal rows of its data.",
        },
        "mechanism": {
            "kind": "none",
            "clipping": None if clipping is None else dict(clipping),
            "steps": steps,
        },
        "outside": ["everything: the weights and all metrics"],
        "code": {"name": "clipwise", "version": clipwise.__version__},
    }


def _up(epsilon: float) -> str:
    """Write epsilon for people, never rounded down."""
    return f"{math.ceil(epsilon * 1000) / 1000:g}"
