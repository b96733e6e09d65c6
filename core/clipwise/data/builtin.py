"""Data sets that come with Clipwise, from scikit-learn.

Their bounds, classes and sizes are declared: round numbers from what the columns mean, fixed here and
not read off the rows. scikit-learn is imported only by the process that writes the rows.

Sources: UCI Machine Learning Repository (Alpaydin & Kaynak 1998; Wolberg et al. 1995; Aeberhard &
Forina 1992) and Efron et al., "Least Angle Regression", 2004.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipwise.data.rows import Block, RowWriter
from clipwise.data.schema import DatasetSchema, ImageFeature, NumberFeature, Size
from clipwise.errors import NotFound


@dataclass(frozen=True, kw_only=True)
class Builtin:
    """A built-in data set: its schema, and what it is about in one sentence."""

    schema: DatasetSchema
    description: str


def _numbers(bounds: Mapping[str, tuple[float, float]]) -> tuple[NumberFeature, ...]:
    return tuple(NumberFeature(name=name, bounds=limits) for name, limits in bounds.items())


_CELL_MEASURES: Mapping[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    # bounds of the mean over a sample's nuclei, of its standard error, and of the three worst
    "radius": ((0.0, 30.0), (0.0, 3.0), (0.0, 40.0)),
    "texture": ((0.0, 40.0), (0.0, 5.0), (0.0, 50.0)),
    "perimeter": ((0.0, 200.0), (0.0, 25.0), (0.0, 300.0)),
    "area": ((0.0, 3000.0), (0.0, 600.0), (0.0, 5000.0)),
    "smoothness": ((0.0, 0.2), (0.0, 0.05), (0.0, 0.3)),
    "compactness": ((0.0, 0.5), (0.0, 0.2), (0.0, 1.5)),
    "concavity": ((0.0, 0.5), (0.0, 0.5), (0.0, 1.5)),
    "concave points": ((0.0, 0.3), (0.0, 0.1), (0.0, 0.4)),
    "symmetry": ((0.0, 0.4), (0.0, 0.1), (0.0, 0.8)),
    "fractal dimension": ((0.0, 0.1), (0.0, 0.05), (0.0, 0.3)),
}
_BREAST_CANCER = {
    **{f"mean {name}": mean for name, (mean, _, _) in _CELL_MEASURES.items()},
    **{f"{name} error": error for name, (_, error, _) in _CELL_MEASURES.items()},
    **{f"worst {name}": worst for name, (_, _, worst) in _CELL_MEASURES.items()},
}
_WINE = {
    "alcohol": (10.0, 16.0),
    "malic_acid": (0.0, 6.0),
    "ash": (1.0, 4.0),
    "alcalinity_of_ash": (10.0, 30.0),
    "magnesium": (50.0, 200.0),
    "total_phenols": (0.0, 5.0),
    "flavanoids": (0.0, 6.0),
    "nonflavanoid_phenols": (0.0, 1.0),
    "proanthocyanins": (0.0, 4.0),
    "color_intensity": (0.0, 15.0),
    "hue": (0.0, 2.0),
    "od280/od315_of_diluted_wines": (1.0, 4.0),
    "proline": (0.0, 2000.0),
}
_DIABETES = {
    "age": (0.0, 100.0),
    "sex": (1.0, 2.0),
    "bmi": (10.0, 50.0),
    "bp": (50.0, 150.0),
    "s1": (50.0, 350.0),
    "s2": (0.0, 300.0),
    "s3": (0.0, 120.0),
    "s4": (0.0, 10.0),
    "s5": (2.0, 7.0),
    "s6": (50.0, 150.0),
}

BUILTINS: Mapping[str, Builtin] = {
    "digits": Builtin(
        description="1,797 handwritten digits as 8 by 8 pixel images; say which digit it is.",
        schema=DatasetSchema(
            features=(ImageFeature(name="image", shape=(8, 8, 1), bounds=(0.0, 16.0)),),
            target="digit",
            task="classification",
            classes=tuple(str(digit) for digit in range(10)),
            size=Size(value=1797),
        ),
    ),
    "breast_cancer": Builtin(
        description="30 measurements of cell nuclei from 569 breast biopsies; say malignant or benign.",
        schema=DatasetSchema(
            features=_numbers(_BREAST_CANCER),
            target="diagnosis",
            task="classification",
            classes=("malignant", "benign"),
            size=Size(value=569),
        ),
    ),
    "wine": Builtin(
        description="13 chemical measurements of 178 Italian wines; say from which of three cultivars.",
        schema=DatasetSchema(
            features=_numbers(_WINE),
            target="cultivar",
            task="classification",
            classes=("class_0", "class_1", "class_2"),
            size=Size(value=178),
        ),
    ),
    "diabetes": Builtin(
        description="10 measurements of 442 diabetes patients; predict the disease's progress in a year.",
        schema=DatasetSchema(
            features=_numbers(_DIABETES),
            target="progression",
            task="regression",
            target_bounds=(0.0, 400.0),
            size=Size(value=442),
        ),
    ),
}


def write_rows(name: str, path: Path) -> int:
    """Write a built-in data set as the row file that ingestion would make; return its number of rows.

    Raises:
        NotFound: if there is no built-in data set of this name.
    """
    if name not in BUILTINS:
        raise NotFound(f"there is no built-in data set '{name}'; there are: {', '.join(sorted(BUILTINS))}")
    from sklearn import datasets  # lazily: only a runner needs it

    schema = BUILTINS[name].schema
    if name == "digits":
        bunch = datasets.load_digits()
        block = Block(arrays={"image": bunch.data.astype(np.uint8)}, targets=bunch.target.astype(np.int64))
        array_types = {"image": np.uint8}
    else:
        # Not the standardised form of diabetes: its means and deviations were computed from the rows.
        loaders = {
            "breast_cancer": datasets.load_breast_cancer,
            "wine": datasets.load_wine,
            "diabetes": lambda: datasets.load_diabetes(scaled=False),
        }
        bunch = loaders[name]()
        target = np.int64 if schema.task == "classification" else np.float64
        block = Block(numbers=bunch.data, targets=bunch.target.astype(target))
        array_types = {}
    with RowWriter(path, schema, array_types=array_types) as writer:
        writer.append(block)
    return writer.rows
