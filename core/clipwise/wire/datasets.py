"""Data sets and populations on the wire."""

from typing import Literal

from pydantic import ConfigDict, Field

from clipwise.data.schema import DatasetSchema
from clipwise.wire.listing import UtcTime, WireObject

Visibility = Literal["public", "private"]


class Population(WireObject):
    """The people whom data sets are about."""

    id: str
    object: Literal["population"] = "population"
    name: str
    visibility: Visibility


class Dataset(WireObject):
    """A table of samples with its schema.

    `status` is `proposed` while the inferred schema waits for its owner's word, then `ready`.
    `sha256`, `size_bytes` and `rows` are null for everyone but owners where the population is private.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    status: Literal["proposed", "ready"]
    source: Literal["upload", "builtin"]
    format: Literal["csv", "parquet", "npz", "builtin"]
    population: Population
    # `schema` on the wire; the attribute has a longer name because pydantic's models own the short one.
    dataset_schema: DatasetSchema = Field(alias="schema")
    notes: list[str]
    rows: int | None
    size_bytes: int | None
    sha256: str | None
    created_at: UtcTime
