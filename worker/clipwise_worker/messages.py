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
    """The attempt stopped because it was told to; `charged_steps` noisy steps have run in all, if any."""

    type: Literal["stopped"] = "stopped"
    step: int
    charged_steps: int | None = None


class Interrupted(Message):
    """The attempt cannot go on here, and the job is not to blame: it goes on elsewhere."""

    type: Literal["interrupted"] = "interrupted"
    message: str
    charged_steps: int | None = None


class Charge(Message):
    """The runner wants to run noisy steps, up to `charged_steps` in all; it waits for `Granted`."""

    type: Literal["charge"] = "charge"
    charged_steps: int


class CheckpointWritten(Message):
    """A checkpoint lies in the output folder; the runner waits for `Stored`. `loss`: see the policy."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    file: str
    size: int
    sha256: str
    loss: float | None = None


class Stop(Message):
    """Supervisor to runner: finish the step and exit; with `keep`, write a checkpoint before."""

    type: Literal["stop"] = "stop"
    keep: bool = False


class Lease(Message):
    """Supervisor to runner: the job is yours for so many seconds from when you read this, and no longer."""

    type: Literal["lease"] = "lease"
    seconds: float


class Granted(Message):
    """Supervisor to runner: noisy steps up to `charged_steps` in all are paid for."""

    type: Literal["granted"] = "granted"
    charged_steps: int


class Stored(Message):
    """Supervisor to runner: the checkpoint of `step` is safe, or could not be stored."""

    type: Literal["stored"] = "stored"
    step: int
    ok: bool


class Begin(Message):
    """Supervisor to a runner that waits: the attempt lies in `folder`; set these variables, and go."""

    type: Literal["begin"] = "begin"
    folder: str
    environment: dict[str, str]


FromRunner = Annotated[
    PhaseChanged
    | Progressed
    | Measured
    | Warned
    | Charge
    | CheckpointWritten
    | Succeeded
    | Failed
    | Stopped
    | Interrupted,
    Field(discriminator="type"),
]
from_runner: TypeAdapter[FromRunner] = TypeAdapter(FromRunner)
ToRunner = Annotated[Stop | Lease | Granted | Stored | Begin, Field(discriminator="type")]
to_runner: TypeAdapter[ToRunner] = TypeAdapter(ToRunner)


class Assignment(Message):
    """What a runner is given: `attempt.json` in its folder. No credential, no address, no id of a person.

    Attributes:
        job_id: for the log.
        attempt: its number.
        request_id: of the request that submitted the job, for the log.
        spec: the job's specification, as JSON.
        plan: the job's plan, as JSON (`clipwise.wire.jobs.Plan`); steps, rate and noise are read from it.
        dataset_schema: the data set's schema, as JSON.
        rows: path of the Arrow IPC file, or null for a built-in data set.
        builtin: name of the built-in data set, or null.
        output: folder for the model, its configuration, the privacy statement and checkpoints.
        checkpoint: path of the checkpoint to go on from, or null.
        charged_steps: noisy steps that earlier attempts have paid for.
        wait_seconds: how long to wait for news of a supervisor before giving up.
    """

    job_id: str = ""
    attempt: int = 1
    request_id: str | None = None
    spec: dict[str, Any]
    plan: dict[str, Any]
    dataset_schema: dict[str, Any]
    rows: str | None
    builtin: str | None
    output: str
    checkpoint: str | None = None
    charged_steps: int = 0
    wait_seconds: float = 900.0
