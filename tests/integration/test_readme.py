"""The README's Python, run as it stands."""

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.integration.conftest import Service

PYTHON = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def run(snippet: str, folder: Path, service: Service) -> str:
    """Run a snippet in a folder, with the service where a client looks for it; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=folder,
        env=service.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def snippet_with(word: str) -> str:
    """Return the README's one Python snippet that holds a word."""
    (found,) = [snippet for snippet in PYTHON if word in snippet]
    return found


def test_the_client_trains_and_the_model_loads(service: Service, tmp_path: Path) -> None:
    accuracy, epsilon = map(float, run(snippet_with("Client()"), tmp_path, service).split())
    assert accuracy > 0.5
    assert epsilon <= 3.0
    with service.client() as client:
        (job, *_) = client.jobs(model="logistic", status=["succeeded"])
        for name in ("model.safetensors", "config.json"):
            client.download(job.id, name, tmp_path / "downloads" / "digits" / name)
    assert run(snippet_with("saved.load"), tmp_path, service).strip() in set("0123456789")


def test_the_library_alone(service: Service, tmp_path: Path) -> None:
    run(snippet_with("compute_batch_gradients"), tmp_path, service)


def test_no_snippet_is_left_out() -> None:
    assert len(PYTHON) == 3


def test_the_privacy_guide_checks_a_statement(service: Service, tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "privacy.md").read_text()
    (snippet,) = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    spec = {
        "dataset": "wine",
        "model": {"kind": "logistic"},
        "training": {"steps": 10, "batch_size": 32},
        "clipping": {"max_norm": 1.0},
        "privacy": {"noise_multiplier": 1.5, "delta": 1e-4},
    }
    with service.client() as client:
        job = client.submit(spec, wait=True)
        statement = client.download(job.id, "privacy.json", tmp_path / "privacy.json")
    run(snippet, tmp_path, service)
    changed = statement.read_text().replace('"steps": 10', '"steps": 11')
    assert changed != statement.read_text()
    statement.write_text(changed)
    done = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True)
    assert "AssertionError" in done.stderr
