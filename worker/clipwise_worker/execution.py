"""One attempt, executed: from its assignment to the files in its output folder. Imports torch."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from clipwise import architectures, plugins
from clipwise.architectures import Architecture
from clipwise.data.schema import DatasetSchema
from clipwise.errors import ConfigurationError, InvalidData, InvalidSpec
from clipwise.jobs.spec import JobSpec, parse
from clipwise.jobs.states import Phase, ReasonCode
from clipwise.models import TorchModel, saved
from clipwise.optim import Optimizer
from clipwise.privacy import EpsilonCurve, PoissonGaussian, plain_statement, private_statement
from clipwise.schedules import sensitivity_of
from clipwise.training import (
    Evaluation,
    Measured,
    NonFiniteLoss,
    PhysicalBatches,
    Progressed,
    ShuffledMean,
    Trainer,
    checkpoint,
    physical_size,
    split,
)
from clipwise.wire.jobs import Plan
from clipwise_worker import messages
from clipwise_worker.course import CannotStore, Course
from clipwise_worker.encoded_rows import EncodedRows
from clipwise_worker.failures import BudgetExhausted, DatasetUnreadable
from clipwise_worker.messages import (
    Assignment,
    Failed,
    Interrupted,
    Message,
    PhaseChanged,
    Stopped,
    Succeeded,
)
from clipwise_worker.runner_channel import Control, NoNews
from clipwise_worker.threads import choose_threads

STATEMENT_FILE = "privacy.json"
LOSSES = {"classification": "cross_entropy", "regression": "mse"}
EVALUATED_AT_ONCE = 1024
NOT_FINITE = (
    "the model's weights are not finite numbers, so it predicts nothing: the training diverged; "
    "lower learning_rate or weight_decay"
)


@final
@dataclass(frozen=True, kw_only=True)
class Task:
    """What an assignment asks for, read."""

    spec: JobSpec
    plan: Plan
    schema: DatasetSchema
    architecture: Architecture

    @classmethod
    def of(cls, assignment: Assignment) -> "Task":
        """Read an assignment.

        Raises:
            InvalidSpec: if the model's kind is not installed here, or does not fit the data set.
        """
        spec = parse(assignment.spec)
        schema = DatasetSchema.model_validate(assignment.dataset_schema)
        architecture: Architecture = plugins.construct(architectures.kinds(), spec.model, what="model")
        architecture.check(schema.input_shape, schema.output_size)
        plan = Plan.model_validate(assignment.plan)
        return cls(spec=spec, plan=plan, schema=schema, architecture=architecture)

    @property
    def plugin_packages(self) -> frozenset[str]:
        """Top-level packages, other than ours, whose code the job runs."""
        used = (self.architecture, *self.spec.optimizer.modules, *self.spec.optimizer.regularizers)
        return frozenset(type(plugin).__module__.partition(".")[0] for plugin in used) - {"clipwise"}


def execute(
    task: Task,
    assignment: Assignment,
    *,
    send: Callable[[Message], None],
    control: Control,
) -> Succeeded | Stopped | Failed | Interrupted:
    """Train, evaluate and export.

    Args:
        task: the assignment, read.
        assignment: names the rows and the output folder.
        send: gets each message but the last.
        control: what the supervisor says; a stop is noticed here once training has begun.

    Returns:
        The last message.
    """
    send(PhaseChanged(phase=Phase.LOADING))
    training = _training(task, assignment, send, control)
    trainer, course = training.trainer, training.course
    control.begin_training()
    send(PhaseChanged(phase=Phase.TRAINING))
    metrics: dict[str, float] = {}
    step, evaluated_at = trainer.start, -1
    try:
        for event in trainer.run():
            match event:
                case Progressed():
                    step = event.step
                    send(messages.Progressed(**vars(event)))
                case Measured():
                    send(_measured(event))
                    if "eval/loss" in event.values:
                        evaluated_at = event.step
                        course.evaluated(event.step, event.values["eval/loss"])
                    if not event.released:
                        metrics |= event.values
        if step >= trainer.steps:
            course.end(step)
            if trainer.evaluation.due(step, trainer.steps) and evaluated_at != step:
                # Broken off by a stop: whoever goes on has nothing to train, but to evaluate.
                return Stopped(step=step, charged_steps=course.charged_steps)
    except NonFiniteLoss as error:
        return Failed(code=ReasonCode.NON_FINITE_LOSS, message=error.detail)
    except (NoNews, CannotStore) as error:
        return Interrupted(message=str(error), charged_steps=course.charged_steps)
    if step < trainer.steps:
        return Stopped(step=step, charged_steps=course.charged_steps)
    # The weights are released anyway, so that this tells nothing more; a failure would be no answer to
    # a private job, which has spent its epsilon.
    model = training.model
    if not all(bool(value.isfinite().all()) for value in model.parameters.values()):
        send(messages.Warned(message=NOT_FINITE))
    send(PhaseChanged(phase=Phase.EXPORTING))
    artifacts = _export(task, trainer, model, Path(assignment.output))
    return Succeeded(
        # How fast the machine was is no result.
        metrics={k: v for k, v in metrics.items() if math.isfinite(v) and k != "train/samples_per_second"},
        released=False,
        epsilon=task.plan.epsilon,
        delta=task.plan.delta,
        artifacts=artifacts,
    )


def _rows(task: Task, assignment: Assignment) -> EncodedRows:
    """Open the rows of the attempt; a built-in data set is written beside them first."""
    try:
        if assignment.rows is not None:
            return EncodedRows(Path(assignment.rows), task.schema)
        if assignment.builtin is None:
            raise DatasetUnreadable("the assignment names neither a file of rows nor a built-in data set")
        from clipwise.data.builtin import write_rows

        path = Path(assignment.output).parent / "rows.arrow"
        write_rows(assignment.builtin, path)
        return EncodedRows(path, task.schema)
    except (OSError, InvalidData) as error:
        detail = error.detail if isinstance(error, InvalidData) else error.strerror or "cannot be opened"
        raise DatasetUnreadable(f"the rows of the data set cannot be read: {detail}") from error


@final
@dataclass(frozen=True, kw_only=True)
class _Training:
    """What is trained, and what lets it run."""

    model: TorchModel
    trainer: Trainer
    course: Course


def _training(
    task: Task, assignment: Assignment, send: Callable[[Message], None], control: Control
) -> _Training:
    rows = _rows(task, assignment)
    found = None if assignment.checkpoint is None else checkpoint.read(Path(assignment.checkpoint))
    start = 0 if found is None else found.step
    discarded = _discarded(task, assignment, start)
    last = task.plan.steps - (discarded or 0)
    spec = task.spec
    size = physical_size(
        task.plan.expected_batch_size,
        varies=spec.privacy is not None,
        microbatch_size=spec.training.microbatch_size,
    )
    if found is not None and spec.privacy is None:
        # Another size, or another number of threads, would add the same numbers up in another order.
        size = found.physical_size
    model, optimizer, mechanism, batches = _model(task, rows, size)
    if found is not None:
        found.restore(model, optimizer, mechanism)
        if spec.privacy is None:
            torch.set_num_threads(found.threads)
        else:
            # Fresh noise comes by itself; masks of dropout are not to be those of the first steps again.
            torch.manual_seed(spec.training.seed + assignment.charged_steps)

    def write(path: Path, step: int, best_loss: float | None, unevaluated: bool) -> checkpoint.Written:
        return checkpoint.write(
            path,
            step=step,
            model=model,
            optimizer=optimizer,
            mechanism=mechanism,
            physical_size=size,
            best_loss=best_loss,
            unevaluated=unevaluated,
        )

    course = Course(
        control,
        send,
        write,
        lambda step: batches.evaluation.due(step, last),
        folder=Path(assignment.output),
        policy=spec.checkpoints,
        start=start,
        last=last,
        discarded=discarded,
        best_loss=None if found is None else found.best_loss,
    )
    trainer = Trainer(
        model=model,
        optimizer=optimizer,
        mechanism=mechanism,
        batches=batches.train,
        steps=last,
        rule=None if spec.clipping is None else spec.clipping.rule(),
        expected_batch_size=task.plan.expected_batch_size,
        evaluation=batches.evaluation,
        start=start,
        unevaluated=found is not None and found.unevaluated,
        discarded=discarded or 0,
        spent=_spent(task),
        before_step=course.before,
        stopping=control.stopping,
    )
    return _Training(model=model, trainer=trainer, course=course)


def _discarded(task: Task, assignment: Assignment, start: int) -> int | None:
    """Return how many noisy steps were paid for and lost; None without privacy.

    They are further steps of the mechanism, so the run ends so many steps earlier, within its epsilon.

    Raises:
        BudgetExhausted: if nothing is left to train with.
    """
    if task.spec.privacy is None:
        return None
    discarded = max(0, assignment.charged_steps - start)
    if start == 0 and discarded >= task.plan.steps:
        raise BudgetExhausted(
            "every noisy step was paid for, and the checkpoints of them all are lost; submit the job again"
        )
    return discarded


@final
@dataclass(frozen=True, kw_only=True)
class _Batches:
    train: PhysicalBatches
    evaluation: Evaluation


def _model(
    task: Task, rows: EncodedRows, size: int
) -> tuple[TorchModel, Optimizer, PoissonGaussian | ShuffledMean, _Batches]:
    spec, plan, schema = task.spec, task.plan, task.schema
    dtype = saved.DTYPES[spec.training.precision]
    train, held_out = split(len(rows), spec.evaluation.fraction, spec.training.seed)
    if not len(train):
        raise InvalidSpec(
            "none of the rows is left to train on; lower evaluation.fraction, or give more rows"
        )
    # The user's seed reaches initialisation and dropout, and never sampling or noise.
    torch.manual_seed(spec.training.seed)
    loss = LOSSES[schema.task]
    device = _device(task)
    module = task.architecture.build(schema.input_shape, schema.output_size).to(device, dtype)
    model = TorchModel(module.train(), loss)
    rule = None if spec.clipping is None else spec.clipping.rule()
    samples, targets = (made_up.to(device) for made_up in _made_up(schema, dtype))
    choose_threads(module, samples, plan.expected_batch_size)
    sensitivity = None
    if rule is not None:
        sensitivity = sensitivity_of(rule, tuple(model.parameters))
        model.probe_independence((samples, targets))
    bounds = schema.target_bounds
    optimizer = Optimizer(
        spec.optimizer.learning_rate,
        spec.optimizer.weight_decay,
        spec.optimizer.regularizers,
        spec.optimizer.modules,
    )
    evaluation = Evaluation(
        PhysicalBatches(
            rows,
            held_out,
            size=max(1, min(EVALUATED_AT_ONCE, len(held_out))),
            dtype=dtype,
            device=device,
        ),
        loss=loss,
        target_scale=(bounds[1] - bounds[0]) / 2 if schema.task == "regression" and bounds else None,
        every_steps=spec.evaluation.every_steps,
    )
    batches = _Batches(
        train=PhysicalBatches(rows, train, size=size, dtype=dtype, device=device), evaluation=evaluation
    )
    return model, optimizer, _mechanism(task, sensitivity), batches


def _device(task: Task) -> torch.device:
    """Return where the job trains.

    Raises:
        InvalidSpec: if it asks for a GPU and this worker has none.
    """
    if not task.spec.resources.gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InvalidSpec(
            f"resources.gpus is {task.spec.resources.gpus}, and the worker of queue "
            f"'{task.spec.resources.queue}' has no CUDA device; name a queue whose workers do, or give 0"
        )
    # A sum over ten bits of mantissa is not the sum that the noise is calibrated to (trap 38).
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def _mechanism(task: Task, sensitivity: float | None) -> PoissonGaussian | ShuffledMean:
    plan = task.plan
    if task.spec.privacy is None:
        return ShuffledMean(batch_size=task.spec.training.batch_size, seed=task.spec.training.seed)
    if sensitivity is None or plan.noise_multiplier is None:
        raise ConfigurationError("a private job was planned without clipping or noise; submit it again")
    return PoissonGaussian(
        sampling_rate=plan.sampling_rate,
        noise_multiplier=plan.noise_multiplier,
        sensitivity=sensitivity,
        expected_batch_size=plan.expected_batch_size,
    )


def _spent(task: Task) -> EpsilonCurve | None:
    if task.spec.privacy is None:
        return None
    curve = task.plan.epsilon_curve
    if curve is None:
        raise ConfigurationError("a private job was planned without its epsilon; submit it again")
    return EpsilonCurve(steps=curve.step, epsilons=curve.value)


def _made_up(schema: DatasetSchema, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets for checks of the model, made from the schema and from no row (trap 12)."""
    inputs = np.random.default_rng(0).uniform(-1, 1, (3, *schema.input_shape))
    targets = torch.zeros(3, dtype=torch.int64 if schema.task == "classification" else dtype)
    return torch.from_numpy(inputs).to(dtype), targets


