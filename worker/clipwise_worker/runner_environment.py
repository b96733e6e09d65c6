"""The environment of a runner: what a program needs to start, and nothing that opens a door."""

import os
import re
from collections.abc import Mapping

KEPT = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "VIRTUAL_ENV",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
    }
)
KEPT_PREFIXES = (
    "LC_",
    "PYTHON",
    "XDG_",
    "CUDA",
    "NVIDIA_",
    "NCCL_",
    "ROCR_",
    "HIP_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "KMP_",
    "GOMP_",
    "TORCH",
    "PYTORCH_",
    "TRITON_",
    "MALLOC_",
)
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}
"""For glibc: memory that a step frees stays for the next one. Giving it back and getting it anew, page by
page, takes a tenth to a quarter of a step's time; it all goes back with the runner."""
SECRET = re.compile(r"KEY|TOKEN|PASSW|SECRET|CREDENTIAL|AUTH|URL|DSN", re.IGNORECASE)


def runner_environment(own: Mapping[str, str], slots: int = 1) -> dict[str, str]:
    """Return the environment of a runner, chosen from the worker's own.

    A variable passes by its name alone: a list of what may pass cannot forget a secret. What looks like one
    is left out even there.

    Args:
        own: the worker's environment.
        slots: runners that share the machine, and so its cores.
    """
    passed = {
        name: value
        for name, value in own.items()
        if (name in KEPT or name.startswith(KEPT_PREFIXES)) and not SECRET.search(name)
    }
    passed = ALLOCATOR | passed
    if slots > 1:
        passed.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // slots)))
    return passed | {
        # What it prints arrives when it is printed, and no module comes from the folder that it runs in.
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
    }
