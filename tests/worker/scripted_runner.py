"""A runner for the edges that the real one does not reach: it speaks the protocol, or breaks it, as told."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

behaviour, _, descriptor, folder = sys.argv[1:5]
channel = os.fdopen(int(descriptor), "w", buffering=1)
assignment = json.loads((Path(folder) / "attempt.json").read_text())


def say(kind: str, **fields: Any) -> None:
    channel.write(json.dumps({"type": kind, **fields}) + "\n")


def succeed(*artifacts: str) -> None:
    say("succeeded", metrics={"accuracy": 0.5}, released=False, epsilon=2.0, delta=1e-4, artifacts=artifacts)


def output(name: str, text: str = "weights") -> None:
    (Path(assignment["output"]) / name).write_text(text)


def until_told() -> None:
    while (told := json.loads(sys.stdin.readline()))["type"] != "stop":
        pass
    say("stopped", step=3)
    print(f"told to stop, keep={told['keep']}", flush=True)


def train() -> None:
    say("phase", phase="training")
    for step in range(1, 6):
        say(
            "metrics",
            step=step,
            values={"loss": 1 / step, "norm": None if step == 3 else 1.0},
            released=False,
        )
        say("progress", step=step, steps=5, samples_per_second=10.0, eta_seconds=0.0, epsilon=step / 10)
    say("warning", message="one row was clamped")
    print("half way \x00 there")
    print("a complaint", file=sys.stderr)
    output("model.safetensors")
    succeed("model.safetensors")


def environment() -> None:
    print(json.dumps(dict(os.environ)))
    print(f"{Path.cwd()}")
    succeed()


def deaf() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("phase", phase="training")
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"child of {os.getpid()}")
    time.sleep(600)


def flood() -> None:
    for number in range(30_000):
        print(f"line {number}")
    for step in range(200):
        say("metrics", step=step, values={f"metric{n}": 1.0 for n in range(100)}, released=False)
    for number in range(3_000):
        say("warning", message=f"warning {number}")
    print("x" * 1_000_000)
    succeed()


def link() -> None:
    (Path(assignment["output"]) / "model.safetensors").symlink_to("/etc/hostname")
    succeed("model.safetensors")


def say_and_sleep() -> None:
    succeed()
    time.sleep(600)


def stop_politely() -> None:
    say("phase", phase="training")
    until_told()


def fail() -> None:
    say("failed", code="non_finite_loss", message="the loss is not finite", traceback="Traceback\n  line")
    sys.exit(1)


def wait() -> None:
    say("phase", phase="training")
    time.sleep(600)


def lose_a_checkpoint() -> None:
    say("phase", phase="training")
    say("checkpoint", step=1, file="checkpoint-1.safetensors", size=1, sha256="0" * 64)
    time.sleep(600)


BEHAVIOURS = {
    "train": train,
    "environment": environment,
    "deaf": deaf,
    "flood": flood,
    "link": link,
    "outside": lambda: succeed("../attempt.json"),
    "missing": lambda: succeed("model.safetensors"),
    "say_and_sleep": say_and_sleep,
    "stop_politely": stop_politely,
    "fail": fail,
    "wait": wait,
    "lose_a_checkpoint": lose_a_checkpoint,
    "garbage": lambda: (channel.write("{not json\n"), time.sleep(600)),
    "unknown_message": lambda: (say("surprise", rows=["secret"]), time.sleep(600)),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: sys.exit(7),
    "silent": lambda: None,
    "no_memory": lambda: (print("what():  std::bad_alloc", file=sys.stderr, flush=True), os.abort()),
}
BEHAVIOURS[behaviour]()
