"""The environment that the service is set up by."""

import pytest

from clipwise.settings import Settings
from tests.conftest import ROOT


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "PORT", "HOST", "QUEUES", "DATABASE_URL", "PUBLIC_URL"):
        monkeypatch.delenv(f"CLIPWISE_{name}", raising=False)
    unset = Settings()
    for name in ("API_KEY", "PORT", "HOST", "QUEUES", "DATABASE_URL", "PUBLIC_URL"):
        monkeypatch.setenv(f"CLIPWISE_{name}", "")
    assert Settings() == unset


def test_every_variable_is_written_down() -> None:
    written = (ROOT / "docs" / "deployment.md").read_text()
    missing = [name for name in Settings.model_fields if f"`CLIPWISE_{name.upper()}`" not in written]
    assert missing == []
