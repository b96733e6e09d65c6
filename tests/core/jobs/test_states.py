"""The legal moves between states."""

import pytest

from clipwise.errors import IllegalTransition
from clipwise.jobs.states import (
    TERMINAL,
    TRANSITIONS,
    VERBS,
    JobStatus,
    allowed_verbs,
    require_verb,
)


def test_terminal_is_terminal() -> None:
    assert {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED} == TERMINAL
    assert all(TRANSITIONS[status] == frozenset() for status in TERMINAL)


def test_every_status_can_still_end() -> None:
    for start in JobStatus:
        reached = {start}
        while more := {after for status in reached for after in TRANSITIONS[status]} - reached:
            reached |= more
        assert reached & TERMINAL


def test_every_status_can_be_reached_from_a_submission() -> None:
    reached = {JobStatus.VALIDATING}
    while more := {after for status in reached for after in TRANSITIONS[status]} - reached:
        reached |= more
    assert reached == set(JobStatus)


def test_a_verb_that_is_not_allowed_says_what_is() -> None:
    with pytest.raises(IllegalTransition) as caught:
        require_verb("cancel", "job_1", JobStatus.SUCCEEDED)
    assert caught.value.allowed == ("clone", "delete")
    assert "allowed now: clone, delete" in str(caught.value)


def test_a_job_is_cancelled_or_deleted_but_never_both() -> None:
    for status in JobStatus:
        verbs = allowed_verbs(status)
        assert set(verbs) <= set(VERBS)
        assert not {"cancel", "delete"} <= set(verbs)
