"""The OpenAPI document: `python -m clipwise_api.openapi` prints it, the same on every machine."""

import json
import sys
from typing import Any

from fastapi import FastAPI

from clipwise.settings import Settings
from clipwise.wire.jobs import JobProgressed
from clipwise.wire.listing import ProblemDocument, WireObject
from clipwise_api.app import create_app
from clipwise_api.principals import NO_KEY, PERMISSIONS

SECURITY_SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer cw_...`"},
}


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of `app`."""
    found = app.openapi()
    components = found["components"]
    for model in (ProblemDocument, JobProgressed):
        components["schemas"][model.__name__] = _schema_of(model, components["schemas"])
    components["schemas"].pop("HTTPValidationError", None)
    components["schemas"].pop("ValidationError", None)
    components["schemas"] = dict(sorted(components["schemas"].items()))
    components["securitySchemes"] = SECURITY_SCHEMES
    for operations in found["paths"].values():
        for operation in operations.values():
            needs_key = PERMISSIONS[operation["operationId"]] is not NO_KEY
            operation["security"] = [{"key": []}] if needs_key else []
            operation["responses"] = dict(sorted(operation["responses"].items()))
    return found


def main() -> None:
    """Print the document."""
    json.dump(document(create_app(Settings())), sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")


def _schema_of(model: type[WireObject], schemas: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
    for name, nested in schema.pop("$defs", {}).items():
        schemas.setdefault(name, nested)
    return schema


if __name__ == "__main__":
    main()