def _measured(event: Measured) -> messages.Measured:
    values = {name: value if math.isfinite(value) else None for name, value in event.values.items()}
    return messages.Measured(step=event.step, values=values, released=event.released)


def _export(task: Task, trainer: Trainer, model: TorchModel, folder: Path) -> list[str]:
    spec, schema = task.spec, task.schema
    saved.save(
        model.module,
        folder,
        model=plugins.as_json(task.architecture),
        input_shape=schema.input_shape,
        outputs=schema.output_size,
        precision=spec.training.precision,
        schema=schema.as_json(),
    )
    statement = json.dumps(_statement(task, trainer), indent=2) + "\n"
    (folder / STATEMENT_FILE).write_text(statement, encoding="utf-8")
    return [saved.WEIGHTS_FILE, saved.CONFIG_FILE, STATEMENT_FILE]


def _statement(task: Task, trainer: Trainer) -> dict[str, Any]:
    plan, schema, mechanism = task.plan, task.schema, trainer.mechanism
    clipping = None if task.spec.clipping is None else task.spec.clipping.model_dump(mode="json")
    if not isinstance(mechanism, PoissonGaussian):
        return plain_statement(clipping=clipping, steps=plan.steps)
    if clipping is None or plan.epsilon is None or plan.delta is None or plan.accountant_version is None:
        raise ConfigurationError("a private job was planned without its epsilon; submit it again")
    return private_statement(
        mechanism,
        clipping=clipping,
        steps=plan.steps,
        epsilon=plan.epsilon,
        delta=plan.delta,
        accountant_version=plan.accountant_version,
        from_rows=schema.outside_of_guarantee,
        unit_rows=schema.unit.max_rows,
        discarded_steps=trainer.discarded,
    )
