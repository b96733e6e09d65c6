"""The program: every command, and what becomes of its errors."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import clipwise
from clipwise.cli import access, datasets, demo, fleet, job_outputs, job_verbs, jobs, processes, serving
from clipwise.cli.failures import INTERRUPTED, report, report_usage
from clipwise.cli.options import JsonFlag
from clipwise.errors import ClipwiseError

EPILOG = (
    "Exit codes: 0 it worked, 1 the job or the request failed, 2 the command line or its file is wrong, "
    "130 interrupted."
)
SERVICE, JOBS, DATA, FLEET = "The service", "Jobs", "Data and models", "Machines and access"


def program() -> typer.Typer:
    """Return the program with all its commands."""
    app = typer.Typer(
        name="clipwise",
        help="Train with per-sample gradient clipping and differential privacy, as a service.",
        epilog=EPILOG,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name, command, panel in (
        ("demo", demo.demo, SERVICE),
        ("up", serving.up, SERVICE),
        ("api", processes.api, SERVICE),
        ("worker", processes.worker, SERVICE),
        ("migrate", processes.migrate, SERVICE),
        ("submit", jobs.submit, JOBS),
        ("plan", jobs.plan, JOBS),
        ("jobs", jobs.jobs, JOBS),
        ("show", jobs.show, JOBS),
        ("watch", jobs.watch, JOBS),
        ("cancel", job_verbs.cancel, JOBS),
        ("pause", job_verbs.pause, JOBS),
        ("resume", job_verbs.resume, JOBS),
        ("retry", job_verbs.retry, JOBS),
        ("clone", job_verbs.clone, JOBS),
        ("delete", job_verbs.delete, JOBS),
        ("events", job_outputs.events, JOBS),
        ("logs", job_outputs.logs, JOBS),
        ("attempts", job_outputs.attempts, JOBS),
        ("checkpoints", job_outputs.checkpoints, JOBS),
        ("download", job_outputs.download, JOBS),
        ("models", fleet.models, DATA),
        ("queues", fleet.queues, FLEET),
        ("signin", access.signin, FLEET),
        ("version", version, FLEET),
    ):
        app.command(name, rich_help_panel=panel)(command)
    app.add_typer(datasets.app, name="datasets", rich_help_panel=DATA)
    app.add_typer(fleet.workers_app, name="workers", rich_help_panel=FLEET)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; no error leaves it as a traceback."""
    as_json = "--json" in arguments
    try:
        result = program()(args=list(arguments) or ["--help"], prog_name="clipwise", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        return report_usage(error, as_json=as_json)
    except ClipwiseError as error:
        return report(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Who reads the output has gone (`| head`): nothing is left to say, and to nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("CLIPWISE_TRACEBACK"):
            raise
        return report(error, as_json=as_json)
    return result if isinstance(result, int) else 0


def version(as_json: JsonFlag = False) -> None:
    """Print the version."""
    from clipwise.cli.output import print_json, say

    if as_json:
        print_json({"version": clipwise.__version__})
    else:
        say(f"clipwise {clipwise.__version__}")


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


def _options(
    version: Annotated[  # its callback does the work
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
