"""Errors as one clear line, or as a problem document for machines; and the exit code that they give."""

import json
from collections.abc import Mapping
from typing import Any

import typer

from clipwise.cli.output import printable, say
from clipwise.errors import ClipwiseError, InvalidInput, Problem

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
MOST_PROBLEMS = 10


class JobNotSucceeded(ClipwiseError):
    """The job that was waited for failed or was cancelled."""

    code = "job_not_succeeded"


class WrongFile(typer.TyperException):
    """A file that was given on the command line cannot be used."""

    exit_code = WRONG_USAGE


class WrongUsage(typer.TyperException):
    """What was given on the command line does not go together."""

    exit_code = WRONG_USAGE


class RefusedDocument(ClipwiseError):
    """A document that was refused, with each field's value beside what is wrong with it."""

    def __init__(self, error: ClipwiseError, document: Mapping[str, Any]) -> None:
        super().__init__(error.detail)
        self.error = error
        self.document = document


def report(error: Exception, *, as_json: bool) -> int:
    """Print an error on stderr and return the exit code."""
    if as_json:
        say(json.dumps(_problem(error), ensure_ascii=False), error=True)
        return FAILED
    for line in _lines(error):
        say(f"error: {printable(line)}", error=True)
    return FAILED


def report_usage(error: typer.TyperException, *, as_json: bool) -> int:
    """Print what is wrong with the command line and return the exit code."""
    detail = error.format_message()
    if as_json:
        say(json.dumps({"title": "Wrong usage", "code": "usage", "detail": detail}), error=True)
        return error.exit_code
    context = getattr(error, "ctx", None)
    hint = f" (see: {context.command_path} --help)" if context is not None else ""
    say(f"error: {printable(' '.join(detail.split()))}{hint}", error=True)
    return error.exit_code


def _lines(error: Exception) -> list[str]:
    document: Mapping[str, Any] | None = None
    if isinstance(error, RefusedDocument):
        document, error = error.document, error.error
    if not isinstance(error, ClipwiseError):
        what = f"unexpected {type(error).__name__}: {error}"
        return [f"{what} (please report it; CLIPWISE_TRACEBACK=1 shows where it happened)"]
    problems = _problems(error)
    if not problems:
        return [error.detail]
    lines = [_line(problem, document) for problem in problems[:MOST_PROBLEMS]]
    left = len(problems) - len(lines)
    return [*lines, f"and {left} more"] if left else lines


def _line(problem: Problem, document: Mapping[str, Any] | None) -> str:
    if not problem.pointer:
        return problem.detail
    found, value = _at(document, problem.pointer)
    given = f" is {json.dumps(value, ensure_ascii=False)[:80]}" if found else ""
    return f"{problem.pointer}{given}: {problem.detail}"


def _at(document: Any, pointer: str) -> tuple[bool, Any]:
    """Return whether `document` has a short value at a JSON pointer, and the value."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, Mapping) and key in document:
            document = document[key]
        elif isinstance(document, list | tuple) and key.isdigit() and int(key) < len(document):
            document = document[int(key)]
        else:
            return False, None
    return not isinstance(document, Mapping | list | tuple), document


def _problems(error: Exception) -> tuple[Problem, ...]:
    found = error.problems if isinstance(error, InvalidInput) else getattr(error, "problems", ())
    return tuple(found)


def _problem(error: Exception) -> dict[str, Any]:
    if isinstance(error, RefusedDocument):
        error = error.error
    document = getattr(error, "document", None)
    if document is not None:
        dumped: dict[str, Any] = document.model_dump(mode="json", exclude_none=True)
        return dumped
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": type(error).__name__,
        "code": error.code if isinstance(error, ClipwiseError) else "unexpected",
        "detail": str(error),
    }
    if _problems(error):
        problem["errors"] = [
            {"pointer": p.pointer, "detail": p.detail, "code": p.code} for p in _problems(error)
        ]
    return problem
