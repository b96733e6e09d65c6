"""What every architecture of the catalogue refuses, and how it says so."""

from clipwise.errors import InvalidSpec, Problem

MAX_PARAMETERS = 1_000_000_000
"""A larger model is refused at submission: no request may ask a worker for terabytes."""


def refuse(kind: str, field: str, detail: str) -> InvalidSpec:
    """Return the error for a `field` of a model's configuration that does not fit its data set."""
    pointer = f"/{field}" if field else ""
    return InvalidSpec(f"model '{kind}': {detail}", (Problem(pointer=pointer, detail=detail, code="misfit"),))


def require_at_most(kind: str, field: str, parameters: int) -> None:
    """Check that a model has at most `MAX_PARAMETERS` parameters.

    Raises:
        InvalidSpec: if it has more; it names `field` as what to make smaller.
    """
    if parameters > MAX_PARAMETERS:
        raise refuse(
            kind,
            field,
            f"this model would have {parameters:,} parameters; at most {MAX_PARAMETERS:,} are allowed: "
            f"{f'make {field} smaller' if field else 'use a data set with fewer features'}",
        )
