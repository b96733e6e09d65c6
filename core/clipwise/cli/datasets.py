"""Data sets: upload, look at, confirm the schema, delete."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clipwise.cli.documents import read_document
from clipwise.cli.options import JsonFlag, Limit, connect
from clipwise.cli.output import facts, print_json, say, table

if TYPE_CHECKING:
    from clipwise.data.schema import Feature
    from clipwise.wire.datasets import Dataset

app = typer.Typer(
    help="Upload data sets, look at them, confirm their schemas.", pretty_exceptions_enable=False
)
DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help="Its name or id.")]
SchemaFile = Annotated[
    str | None,
    typer.Option(
        "--schema", metavar="FILE", help="Its schema as JSON, or as TOML (*.toml); - is JSON on stdin."
    ),
]
RowsPerPerson = Annotated[
    int | None, typer.Option(min=1, help="How many rows one person may own; 1 if a row is all they have.")
]


@app.command("list")
def list_(limit: Limit = 100, as_json: JsonFlag = False) -> None:
    """List the data sets."""
    with connect() as client:
        found = list(client.datasets(limit=limit))
    if as_json:
        print_json(found)
        return
    table(
        ("NAME", "STATUS", "TASK", "SIZE", "FEATURES", "VISIBILITY", "SOURCE", "ID"),
        (
            (
                dataset.name,
                dataset.status,
                dataset.dataset_schema.task,
                dataset.dataset_schema.size.value,
                len(dataset.dataset_schema.features),
                dataset.population.visibility,
                dataset.source,
                dataset.id,
            )
            for dataset in found
        ),
        empty="No data sets: add one with 'clipwise datasets add FILE'.",
    )


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV, Parquet or NPZ file.")],
    name: Annotated[str | None, typer.Option(help="What to call it; the file's name without.")] = None,
    schema: SchemaFile = None,
    visibility: Annotated[
        Literal["public", "private"] | None,
        typer.Option(help="Whether the people whom it is about need protection; private without."),
    ] = None,
    max_rows_per_person: RowsPerPerson = None,
    population: Annotated[
        str | None, typer.Option(help="Whom the rows are about; they share one privacy budget.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Column to predict, for the proposed schema.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Upload a data set."""
    document = read_document(schema) if schema else None
    with connect() as client:
        added = client.add_dataset(
            file,
            name=name,
            schema=document,
            visibility=visibility,
            max_rows_per_person=max_rows_per_person,
            population=population,
            target=target,
        )
    if as_json:
        print_json(added)
        return
    _describe(added)
    if added.status == "proposed":
        say(f"Check the schema, then: clipwise datasets confirm {added.id}  (or with --schema FILE)")


@app.command("show")
def show_(dataset: DatasetName, as_json: JsonFlag = False) -> None:
    """Show a data set and its schema."""
    with connect() as client:
        found = client.dataset(dataset)
    if as_json:
        print_json(found)
    else:
        _describe(found)


@app.command()
def confirm(
    dataset: DatasetName,
    schema: SchemaFile = None,
    max_rows_per_person: RowsPerPerson = None,
    as_json: JsonFlag = False,
) -> None:
    """Confirm the proposed schema, or replace it by the one in --schema."""
    document = read_document(schema) if schema else None
    with connect() as client:
        if max_rows_per_person is not None:
            if document is None:
                document = client.dataset(dataset).dataset_schema.as_json()
            unit = document.get("unit")
            document["unit"] = {**(unit if isinstance(unit, dict) else {}), "max_rows": max_rows_per_person}
        confirmed = client.confirm_schema(dataset, document)
    if as_json:
        print_json(confirmed)
    else:
        say(f"{confirmed.name} ({confirmed.id}) is {confirmed.status}")


@app.command()
def delete(dataset: DatasetName, as_json: JsonFlag = False) -> None:
    """Delete a data set and its rows; its jobs stay."""
    with connect() as client:
        deleted = client.delete_dataset(dataset)
    if as_json:
        print_json(deleted)
    else:
        say(f"{deleted.id} is deleted")


def _describe(dataset: "Dataset") -> None:
    schema = dataset.dataset_schema
    facts(
        (
            ("id", dataset.id),
            ("status", dataset.status),
            ("population", f"{dataset.population.name} ({dataset.population.visibility})"),
            ("per person", f"up to {schema.unit.max_rows} rows" if schema.unit.max_rows > 1 else None),
            ("size", f"{schema.size.value} ({schema.size.origin})"),
            ("rows", dataset.rows),
            ("target", f"{schema.target} ({schema.task})"),
            ("classes", ", ".join(schema.classes) if schema.classes else None),
            ("target bounds", list(schema.target_bounds) if schema.target_bounds else None),
            ("SHA-256", dataset.sha256),
            *(("note", note) for note in dataset.notes),
        ),
        title=dataset.name,
    )
    table(
        ("FEATURE", "TYPE", "VALUES", "ORIGIN"),
        ((feature.name, feature.type, _values(feature), feature.origin) for feature in schema.features[:50]),
        empty="No features.",
    )
    if len(schema.features) > 50:
        say(f"and {len(schema.features) - 50} more: clipwise datasets show {dataset.id} --json")


def _values(feature: "Feature") -> str:
    if feature.type == "category":
        return ", ".join(feature.categories)
    bounds = f"{feature.bounds[0]:g} to {feature.bounds[1]:g}"
    return bounds if feature.type == "number" else f"{'x'.join(map(str, feature.shape))}, {bounds}"
