"""Attempts for real runners: a folder with its assignment, and a supervisor's end of the pipes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipwise.data.builtin import BUILTINS
from clipwise.jobs import planning
from clipwise.jobs.spec import parse

PRIVATE: dict[str, Any] = {
    "dataset": "digits",
    "model": {"kind": "mlp", "hidden_sizes": [16]},
    "training": {"steps": 20, "batch_size": 64, "seed": 3},
    "clipping": {"max_norm": 1.0},
    "privacy": {"noise_multiplier": 1.0, "delta": 1e-4},
    "evaluation": {"fraction": 0.2, "every_steps": 10},
}
PLAIN: dict[str, Any] = {**PRIVATE, "clipping": None, "privacy": None}


def prepare(folder: Path, document: dict[str, Any], **changes: Any) -> Path:
    """Write an attempt into `folder`, as a supervisor does; return the output folder."""
    spec = parse(document)
    schema = BUILTINS[document["dataset"]].schema
    output = folder / "output"
    output.mkdir(parents=True)
    assignment = {
        "spec": spec.as_json(),
        "plan": planning.plan_job(spec, schema).model_dump(mode="json"),
        "dataset_schema": schema.as_json(),
        "rows": None,
        "builtin": document["dataset"],
        "output": str(output),
        **changes,
    }
    (folder / "attempt.json").write_text(json.dumps(assignment))
    return output


class Runner:
    """A real runner in a folder; `messages` yields what it says, as it says it.

    What it asks for it gets: steps are granted, and checkpoints moved to `kept`, in a folder beside the
    attempt's, as long as `answers` says so.
    """

    def __init__(self, folder: Path, *, warm: bool = False) -> None:
        reading, writing = os.pipe()
        self.kept: dict[int, Path] = {}
        self.answers = True
        self._folder = folder
        self._store = folder.with_name(f"{folder.name}-kept")
        self._store.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "clipwise_worker.runner", "--messages", str(writing)),
                *([] if warm else [str(folder)]),
            ],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(writing,),
            cwd=folder,
        )
        os.close(writing)
        self._reading = os.fdopen(reading)

    def messages(self) -> Iterator[dict[str, Any]]:
        for line in self._reading:
            message = json.loads(line)
            if self.answers:
                self._answer(message)
            yield message

    def _answer(self, message: dict[str, Any]) -> None:
        if message["type"] == "charge":
            self.say(json.dumps({"type": "granted", "charged_steps": message["charged_steps"]}))
        if message["type"] == "checkpoint":
            written = self._folder / "output" / message["file"]
            self.kept[message["step"]] = written.rename(self._store / written.name)
            self.say(json.dumps({"type": "stored", "step": message["step"], "ok": True}))

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was printed on standard error."""
        assert self.process.stderr is not None
        printed = self.process.stderr.read().decode()
        code = self.process.wait(60)
        self._reading.close()
        for pipe in (self.process.stdin, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return code, printed


def run(folder: Path, document: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
    """Prepare and run an attempt to its end; return its messages."""
    prepare(folder, document, **changes)
    runner = Runner(folder)
    told = list(runner.messages())
    code, printed = runner.end()
    assert code == 0, printed
    return told


def seconds_since(moment: float) -> float:
    return time.monotonic() - moment
