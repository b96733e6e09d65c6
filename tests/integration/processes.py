"""Which processes belong to a service, found by the data folder in their environment."""

import time
from pathlib import Path

import psutil


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Return every live process that was started for this data folder, runners too."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            environment, command = process.environ(), " ".join(process.cmdline())
            # A runner is given no settings, but a folder below the data folder, where it is.
            runs_there = str(data_dir) in command or Path(process.cwd()).is_relative_to(data_dir)
        except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError, FileNotFoundError):
            continue
        if environment.get("CLIPWISE_DATA_DIR") == str(data_dir) or runs_there:
            found.append(process)
    return found


def all_gone(data_dir: Path, within_seconds: float = 2.0) -> bool:
    """Tell whether none is left after so many seconds at most."""
    deadline = time.monotonic() + within_seconds
    while processes_of(data_dir):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def named(data_dir: Path, module: str) -> list[psutil.Process]:
    """Return the processes of the folder that run this module."""
    return [process for process in processes_of(data_dir) if module in command_of(process)]


def command_of(process: psutil.Process) -> str:
    """Return the command line of a process, empty if it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie is one too
        return ""
