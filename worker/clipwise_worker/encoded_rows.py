"""The rows of an attempt: read from its file, encoded by its schema, kept in memory where they are small."""

import math
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from clipwise.data.encoding import Encoder
from clipwise.data.rows import RowFile
from clipwise.data.schema import DatasetSchema

KEPT_BYTES = 64 * 2**20
_BLOCK = 65_536

Taken = tuple[npt.NDArray[Any], npt.NDArray[Any]]


@final
class EncodedRows:
    """Samples of a row file as a model is given them.

    A small data set is encoded once; of a larger one every sampled row is read and encoded when it is
    drawn, so that memory does not grow with the file.
    """

    def __init__(self, path: Path, schema: DatasetSchema, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._file = RowFile(path)
        self._encoder = Encoder(schema)
        encoded_bytes = len(self._file) * (4 * math.prod(schema.input_shape) + 8)
        self._kept = self._encode_all() if len(self._file) and encoded_bytes <= kept_bytes else None

    def __len__(self) -> int:
        return len(self._file)

    def take(self, indices: npt.NDArray[np.int64]) -> Taken:
        """Return the inputs (B, ...) and targets (B,) of the rows at `indices`, in that order."""
        if self._kept is None:
            return self._encoder.encode(self._file.take(indices))
        inputs, targets = self._kept
        return inputs[indices], targets[indices]

    def _encode_all(self) -> Taken:
        blocks = [
            self._encoder.encode(self._file.take(np.arange(start, min(start + _BLOCK, len(self._file)))))
            for start in range(0, len(self._file), _BLOCK)
        ]
        inputs, targets = zip(*blocks, strict=True)
        return np.concatenate(inputs), np.concatenate(targets)
