"""What importing a package brings along, seen in a fresh interpreter.

The import contracts in pyproject read the source; this sees what an eager `__init__` or a third
library really loads.
"""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FRAMEWORKS = {"torch", "jax", "sklearn"}
SERVICE = {"pydantic_settings", "sqlalchemy", "celery", "fastapi"}
TORCH_FREE = (
    "clipwise_api",
    "clipwise.jobs",
    "clipwise.store",
    "clipwise.artifacts",
    "clipwise.cli",
    "clipwise.client",
    "clipwise.wire",
    "clipwise.optim",
    "clipwise.schedules",
    "clipwise.privacy",
    "clipwise.architectures",
    "clipwise.data",
)
ENGINE = (
    "clipwise.clipping",
    "clipwise.models",
    "clipwise.optim",
    "clipwise.schedules",
    "clipwise.privacy",
    "clipwise.training",
)
IMPORT_ALL = """
import importlib, json, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def loaded_by(package: str) -> set[str]:
    """Return the top-level packages that importing all of `package` loads."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, package], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("package", TORCH_FREE)
def test_the_api_side_loads_no_framework(package: str) -> None:
    assert not loaded_by(package) & FRAMEWORKS


@pytest.mark.parametrize("package", ENGINE)
def test_the_engine_loads_no_service(package: str) -> None:
    assert not loaded_by(package) & SERVICE


def test_the_celery_process_of_a_worker_loads_no_framework() -> None:
    script = (
        "import json, sys, clipwise_worker.tasks, clipwise_worker.supervisor; "
        "print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & FRAMEWORKS


def test_the_root_package_imports_nothing() -> None:
    script = "import sys; before = {*sys.modules}; import clipwise; print(sorted({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['clipwise']"


def test_the_check_would_see_torch() -> None:
    assert "torch" in loaded_by("clipwise.models")


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty_words = {"utils", "helpers", "common", "base", "manager"}
    folders = ("core", "api/clipwise_api", "worker", "migrations", "frontend/src", "tests", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert len(files) > 300, "the folders have moved"
    assert [path for path in files if path.name.partition(".")[0] in empty_words] == []
