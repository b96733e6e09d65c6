"""The runner: executes one attempt in a process of its own, holding no credentials.

    python -m clipwise_worker.runner --messages FD [FOLDER]

It reads `FOLDER/attempt.json`, writes messages on the descriptor FD, hears its supervisor on standard input,
and ends when that ends. Without a folder it gets ready first (importing torch alone takes a second) and is
told of one later; it executes one attempt all the same. What it prints is the job's log.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from clipwise import logs
from clipwise_worker.failures import failure_of, is_full_disk
from clipwise_worker.messages import Assignment, Interrupted, Message, PhaseChanged
from clipwise_worker.runner_channel import Channel, Control, die_with_parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the attempt that lies in a folder; return the exit code, 0 whenever a last message was sent."""
    parser = argparse.ArgumentParser(prog="clipwise_worker.runner", description=__doc__)
    parser.add_argument("--messages", type=int, required=True, metavar="FD", help="where messages go")
    parser.add_argument("folder", type=Path, nargs="?", help="the attempt's folder, with attempt.json in it")
    options = parser.parse_args(arguments)
    die_with_parent()
    channel = Channel(options.messages)
    control = Control(channel)
    control.listen()
    folder = options.folder or _get_ready(control)
    channel.send(PhaseChanged(phase="starting"))
    channel.send(_last_message(folder, channel, control))
    return 0


def _get_ready(control: Control) -> Path:
    """Do what every attempt needs done, then wait for one; return its folder."""
    try:
        from clipwise_worker.warm_up import warm_up

        warm_up()
    except Exception as error:
        # The attempt will meet it again, where it can be told.
        print(f"the runner could not get ready: {type(error).__name__}", file=sys.stderr, flush=True)
    begin = control.wait_for_begin()
    os.environ.update(begin.environment)
    tempfile.tempdir = None  # it was chosen by the environment of before
    os.chdir(begin.folder)
    return Path(begin.folder)


def _last_message(folder: Path, channel: Channel, control: Control) -> Message:
    private, plugin_packages = True, frozenset[str]()
    try:
        assignment = Assignment.model_validate_json((folder / "attempt.json").read_bytes())
        control.wait_seconds = assignment.wait_seconds
        logs.configure_runner(job_id=assignment.job_id, attempt=assignment.attempt)
        private = assignment.spec.get("privacy") is not None
        # Here and nowhere else torch comes in; the supervisor is listening by now.
        from clipwise_worker.execution import Task, execute

        task = Task.of(assignment)
        plugin_packages = task.plugin_packages
        return execute(task, assignment, send=channel.send, control=control)
    except Exception as error:
        if is_full_disk(error):
            return Interrupted(message="the worker's disk is full", charged_steps=None)
        return failure_of(error, private=private, plugin_packages=plugin_packages)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Nothing is left to do, and taking torch apart takes longer than a small step.
    os._exit(code)
