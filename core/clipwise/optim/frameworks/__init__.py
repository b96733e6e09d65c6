"""Array arithmetic of the optimizer, one table per framework, imported when an array of it is seen."""

from functools import cache
from importlib import import_module

from clipwise.errors import InvalidInput
from clipwise.optim.frameworks.arrays import Array, Arrays

FRAMEWORKS = {
    "numpy": "clipwise.optim.frameworks.numpy_arrays:NumpyArrays",
    "torch": "clipwise.optim.frameworks.torch_arrays:TorchArrays",
}

__all__ = ["FRAMEWORKS", "Array", "Arrays", "arrays_for"]


def arrays_for(array: Array) -> Arrays:
    """Return the arithmetic for arrays like `array`.

    Raises:
        InvalidInput: if no framework here has such arrays.
    """
    kind = type(array)
    # A subclass of another package (somebody's memory map) counts as what it derives from.
    for base in kind.__mro__:
        framework = base.__module__.partition(".")[0]
        if framework in FRAMEWORKS:
            return _load(framework)
    raise InvalidInput(
        f"the optimizer cannot calculate with a {kind.__module__}.{kind.__qualname__}; "
        f"give arrays of {' or '.join(sorted(FRAMEWORKS))}"
    )


@cache
def _load(framework: str) -> Arrays:
    module, _, name = FRAMEWORKS[framework].partition(":")
    arrays: Arrays = getattr(import_module(module), name)()
    return arrays
