"""What a user submits: `JobSpec`, the JSON of DESIGN section 6, with every default written down.

Unknown fields are errors, numbers are strict and finite. `problems_of` turns pydantic's errors into
JSON pointers without the tags of unions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from clipwise import architectures, plugins
from clipwise.errors import InvalidSpec, Problem
from clipwise.optim import modules as optimizer_modules
from clipwise.optim import regularizers
from clipwise.schedules import AutomaticClip, ClipGroup, FlatClip, PerGroupClip, PerParameterClip

ListFromJson = Strict(False)
Name = Annotated[str, Field(min_length=1, max_length=200)]
Tag = Annotated[str, Field(max_length=200)]


class Part(BaseModel):
    """Base of the specification's parts: frozen, strict, finite, no unknown field."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _plugin(ours: Mapping[str, type[Any]], kinds: Callable[[], Mapping[str, type[Any]]], what: str) -> Any:
    """Return the annotation of a field that holds one plug-in of `kinds()`, which begins with `ours`."""

    def validate(value: Any) -> Any:
        # Asked for at validation: a broken package of somebody must not break the import of this module.
        known = kinds()
        if type(value) in known.values():
            return value
        try:
            return plugins.construct(known, value, what=what)
        except InvalidSpec as error:
            raise _as_validation_error(error, value) from error

    schema = {
        "type": "object",
        "title": what,
        "properties": {"kind": {"type": "string", "examples": sorted(ours)}},
        "required": ["kind"],
        "additionalProperties": True,
    }
    return Annotated[Any, PlainValidator(validate), PlainSerializer(plugins.as_json), WithJsonSchema(schema)]


def _as_validation_error(error: InvalidSpec, value: Any) -> ValidationError:
    return _refusal(
        *(
            (tuple(part for part in problem.pointer.split("/") if part), problem.detail)
            for problem in error.problems
        ),
        value=value,
    )


def _refusal(*wrong: tuple[tuple[str | int, ...], str], value: Any = None) -> ValidationError:
    """Return the error that names each `(location, message)`, for a validator to raise.

    A ValidationError that is raised inside a validator keeps its own location below the field's.
    """
    return ValidationError.from_exception_data(
        "specification",
        [
            {"type": "value_error", "loc": location, "input": value, "ctx": {"error": ValueError(message)}}
            for location, message in wrong
        ],
    )


if TYPE_CHECKING:
    OptimizerModule = Any
    Regularizer = Any
else:
    OptimizerModule = _plugin(optimizer_modules.MODULES, optimizer_modules.kinds, "optimizer module")
    Regularizer = _plugin(regularizers.REGULARIZERS, lambda: regularizers.REGULARIZERS, "regularizer")


class Training(Part):
    """How long and how: `steps`, or `epochs` in its place."""

    steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    epochs: Annotated[float, Field(gt=0, le=100_000)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=10_000_000)] = 128
    microbatch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    precision: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise _refusal((("steps",), "give either 'steps' or 'epochs', not both and not neither"))
        return self


class OptimizerSpec(Part):
    """Learning rate, decay, regularizers and the chain of plug-ins, applied in order."""

    learning_rate: Annotated[float, Field(gt=0, le=1e6)] = 0.1
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    regularizers: Annotated[tuple[Regularizer, ...], ListFromJson, Field(max_length=16)] = ()
    modules: Annotated[tuple[OptimizerModule, ...], ListFromJson, Field(max_length=16)] = ()


class ConstantSchedule(Part):
    """The bound stays what it is."""

    kind: Literal["constant"] = "constant"


Bound = Annotated[float, Field(gt=0, le=1e12)]


class FlatClipping(Part):
    """Every sample's gradient is scaled to a joint L2 norm of at most `max_norm`."""

    kind: Literal["flat"] = "flat"
    max_norm: Bound
    schedule: ConstantSchedule = ConstantSchedule()

    def rule(self) -> FlatClip:
        """Return the clip rule."""
        return FlatClip(max_norm=self.max_norm)


class AutomaticClipping(Part):
    """Every sample's gradient is scaled by `max_norm / (norm + stability)`: short ones grow, too (AUTO-S)."""

    kind: Literal["automatic"]
    max_norm: Bound = 1.0
    stability: Annotated[float, Field(ge=1e-12, le=1e12)] = 0.01
    schedule: ConstantSchedule = ConstantSchedule()

    def rule(self) -> AutomaticClip:
        """Return the clip rule."""
        return AutomaticClip(max_norm=self.max_norm, stability=self.stability)


