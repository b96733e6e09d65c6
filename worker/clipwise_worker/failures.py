"""Why an attempt cannot go on, in a closed list of reasons and without the value of any row."""

import errno
import traceback
from typing import Any

from clipwise.errors import ClipwiseError, InvalidData, InvalidInput
from clipwise.jobs.states import ReasonCode
from clipwise_worker.messages import Failed

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
NOTHING_LEFT = (
    "the runner ran out of memory; set training.microbatch_size lower, take a smaller model, or give the "
    "worker more memory"
)


class DatasetUnreadable(ClipwiseError):
    """The rows that the attempt was given cannot be read."""


class BudgetExhausted(ClipwiseError):
    """Every step that the job may run was paid for."""


def failure_of(error: BaseException, *, private: bool, plugin_packages: frozenset[str]) -> Failed:
    """Return what is told of `error`.

    Args:
        error: what ended the attempt.
        private: the data is trained on with privacy: texts of other libraries, which may quote a value,
            are left out, and of a traceback only places are told.
        plugin_packages: top-level names of packages whose models or optimizer modules the job uses.
    """
    code = _code(error, plugin_packages)
    if code is ReasonCode.OUT_OF_MEMORY:
        return Failed(code=code, message=NOTHING_LEFT)
    if isinstance(error, ClipwiseError):
        return Failed(code=code, message=error.detail)
    name = type(error).__name__
    where = traceback.extract_tb(error.__traceback__)
    place = f" in {where[-1].name}, {_short(where[-1].filename)}:{where[-1].lineno}" if where else ""
    if private:
        lines = [f"  {_short(frame.filename)}:{frame.lineno} in {frame.name}" for frame in where]
        return Failed(code=code, message=f"{name}{place}", traceback="\n".join([*lines, name]))
    text = "".join(traceback.format_exception(error))
    return Failed(code=code, message=f"{name}: {error}{place}"[:2000], traceback=text)


def is_full_disk(error: BaseException) -> bool:
    """Return whether `error` says that a disk is full or over quota: the worker's trouble, not the job's."""
    if isinstance(error, OSError):
        return error.errno in FULL
    # How safetensors, which writes the weights, passes it on.
    return any(f"(os error {number})" in str(error) for number in FULL)


def _code(error: BaseException, plugin_packages: frozenset[str]) -> ReasonCode:
    match error:
        case DatasetUnreadable() | InvalidData():
            return ReasonCode.DATASET_UNAVAILABLE
        case BudgetExhausted():
            return ReasonCode.BUDGET_EXHAUSTED
        case InvalidInput():
            return ReasonCode.VALIDATION_FAILED
        case MemoryError():
            return ReasonCode.OUT_OF_MEMORY
    if _is_torch_memory(error):
        return ReasonCode.OUT_OF_MEMORY
    if plugin_packages & _packages(error):
        return ReasonCode.USER_CODE_ERROR
    return ReasonCode.INTERNAL


def _is_torch_memory(error: BaseException) -> bool:
    # By name, so that this file needs no torch: it also tells of failures to import it.
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _packages(error: BaseException) -> set[str]:
    """Return the top-level packages whose code `error` passed through."""
    frames: Any = traceback.walk_tb(error.__traceback__)
    return {str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame, _ in frames}


def _short(filename: str) -> str:
    """Return the last two parts of a path: enough to find it, nothing of the machine."""
    return "/".join(filename.rsplit("/", 2)[-2:])
