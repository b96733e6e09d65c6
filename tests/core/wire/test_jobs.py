"""What a client makes of answers of a service that is newer than itself."""

from datetime import UTC, datetime
from typing import Any

from clipwise.wire.jobs import Job


def answer(**fields: Any) -> dict[str, Any]:
    """Return a job as a service might answer it."""
    nothing = dict.fromkeys(
        (
            "name",
            "phase",
            "status_reason",
            "progress",
            "plan",
            "privacy",
            "result",
            "started_at",
            "finished_at",
        )
    )
    return {
        **nothing,
        "id": "job_1",
        "object": "job",
        "status": "queued",
        "spec": {"dataset": "digits"},
        "dataset_id": "dat_1",
        "attempt": 0,
        "tags": {},
        "allowed": ["cancel"],
        "created_at": datetime.now(UTC).isoformat(),
        **fields,
    }


def test_a_specification_of_another_version_is_read_as_it_is() -> None:
    spec = {
        "dataset": "digits",
        "clipping": {"kind": "of_next_year"},
        "optimizer": {"modules": [{"kind": "new"}]},
    }
    assert Job.model_validate(answer(spec=spec)).spec == spec


def test_a_field_of_another_version_is_ignored() -> None:
    assert Job.model_validate(answer(priority=3)).id == "job_1"
