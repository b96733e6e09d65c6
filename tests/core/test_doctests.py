"""The examples in docstrings, run."""

import doctest
import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import clipwise


def modules_with_examples() -> list[str]:
    """Return the modules of the library whose source holds an example that can be run."""
    names = [found.name for found in pkgutil.walk_packages(clipwise.__path__, "clipwise.")]
    found = {name: importlib.util.find_spec(name) for name in names if not name.endswith("__main__")}
    sources = {name: Path(spec.origin).read_text() for name, spec in found.items() if spec and spec.origin}
    # A client's example needs a service: the README's, which is run elsewhere, is the same.
    return [name for name, source in sources.items() if ">>> " in source and "doctest: +SKIP" not in source]


EXAMPLES = modules_with_examples()


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_true(name: str) -> None:
    module: ModuleType = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed
