"""The protocol between a supervisor and its runner: one JSON object a line.

Runner to supervisor on the descriptor named by `--messages`; supervisor to runner on standard input,
whose end tells the runner that its supervisor is gone. What the runner prints is its log.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from clipwise.jobs.states import ReasonCode


class Message(BaseModel):
    """Base of all messages; one that is malformed is an error, never a guess."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PhaseChanged(Message):
    """The attempt entered another phase."""

    type: Literal["phase"] = "phase"
    phase: str


class Progressed(Message):
    """How far the attempt is; `epsilon` is what has been spent up to and including `step`."""

    type: Literal["progress"] = "progress"
    step: int
    steps: int
    samples_per_second: float | None = None
    eta_seconds: float | None = None
    epsilon: float | None = None


class Measured(Message):
    """Metrics at one step, null where not finite. `released`: the guarantee covers them."""

    type: Literal["metrics"] = "metrics"
    step: int
    values: dict[str, float | None]
    released: bool


class Warned(Message):
    """Something that the user should know; it becomes an event of the job."""

    type: Literal["warning"] = "warning"
    message: str


class Succeeded(Message):
    """The attempt is complete; its files lie in the output folder."""

    type: Literal["succeeded"] = "succeeded"
    metrics: dict[str, float]
    released: bool
    epsilon: float | None
    delta: float | None
    artifacts: list[str]


class Failed(Message):
    """The attempt cannot go on; `message` carries no value of any row."""

    type: Literal["failed"] = "failed"
    code: ReasonCode
    message: str
    traceback: str | None = None


class Stopped(Message):
    """The attempt stopped because it was told to."""

    type: Literal["stopped"] = "stopped"
    step: int


class Stop(Message):
    """Supervisor to runner: finish the step and exit."""

    type: Literal["stop"] = "stop"


FromRunner = Annotated[
    PhaseChanged | Progressed | Measured | Warned | Succeeded | Failed | Stopped, Field(discriminator="type")
]
from_runner: TypeAdapter[FromRunner] = TypeAdapter(FromRunner)
to_runner: TypeAdapter[Stop] = TypeAdapter(Stop)


class Assignment(Message):
    """What a runner is given: `attempt.json` in its folder. No credential, no address, no id of a person.

    Attributes:
        spec: the job's specification, as JSON.
        plan: the job's plan, as JSON (`clipwise.wire.jobs.Plan`); steps, rate and noise are read from it.
        dataset_schema: the data set's schema, as JSON.
        rows: path of the Arrow IPC file, or null for a built-in data set.
        builtin: name of the built-in data set, or null.
        output: folder for the model, its configuration and the privacy statement.
    """

    spec: dict[str, Any]
    plan: dict[str, Any]
    dataset_schema: dict[str, Any]
    rows: str | None
    builtin: str | None
    output: str
