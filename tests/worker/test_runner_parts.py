"""The runner's parts: reasons of failures, and rows in memory or on disk."""

import errno
from pathlib import Path
from types import CodeType

import numpy as np
import pytest
import torch

from clipwise.data.builtin import BUILTINS, write_rows
from clipwise.errors import InvalidData, InvalidSpec, UnsupportedModule
from clipwise.jobs.states import ReasonCode
from clipwise_worker.encoded_rows import EncodedRows
from clipwise_worker.failures import DatasetUnreadable, failure_of, is_full_disk
from clipwise_worker.threads import multiplications, wanted


def raised(error: Exception, package: str = "clipwise.somewhere") -> Exception:
    """Return `error` as code of `package` raises it."""
    code: CodeType = compile("def act(error): raise error", f"/home/someone/{package}/model.py", "exec")
    space: dict[str, object] = {"__name__": package}
    exec(code, space)
    try:
        space["act"](error)  # type: ignore[operator]
    except Exception as caught:
        return caught
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnsupportedModule("0", "normalises over the batch"), ReasonCode.VALIDATION_FAILED),
        (InvalidSpec("no"), ReasonCode.VALIDATION_FAILED),
        (InvalidData("no", row=3, column="age"), ReasonCode.DATASET_UNAVAILABLE),
        (DatasetUnreadable("no"), ReasonCode.DATASET_UNAVAILABLE),
        (MemoryError(), ReasonCode.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), ReasonCode.OUT_OF_MEMORY),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
            ReasonCode.OUT_OF_MEMORY,
        ),
        (ValueError("no"), ReasonCode.INTERNAL),
    ],
)
def test_every_failure_has_a_reason_of_the_closed_list(error: Exception, code: ReasonCode) -> None:
    assert failure_of(raised(error), private=False, plugin_packages=frozenset()).code is code


def test_code_of_another_package_is_blamed_only_for_what_passed_through_it() -> None:
    theirs = frozenset({"their_models"})
    error = raised(ValueError("no"), "their_models.net")
    assert failure_of(error, private=False, plugin_packages=theirs).code is ReasonCode.USER_CODE_ERROR
    assert failure_of(error, private=False, plugin_packages=frozenset()).code is ReasonCode.INTERNAL
    ours = raised(ValueError("no"))
    assert failure_of(ours, private=False, plugin_packages=theirs).code is ReasonCode.INTERNAL


def test_34_under_privacy_no_text_of_a_library_is_told() -> None:
    error = raised(ValueError("cannot use value 120391"), "their_models.net")
    told = failure_of(error, private=True, plugin_packages=frozenset()).model_dump_json()
    assert "120391" not in told
    assert "ValueError" in told
    assert "model.py:1" in told
    assert "/home/someone/" not in told
    assert "120391" in failure_of(error, private=False, plugin_packages=frozenset()).message


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_rows_are_the_same_from_memory_and_from_disk(name: str, tmp_path: Path) -> None:
    rows = write_rows(name, tmp_path / "rows.arrow")
    schema = BUILTINS[name].schema
    kept = EncodedRows(tmp_path / "rows.arrow", schema)
    streamed = EncodedRows(tmp_path / "rows.arrow", schema, kept_bytes=0)
    assert len(kept) == len(streamed) == rows
    for indices in (np.array([5, 1, 1, rows - 1]), np.empty(0, np.int64)):
        for ours, theirs in zip(kept.take(indices), streamed.take(indices), strict=True):
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (torch.nn.Linear(4, 3), 2 * 15),
        (torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)), 2 * (15 + 4)),
        (torch.nn.Sequential(torch.nn.Unflatten(1, (1, 2, 2)), torch.nn.Conv2d(1, 6, 1)), 2 * 4 * 12),
    ],
)
def test_the_work_of_a_model_is_its_parameters_times_their_positions(
    module: torch.nn.Module, count: int
) -> None:
    assert multiplications(module, torch.zeros(2, 4)) == count
    assert not any(part._forward_hooks for part in module.modules())


def test_a_small_step_has_one_thread_unless_the_environment_says_otherwise() -> None:
    assert wanted({}, 1e6)
    assert not wanted({}, 1e12)
    assert not wanted({"OMP_NUM_THREADS": "4"}, 1e6)


def test_a_full_disk_is_the_worker_s_trouble_and_not_the_job_s() -> None:
    assert is_full_disk(OSError(errno.ENOSPC, "No space left on device"))
    assert is_full_disk(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not is_full_disk(OSError(errno.EACCES, "Permission denied"))
    assert not is_full_disk(RuntimeError("index 28 is out of range"))
