"""How errors read."""

import json

import pytest

from clipwise.cli.failures import RefusedDocument, report
from clipwise.client.errors import error_of
from clipwise.errors import ConfigurationError
from clipwise.wire.listing import FieldProblem, ProblemDocument


def refused(*errors: tuple[str, str]) -> ProblemDocument:
    return ProblemDocument(
        title="Unprocessable Content",
        status=422,
        code="invalid_spec",
        detail="two fields are wrong",
        request_id="r1",
        errors=[FieldProblem(pointer=pointer, detail=detail, code="c") for pointer, detail in errors],
    )


def test_a_refused_job_names_field_value_and_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"training": {"steps": -1}, "optimizer": {"modules": [{"kind": "adm"}]}, "a/b": {"~": "x"}}
    errors = (
        ("/training/steps", "at least 1"),
        ("/optimizer/modules/0/kind", "known: adam"),
        ("/a~1b/~0", "too short"),
        ("/model", "Field required"),
        ("", "give either"),
    )
    error = RefusedDocument(error_of(refused(*errors)), document)
    assert report(error, as_json=False) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: /training/steps is -1: at least 1",
        'error: /optimizer/modules/0/kind is "adm": known: adam',
        'error: /a~1b/~0 is "x": too short',
        "error: /model: Field required",
        "error: give either",
    ]


def test_many_problems_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    report(error_of(refused(*[(f"/{number}", "no") for number in range(30)])), as_json=False)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "error: and 20 more"


def test_the_problem_document_is_the_services(capsys: pytest.CaptureFixture[str]) -> None:
    document = refused(("/x", "no"))
    assert report(RefusedDocument(error_of(document), {}), as_json=True) == 1
    assert json.loads(capsys.readouterr().err) == document.model_dump(mode="json", exclude_none=True)


def test_what_a_service_says_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report(ConfigurationError("red \x1b[31m and \r back"), as_json=False)
    assert capsys.readouterr().err == "error: red \ufffd[31m and \ufffd back\n"
