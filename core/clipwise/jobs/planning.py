"""The plan of a job: what its specification comes to on a data set, before anything runs.

`outline` takes milliseconds and finds everything that is wrong with a specification; only the noise is
left, whose calibration (`clipwise.privacy.settle`) takes seconds and belongs in another process, cached
by its request. `complete` puts the two together.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from clipwise import architectures, plugins
from clipwise.data.schema import DatasetSchema
from clipwise.errors import InvalidSpec, Problem
from clipwise.jobs.spec import JobSpec, PerGroupClipping, PerParameterClipping
from clipwise.privacy.accountant import MIN_DELTA
from clipwise.privacy.calibration import Calibration, NoiseRequest, settle
from clipwise.schedules.bounds import SMALLEST_NORM
from clipwise.wire.jobs import EpsilonCurve, Plan

MAX_STEPS = 10_000_000
RUNTIME_BYTES = 400 * 2**20
"""What a runner occupies before it has a model: Python, torch, Arrow."""
CHUNK_BYTES = 256 * 2**20
"""What the engine allows per-sample gradients and activations at once."""
STATE_ARRAYS = {"adam": 2, "momentum": 1}
"""How many arrays of the model's size an optimizer module remembers; an unknown one is taken for two."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A plan without its noise.

    Attributes:
        noise: what remains to be settled, or None without privacy.
    """

    steps: int
    training_size: int
    sampling_rate: float
    expected_batch_size: float
    parameters: int | None
    memory_bytes: int | None
    warnings: tuple[str, ...]
    noise: NoiseRequest | None


def plan_job(spec: JobSpec, schema: DatasetSchema, *, model_kinds: Collection[str] | None = None) -> Plan:
    """Return the whole plan of `spec` on a data set with `schema`; takes seconds under privacy.

    Raises:
        InvalidSpec: as `outline` and `clipwise.privacy.settle` do.
    """
    drawn = outline(spec, schema, model_kinds=model_kinds)
    return complete(drawn, None if drawn.noise is None else settle(drawn.noise))


def outline(spec: JobSpec, schema: DatasetSchema, *, model_kinds: Collection[str] | None = None) -> Outline:
    """Return everything of the plan but the noise.

    Args:
        spec: the job's specification.
        schema: the data set's schema; its size is a public number.
        model_kinds: kinds of models that workers announce beyond those installed here. A kind that only
            they have is taken as it is; its parameters are not known here.

    Raises:
        InvalidSpec: with one problem for each field that does not fit the data set.
    """
    training_size = math.floor(schema.size.value * (1 - spec.evaluation.fraction))
    problems = [*_size_problems(spec, schema, training_size), *_privacy_problems(spec)]
    parameters, misfits = _model(spec, schema, model_kinds)
    problems += misfits
    steps = _steps(spec, training_size)
    if steps > MAX_STEPS:
        problems.append(
            Problem(
                pointer="/training/epochs",
                detail=f"{spec.training.epochs:g} epochs are {steps} steps; at most {MAX_STEPS} are allowed",
                code="too_many_steps",
            )
        )
    if problems:
        raise InvalidSpec("; ".join(problem.detail for problem in problems[:3]), tuple(problems))
    rate = spec.training.batch_size / training_size
    privacy = spec.privacy
    return Outline(
        steps=steps,
        training_size=training_size,
        sampling_rate=rate,
        expected_batch_size=float(spec.training.batch_size),
        parameters=parameters,
        memory_bytes=None if parameters is None else _memory(spec, schema, parameters),
        warnings=tuple(_warnings(spec, schema, steps, training_size)),
        noise=None
        if privacy is None
        else NoiseRequest(
            target_epsilon=privacy.target_epsilon,
            noise_multiplier=privacy.noise_multiplier,
            delta=privacy.delta,
            sampling_rate=rate,
            steps=steps,
        ),
    )


def complete(drawn: Outline, calibration: Calibration | None) -> Plan:
    """Return the plan of an outline and the calibration of its noise, None without privacy."""
    if (drawn.noise is None) != (calibration is None):
        raise ValueError("a plan needs a calibration exactly where its outline asks for noise")
    public: dict[str, Any] = {
        "steps": drawn.steps,
        "training_size": drawn.training_size,
        "sampling_rate": drawn.sampling_rate,
        "expected_batch_size": drawn.expected_batch_size,
        "parameters": drawn.parameters,
        "memory_bytes": drawn.memory_bytes,
    }
    if drawn.noise is None or calibration is None:
        return Plan(**public, warnings=list(drawn.warnings))
    weak = [_weak(calibration.epsilon)] if calibration.epsilon > 10 else []
    return Plan(
        **public,
        noise_multiplier=calibration.noise_multiplier,
        epsilon=calibration.epsilon,
        delta=drawn.noise.delta,
        epsilon_curve=EpsilonCurve(
            step=list(calibration.curve.steps), value=list(calibration.curve.epsilons)
        ),
        accountant_version=calibration.accountant,
        warnings=[*drawn.warnings, *weak],
    )


def _steps(spec: JobSpec, training_size: int) -> int:
    training = spec.training
    if training.steps is not None:
        return training.steps
    return max(1, math.ceil((training.epochs or 0.0) * training_size / training.batch_size))


def _size_problems(spec: JobSpec, schema: DatasetSchema, training_size: int) -> list[Problem]:
    fraction, batch_size = spec.evaluation.fraction, spec.training.batch_size
    if training_size < 1:
        detail = (
            f"with {fraction:g} of {schema.size.value} rows held out nothing is left to train on; lower it"
        )
        return [Problem(pointer="/evaluation/fraction", detail=detail, code="nothing_to_train_on")]
    if batch_size > training_size:
        detail = (
            f"batch_size {batch_size} is more than the {training_size} rows that are trained on "
            f"({schema.size.value} without the held-out {fraction:g}); give {training_size} or less"
        )
        return [Problem(pointer="/training/batch_size", detail=detail, code="batch_too_large")]
    return []


def _privacy_problems(spec: JobSpec) -> list[Problem]:
    problems = []
    for pointer, bound in _bounds(spec):
        if bound < SMALLEST_NORM:
            detail = f"max_norm {bound:g} is too small for arithmetic; give 1e-30 or more"
            problems.append(Problem(pointer=f"{pointer}/max_norm", detail=detail, code="too_small"))
    if spec.privacy is not None and spec.privacy.delta < MIN_DELTA:
        detail = (
            f"delta {spec.privacy.delta:g} is below {MIN_DELTA:g}, where rounding of the accountant counts; "
            f"give {MIN_DELTA:g} or more"
        )
        problems.append(Problem(pointer="/privacy/delta", detail=detail, code="too_small"))
    return problems


def _bounds(spec: JobSpec) -> list[tuple[str, float]]:
    """Return the bounds that clipping has, with pointers to what holds them."""
    if spec.clipping is None:
        return []
    if isinstance(spec.clipping, PerGroupClipping):
        return [(f"/clipping/groups/{i}", group.max_norm) for i, group in enumerate(spec.clipping.groups)]
    return [("/clipping", spec.clipping.max_norm)]


def _model(
    spec: JobSpec, schema: DatasetSchema, model_kinds: Collection[str] | None
) -> tuple[int | None, list[Problem]]:
    """Return the model's number of parameters, if known here, and what does not fit the data set."""
    known = architectures.kinds()
    kind = spec.model["kind"] if isinstance(spec.model.get("kind"), str) else ""
    if kind not in known:
        if model_kinds is not None and kind in model_kinds:
            return None, []
        everything = ", ".join(sorted({*known, *(model_kinds or ())}))
        detail = f"no worker has the model kind '{kind}'; there are: {everything}"
        return None, [Problem(pointer="/model/kind", detail=detail, code="unknown_kind")]
    model = plugins.construct(known, spec.model, what="model")
    if schema.task not in model.tasks:
        fitting = ", ".join(sorted(name for name, cls in known.items() if schema.task in cls.tasks))
        detail = f"'{kind}' is for {', '.join(model.tasks)}; this data set's task is {schema.task}: {fitting}"
        return None, [Problem(pointer="/model/kind", detail=detail, code="wrong_task")]
    try:
        model.check(schema.input_shape, schema.output_size)
    except InvalidSpec as error:
        return None, [
            Problem(pointer=f"/model{problem.pointer}", detail=problem.detail, code=problem.code)
            for problem in error.problems
        ]
    return int(model.parameters(schema.input_shape, schema.output_size)), []


