"""Whether a job may be submitted: what can be told at once, with a pointer to each field."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing.exceptions import Unresolvable
from sqlalchemy.orm import Session

from clipwise import architectures
from clipwise.data.schema import DatasetSchema
from clipwise.errors import InvalidSpec, NotFound, Problem
from clipwise.jobs.planning import Outline, outline
from clipwise.jobs.spec import JobSpec
from clipwise.store import datasets, workers
from clipwise.store.tables import DatasetRow
from clipwise_api.principals import Principal

MOST_PROBLEMS = 20


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A specification that fits its data set; `private`: its rows are of a private population."""

    dataset: DatasetRow
    private: bool
    outline: Outline


def admit(session: Session, who: Principal, spec: JobSpec, *, share: bool = False) -> Admitted:
    """Check a specification against its data set and the catalogue.

    Args:
        session: an open session.
        who: the caller.
        spec: the specification.
        share: whether the data set is kept as it is until the transaction ends.

    Raises:
        InvalidSpec: with one problem for each field that is wrong.
    """
    try:
        dataset, population = datasets.get(
            session, spec.dataset, exact=who.is_owner, lock="share" if share else None
        )
    except NotFound as error:
        detail = f"there is no data set '{spec.dataset}'; GET /v1/datasets lists them"
        raise _invalid("/dataset", detail, "unknown_dataset") from error
    if dataset.status != "ready":
        detail = (
            f"the schema of '{dataset.name}' is only a proposal; confirm it first: "
            f"PUT /v1/datasets/{dataset.id}/schema"
        )
        raise _invalid("/dataset", detail, "unconfirmed_schema")
    if population.visibility == "private" and spec.privacy is None and not who.is_owner:
        detail = f"'{dataset.name}' is private: give 'privacy', or ask an owner to submit the job without"
        raise _invalid("/privacy", detail, "privacy_required")
    kind = str(spec.model["kind"])
    # What is installed here was checked with the specification; only for another kind workers are asked.
    announced = {} if kind in architectures.kinds() else workers.kinds_of_live_workers(session)
    if kind in announced:
        problems = tuple(_misfits(announced[kind].json_schema, spec.model))
        if problems:
            raise InvalidSpec("; ".join(f"{p.pointer}: {p.detail}" for p in problems[:3]), problems)
    schema = DatasetSchema.model_validate(dataset.dataset_schema)
    return Admitted(
        dataset=dataset,
        private=population.visibility == "private",
        outline=outline(spec, schema, model_kinds=set(announced)),
    )


def _misfits(schema: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        Draft202012Validator.check_schema(dict(schema))
        errors = sorted(
            Draft202012Validator(dict(schema)).iter_errors(dict(config)), key=lambda e: e.json_path
        )
    except (SchemaError, Unresolvable):
        detail = "the worker that has this kind announced a schema that cannot be used; ask its operator"
        yield Problem(pointer="/model/kind", detail=detail, code="unusable_schema")
        return
    for error in errors[:MOST_PROBLEMS]:
        path = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.absolute_path)
        yield Problem(pointer=f"/model{path}", detail=error.message[:500], code=str(error.validator))


def _invalid(pointer: str, detail: str, code: str) -> InvalidSpec:
    return InvalidSpec(f"{pointer}: {detail}", (Problem(pointer=pointer, detail=detail, code=code),))
