"""The one way in which Clipwise declares configuration: frozen, keyword-only, checked on construction."""

from collections.abc import Callable
from dataclasses import field
from typing import Annotated, Any, TypeVar, dataclass_transform

from annotated_types import Ge, Gt, Lt
from pydantic import ConfigDict, Field, Strict
from pydantic.dataclasses import dataclass as pydantic_dataclass

T = TypeVar("T")

PositiveInt = Annotated[int, Gt(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Sequence = Strict(False)
"""Mark on a `tuple` field: a JSON array is accepted for it, while its items stay strict."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field, Field))
def configuration(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass that is checked when it is constructed.

    Numbers are strict (no strings, no booleans) and finite, unknown fields are errors. The same class
    is then plug-in, configuration and JSON schema.

    Raises:
        pydantic.ValidationError: on construction, naming the field, the value and the bound.

    Example:
        >>> @configuration
        ... class Decay:
        ...     rate: PositiveFloat = 0.1
        >>> Decay(rate=-1.0)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        pydantic_core._pydantic_core.ValidationError: 1 validation error for Decay
    """
    decorate: Callable[[type[T]], Any] = pydantic_dataclass(
        frozen=True,
        kw_only=True,
        config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, validate_default=True),
    )
    decorated: type[T] = decorate(cls)
    return decorated
