"""What a data set's columns mean, and which of its public numbers come from where."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

Origin = Literal["declared", "dp_estimate", "from_rows"]
"""Where a bound, a class list or a size comes from. `from_rows` is outside of a privacy guarantee."""

Task = Literal["classification", "regression"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
ListFromJson = Strict(False)


class Strictly(BaseModel):
    """Base of the schema's parts: unknown fields are errors, numbers are strict, values frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class NumberFeature(Strictly):
    """A column of numbers, scaled by its public bounds to [-1, 1] before training.

    Values outside of the bounds are clamped to them. An empty cell becomes `fill`; without `fill` it is
    an error that names row and column.
    """

    name: Annotated[str, Field(min_length=1)]
    type: Literal["number"] = "number"
    bounds: Annotated[tuple[Finite, Finite], ListFromJson]
    origin: Origin = "declared"
    fill: Finite | None = None


class CategoryFeature(Strictly):
    """A column of labels, one-hot encoded in the order of `categories`.

    A value that is not listed becomes `fill` if that is given, else an error with row and column.
    """

    name: Annotated[str, Field(min_length=1)]
    type: Literal["category"] = "category"
    categories: Annotated[tuple[str, ...], ListFromJson, Field(min_length=1)]
    origin: Origin = "declared"
    fill: str | None = None


class ImageFeature(Strictly):
    """An image of fixed `shape` (height, width, channels), scaled by its bounds to [-1, 1]."""

    name: Annotated[str, Field(min_length=1)]
    type: Literal["image"] = "image"
    shape: Annotated[tuple[int, int, int], ListFromJson]
    bounds: Annotated[tuple[Finite, Finite], ListFromJson]
    origin: Origin = "declared"


class ArrayFeature(Strictly):
    """An array of numbers of fixed `shape`, scaled by its bounds to [-1, 1]."""

    name: Annotated[str, Field(min_length=1)]
    type: Literal["array"] = "array"
    shape: Annotated[tuple[int, ...], ListFromJson, Field(min_length=1)]
    bounds: Annotated[tuple[Finite, Finite], ListFromJson]
    origin: Origin = "declared"


Feature = Annotated[
    NumberFeature | CategoryFeature | ImageFeature | ArrayFeature, Field(discriminator="type")
]


class Unit(Strictly):
    """What is protected: a row (`column` is null), or the rows of one person, at most `max_rows`."""

    column: str | None = None
    max_rows: Annotated[int, Field(ge=1)] = 1


class Size(Strictly):
    """The number of units, public under zero-out adjacency."""

    value: Annotated[int, Field(ge=1)]
    origin: Origin = "declared"


class DatasetSchema(Strictly):
    """Columns, target, task and public numbers of a data set (the wire of DESIGN, section 7)."""

    features: Annotated[tuple[Feature, ...], ListFromJson, Field(min_length=1)]
    target: Annotated[str, Field(min_length=1)]
    task: Task
    classes: Annotated[tuple[str, ...], ListFromJson] | None = None
    classes_origin: Origin = "declared"
    target_bounds: Annotated[tuple[Finite, Finite], ListFromJson] | None = None
    target_origin: Origin = "declared"
    unit: Unit = Unit()
    size: Size

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [feature.name for feature in self.features]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"features are named twice: {', '.join(repeated)}; every name once")
        if self.target in names:
            raise ValueError(f"the target '{self.target}' is also a feature; remove it from features")
        if self.task == "classification" and (self.classes is None or len(set(self.classes)) < 2):
            raise ValueError("a classification needs at least two different 'classes'")
        if self.task == "classification" and len(set(self.classes or ())) != len(self.classes or ()):
            raise ValueError("'classes' names a class twice; every class once")
        if self.task == "regression" and self.target_bounds is None:
            raise ValueError("a regression needs 'target_bounds': [lowest, highest] value of the target")
        bounded: list[tuple[str, tuple[float, float]]] = [
            (feature.name, feature.bounds)
            for feature in self.features
            if not isinstance(feature, CategoryFeature)
        ]
        if self.target_bounds is not None:
            bounded.append((self.target, self.target_bounds))
        for name, (low, high) in bounded:
            if not low < high:
                raise ValueError(
                    f"bounds of '{name}' are [{low}, {high}]; the first must be below the second"
                )
        for feature in self.features:
            if isinstance(feature, ImageFeature | ArrayFeature) and min(feature.shape) < 1:
                raise ValueError(f"shape of '{feature.name}' is {list(feature.shape)}; every side at least 1")
            if isinstance(feature, CategoryFeature):
                if len(set(feature.categories)) != len(feature.categories):
                    raise ValueError(f"'{feature.name}' lists a category twice; every category once")
                if feature.fill is not None and feature.fill not in feature.categories:
                    raise ValueError(f"fill of '{feature.name}' is not one of its categories")
        return self

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one encoded sample: (channels, height, width) for a single image, else (width,)."""
        if len(self.features) == 1 and isinstance(self.features[0], ImageFeature):
            height, width, channels = self.features[0].shape
            return (channels, height, width)
        return (sum(_width(feature) for feature in self.features),)

    @property
    def output_size(self) -> int:
        """Number of outputs of a model for this task: classes, or 1."""
        return len(self.classes) if self.task == "classification" and self.classes else 1

    @property
    def outside_of_guarantee(self) -> tuple[str, ...]:
        """Public numbers that were read off the rows, and so are outside of a privacy guarantee."""
        named = [f"bounds or categories of '{f.name}'" for f in self.features if f.origin == "from_rows"]
        if self.task == "classification" and self.classes_origin == "from_rows":
            named.append("classes")
        if self.task == "regression" and self.target_origin == "from_rows":
            named.append("target_bounds")
        if self.size.origin == "from_rows":
            named.append("size")
        return tuple(named)

    def as_json(self) -> dict[str, Any]:
        """Return the schema as its JSON object."""
        return self.model_dump(mode="json")


def _width(feature: Feature) -> int:
    if isinstance(feature, NumberFeature):
        return 1
    if isinstance(feature, CategoryFeature):
        return len(feature.categories)
    width = 1
    for side in feature.shape:
        width *= side
    return width