class PerParameterClipping(Part):
    """Every sample's gradient is clipped parameter by parameter.

    `bound` says what `max_norm` bounds: `joint`, all K parameters together, each by `max_norm / sqrt(K)`;
    `each`, every parameter, and all together by `max_norm * sqrt(K)`, which noise is then calibrated to.
    """

    kind: Literal["per_parameter"]
    max_norm: Bound
    bound: Literal["joint", "each"] = "joint"
    schedule: ConstantSchedule = ConstantSchedule()

    def rule(self) -> PerParameterClip:
        """Return the clip rule."""
        return PerParameterClip(max_norm=self.max_norm, bound=self.bound)


class ParameterGroup(Part):
    """Parameters that are clipped by their joint norm: names, or patterns of them such as `layers.0.*`."""

    name: Name
    parameters: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=500)], ...],
        ListFromJson,
        Field(min_length=1, max_length=1000),
    ]
    max_norm: Bound


class PerGroupClipping(Part):
    """Every sample's gradient is clipped group by group; every parameter is in exactly one group.

    All groups together stay within the root of the sum of their squared bounds: noise is calibrated to it.
    """

    kind: Literal["per_group"]
    groups: Annotated[tuple[ParameterGroup, ...], ListFromJson, Field(min_length=1, max_length=1000)]
    schedule: ConstantSchedule = ConstantSchedule()

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [group.name for group in self.groups]
        twice = [i for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise _refusal(
                *((("groups", i, "name"), f"'{names[i]}' is another group's name as well") for i in twice)
            )
        return self

    def rule(self) -> PerGroupClip:
        """Return the clip rule."""
        return PerGroupClip(
            groups=tuple(
                ClipGroup(name=group.name, parameters=group.parameters, max_norm=group.max_norm)
                for group in self.groups
            )
        )


def _flat_if_unsaid(value: Any) -> Any:
    return {"kind": "flat", **value} if isinstance(value, Mapping) else value


Clipping = Annotated[
    FlatClipping | AutomaticClipping | PerParameterClipping | PerGroupClipping,
    Field(discriminator="kind"),
]


class Privacy(Part):
    """Differential privacy: `target_epsilon`, or `noise_multiplier` in its place."""

    target_epsilon: Annotated[float, Field(gt=0, le=1000)] | None = None
    noise_multiplier: Annotated[float, Field(ge=0.1, le=10_000)] | None = None
    delta: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _one_strength(self) -> Self:
        if (self.target_epsilon is None) == (self.noise_multiplier is None):
            message = "give either 'target_epsilon' or 'noise_multiplier', not both and not neither"
            raise _refusal((("target_epsilon",), message))
        return self


class Evaluation(Part):
    """`fraction` of the rows is held out and evaluated every so many steps, and at the end."""

    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    every_steps: Annotated[int, Field(ge=1)] | None = None


class Resources(Part):
    """Where the job runs, and before which others; without a queue it is `gpu` with GPUs and `cpu` without.

    Of the jobs that a worker could take it takes one of the highest priority; among equals the keys that
    submitted them take turns, and each key's oldest job comes first.
    """

    queue: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] = "cpu"
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    priority: Annotated[int, Field(ge=-100, le=100)] = 0

    @model_validator(mode="before")
    @classmethod
    def _queue_of_gpus(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("gpus") == 1 and "queue" not in value:
            return {**value, "queue": "gpu"}
        return value


class Limits(Part):
    """When the service gives up on the job.

    `max_runtime_seconds` counts all attempts together; `max_wait_seconds` is the longest that it waits in
    its queue at a time, without limit if null.
    """

    max_runtime_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 86_400
    max_wait_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None


class Checkpoints(Part):
    """What the job can go on from when its worker is lost, drained or told to pause.

    One is taken every so many seconds, or steps, whichever comes first; under privacy also as often as it
    takes for a repetition to cost at most a hundredth of the steps. The last `keep_last` are kept, and with
    `keep_best` the one with the lowest loss on held-out rows, which is no released number: not under privacy.
    """

    every_seconds: Annotated[float, Field(ge=0.1, le=86_400)] = 60.0
    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    keep_last: Annotated[int, Field(ge=1, le=20)] = 2
    keep_best: bool = False


class JobSpec(Part):
    """A training job, as it is submitted."""

    name: Name | None = None
    dataset: Name
    model: Annotated[
        dict[str, Any],
        WithJsonSchema(
            {
                "type": "object",
                "properties": {"kind": {"type": "string", "examples": sorted(architectures.ARCHITECTURES)}},
                "required": ["kind"],
                "additionalProperties": True,
            }
        ),
    ]
    training: Training
    optimizer: OptimizerSpec = OptimizerSpec()
    clipping: Annotated[Clipping | None, BeforeValidator(_flat_if_unsaid)] = None
    privacy: Privacy | None = None
    evaluation: Evaluation = Evaluation()
    resources: Resources = Resources()
    limits: Limits = Limits()
    checkpoints: Checkpoints = Checkpoints()
    tags: Annotated[dict[Tag, Tag], Field(max_length=32)] = {}

    @field_validator("model")
    @classmethod
    def _model(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Check a kind that is installed here and fill its defaults in; leave another to the workers."""
        kind = config.get("kind")
        known = architectures.kinds()
        if isinstance(kind, str) and kind not in known:
            return config
        try:
            return plugins.as_json(plugins.construct(known, config, what="model"))
        except InvalidSpec as error:
            raise _as_validation_error(error, config) from error

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.privacy is not None and self.clipping is None:
            message = "'privacy' needs 'clipping': add {\"max_norm\": 1.0}, or set 'privacy' to null"
            raise _refusal((("clipping",), message))
        noisy = [i for i, m in enumerate(self.optimizer.modules) if m.kind in optimizer_modules.NOISE_KINDS]
        if self.privacy is not None and noisy:
            message = "under 'privacy' noise comes from the mechanism alone; remove this module"
            raise _refusal(*((("optimizer", "modules", i, "kind"), message) for i in noisy))
        if self.checkpoints.keep_best and self.privacy is not None:
            message = (
                "the loss on held-out rows is exact, and so no choice to make under 'privacy'; give false"
            )
            raise _refusal((("checkpoints", "keep_best"), message))
        if self.checkpoints.keep_best and not self.evaluation.fraction:
            message = "there is no best one without evaluation; give evaluation.fraction, or false"
            raise _refusal((("checkpoints", "keep_best"), message))
        return self

    def as_json(self) -> dict[str, Any]:
        """Return the specification as JSON, every default filled in."""
        return self.model_dump(mode="json")


def parse(document: Any) -> JobSpec:
    """Read a job's specification.

    Raises:
        InvalidSpec: with one `Problem` per wrong field.
    """
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        problems = problems_of(error)
        raise InvalidSpec(
            "; ".join(f"{p.pointer or '/'}: {p.detail}" for p in problems[:3]), problems
        ) from error


_UNKNOWN_FIELD = "there is no such field; correct its name, or leave it out"
_PLAIN = {
    "extra_forbidden": _UNKNOWN_FIELD,
    "unexpected_keyword_argument": _UNKNOWN_FIELD,
    "missing": "this field is required",
    "union_tag_not_found": "this field is required",
}


def problems_of(error: ValidationError) -> tuple[Problem, ...]:
    """Turn pydantic's errors into problems with JSON pointers (RFC 6901)."""
    return problems_in([{**item} for item in error.errors(include_url=False)])


def problems_in(items: Sequence[Mapping[str, Any]]) -> tuple[Problem, ...]:
    """Turn the items of a pydantic error into problems; their locations begin at the document."""
    return tuple(_problem(item) for item in items if not _follows_from_another(item, items))


def _problem(item: Mapping[str, Any]) -> Problem:
    location, detail = _untagged(item["loc"]), item["msg"].removeprefix("Value error, ")
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        context = item.get("ctx", {})
        location = (*location, str(context.get("discriminator", "kind")).strip("'"))
        detail = f"give one of: {context.get('expected_tags')}"
    return Problem(
        pointer="".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in location),
        detail=_PLAIN.get(item["type"], detail),
        code=item["type"],
    )


def _untagged(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Leave out the kind of a union's member, which pydantic puts between its place and its field."""
    match location:
        case ("clipping", "flat" | "automatic" | "per_parameter" | "per_group", *rest):
            return ("clipping", *rest)
        case ("features", int(place), "number" | "category" | "image" | "array", *rest):
            return ("features", place, *rest)
    return location


def _follows_from_another(item: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a list is too short only because its wrong elements were not counted."""
    loc = item["loc"]
    return item["type"] == "too_short" and any(
        len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in items
    )