def _memory(spec: JobSpec, schema: DatasetSchema, parameters: int) -> int:
    """Estimate the runner's memory: runtime, model, sums, optimizer, one chunk and one batch."""
    item = 8 if spec.training.precision == "float64" else 4
    remembered = sum(STATE_ARRAYS.get(module.kind, 2) for module in spec.optimizer.modules)
    # Weights, clipped sums, their noisy form in double precision, and the updates; then the states.
    model = parameters * (item * (3 + remembered) + 8)
    batch = 2 * spec.training.batch_size * math.prod(schema.input_shape) * item
    chunk = min(CHUNK_BYTES, 3 * spec.training.batch_size * parameters * item)
    return RUNTIME_BYTES + model + batch + max(chunk, 2 * parameters * item)


def _warnings(spec: JobSpec, schema: DatasetSchema, steps: int, training_size: int) -> list[str]:
    warnings = []
    every = spec.evaluation.every_steps
    if every is not None and every > steps and spec.evaluation.fraction > 0:
        warnings.append(f"every_steps {every} is beyond the last step {steps}: evaluated at the end only")
    column, most = schema.unit.column, schema.unit.max_rows
    if column is not None and most > 1 and spec.privacy is not None:
        warnings.append(
            f"the size counts '{column}' and not rows: with up to {most} rows of each, a step draws up to "
            f"{most} times batch_size rows on average; divide batch_size, or learning_rate, accordingly"
        )
    if spec.privacy is None:
        return warnings
    if isinstance(spec.clipping, PerParameterClipping) and spec.clipping.bound == "each":
        warnings.append(
            f"with bound 'each' a row contributes up to {spec.clipping.max_norm:g} times the root of the "
            "number of parameter tensors, and noise grows with it; 'joint' keeps both at max_norm"
        )
    if spec.privacy.delta > 1 / training_size:
        warnings.append(
            f"delta {spec.privacy.delta:g} is above 1 / {training_size} rows: publishing one random row "
            f"would satisfy it; take {0.1 / training_size:.1g} or less"
        )
    if schema.unit.max_rows > 1:
        owner = "person" if schema.unit.column is None else f"'{schema.unit.column}'"
        warnings.append(
            f"the guarantee is for each row, not for all rows of one {owner} (up to {schema.unit.max_rows})"
        )
    if schema.outside_of_guarantee:
        warnings.append(
            "read off the rows, so outside of the guarantee: " + ", ".join(schema.outside_of_guarantee)
        )
    return warnings


def _weak(epsilon: float) -> str:
    return f"epsilon {epsilon:.3g} is a weak guarantee; below 10 is customary, below 1 is strong"
