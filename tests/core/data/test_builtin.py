"""Built-in data sets: the declared numbers contain the data, and nothing heavy is imported for the table."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipwise.data.builtin import BUILTINS, write_rows
from clipwise.data.encoding import Encoder
from clipwise.data.rows import ARRAY_PREFIX, NUMBERS, TARGET, RowFile, matrix
from clipwise.data.schema import NumberFeature
from clipwise.errors import NotFound


@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_declared_numbers_contain_the_data(name: str, tmp_path: Path) -> None:
    schema = BUILTINS[name].schema
    assert write_rows(name, tmp_path / "rows") == schema.size.value
    rows = RowFile(tmp_path / "rows")
    table = rows.take(np.arange(len(rows)))
    assert len(rows) == schema.size.value
    assert schema.outside_of_guarantee == ()
    if name == "digits":
        values = matrix(table, f"{ARRAY_PREFIX}image")
        bounds = [schema.features[0].bounds] * values.shape[1]  # type: ignore[union-attr]
    else:
        values = matrix(table, NUMBERS)
        bounds = [feature.bounds for feature in schema.features if isinstance(feature, NumberFeature)]
    low, high = np.array(bounds).T
    assert np.all(values >= low.astype(values.dtype))
    assert np.all(values <= high.astype(values.dtype))
    targets = matrix(table, TARGET)
    if schema.classes is not None:
        assert set(targets.tolist()) == set(range(len(schema.classes)))
    else:
        assert schema.target_bounds is not None
        assert schema.target_bounds[0] <= targets.min() <= targets.max() <= schema.target_bounds[1]
    inputs, encoded = Encoder(schema).encode(table)
    assert inputs.shape == (len(rows), *schema.input_shape)
    assert inputs.dtype == np.float32
    assert encoded.dtype == (np.int64 if schema.task == "classification" else np.float32)
    assert np.abs(inputs).max() <= 1.0


def test_rows_are_those_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.datasets import load_breast_cancer, load_digits

    write_rows("digits", tmp_path / "digits")
    rows = RowFile(tmp_path / "digits")
    inputs, targets = Encoder(BUILTINS["digits"].schema).encode(rows.take([5, 1796, 5]))
    digits = load_digits()
    np.testing.assert_allclose(inputs[:, 0] * 8 + 8, digits.images[[5, 1796, 5]])
    assert targets.tolist() == digits.target[[5, 1796, 5]].tolist()

    write_rows("breast_cancer", tmp_path / "cancer")
    cancer = load_breast_cancer()
    names = [feature.name for feature in BUILTINS["breast_cancer"].schema.features]
    assert names == list(cancer.feature_names)
    assert BUILTINS["breast_cancer"].schema.classes == tuple(cancer.target_names)
    stored = matrix(RowFile(tmp_path / "cancer").take([3, 400]), NUMBERS)
    np.testing.assert_allclose(stored, cancer.data[[3, 400]], rtol=1e-6)


def test_table_needs_no_framework() -> None:
    heavy = "('torch', 'sklearn', 'scipy')"
    code = f"import sys, clipwise.data.builtin; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_name_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="breast_cancer, diabetes, digits, wine"):
        write_rows("mnist", tmp_path / "rows")
