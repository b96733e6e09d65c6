"""Clip rules: from the norms of units to the factors that their gradients are scaled with.

A rule comes in one of two forms, and the engine takes both:

- A `ClipRule` sees one norm per unit and gives one factor per unit. On its own it clips by the joint norm
  over all trained parameters.
- A `PartedClipRule` first divides the parameters into parts, and gives each part a `ClipRule` of its own.

A rule of one's own is a class with the attributes of either form; it derives from nothing:

    >>> class NormalClip:
    ...     sensitivity = 1.0
    ...
    ...     def factors(self, norms):
    ...         return 1.0 / norms
    >>> sensitivity_of(NormalClip(), ["weight", "bias"])
    1.0

What one unit can then contribute at most is `joint_sensitivity` of the parts: noise is calibrated to it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, final, runtime_checkable

from clipwise.errors import InvalidInput
from clipwise.schedules.bounds import LARGEST_NORM, SMALLEST_NORM
from clipwise.schedules.flat_clip import FlatClip


@runtime_checkable
class ClipRule(Protocol):
    """Maps norms (G,) to factors (G,) and states what one unit can then contribute at most.

    A factor may depend on the norm at its own place alone: one that looks at other units would let them
    change what a unit contributes, which no sensitivity bounds. The engine holds a rule to its word: a
    factor that would let a unit exceed `sensitivity` is lowered.
    """

    @property
    def sensitivity(self) -> float:
        """Largest L2 norm that one unit's scaled gradient can have."""
        ...

    def factors(self, norms: Any) -> Any:
        """Return the factors (G,) for the norms (G,), an array of any framework, in float64."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Part:
    """Parameters whose joint norm one rule sees.

    Attributes:
        label: what the part is called.
        names: canonical names of its parameters; a tied parameter is one, under its first name.
        rule: maps the norms of units over these parameters to factors, and states their sensitivity.
    """

    label: str
    names: tuple[str, ...]
    rule: ClipRule


@runtime_checkable
class PartedClipRule(Protocol):
    """Divides the trained parameters into parts, each with a rule of its own."""

    def parts(self, names: Sequence[str]) -> tuple[Part, ...]:
        """Return the parts of the parameters `names`: each name is in exactly one.

        Raises:
            InvalidInput: if the rule does not fit these parameters, naming one.
        """
        ...


AnyClipRule: TypeAlias = ClipRule | PartedClipRule

WHOLE = "all"
"""Label of the one part of a rule that sees the joint norm."""


def parts_of(rule: AnyClipRule, names: Sequence[str]) -> tuple[Part, ...]:
    """Return the parts into which `rule` divides the trained parameters `names`.

    Raises:
        InvalidInput: if a parameter is not in exactly one part, or a part bounds nothing.

    Example:
        >>> [part.names for part in parts_of(FlatClip(max_norm=1.0), ["weight", "bias"])]
        [('weight', 'bias')]
    """
    if isinstance(rule, PartedClipRule):
        parts = tuple(rule.parts(tuple(names)))
    else:
        parts = (Part(label=WHOLE, names=tuple(names), rule=rule),)
    for part in parts:
        _require_bounded(part.rule)
    held = Counter(name for part in parts for name in part.names)
    for name in (*names, *held):
        if held[name] != 1 or name not in names:
            raise InvalidInput(
                f"the clip rule {type(rule).__name__} has parameter '{name}' in {held[name]} parts; "
                "every trained parameter must be in exactly one, and no other"
            )
    return parts


def joint_sensitivity(parts: Sequence[Part]) -> float:
    """Return the largest joint L2 norm of one unit's scaled gradient: the root of the parts' squares.

    Example:
        >>> rules = {"a": FlatClip(max_norm=3.0), "b": FlatClip(max_norm=4.0)}
        >>> joint_sensitivity([Part(label=n, names=(n,), rule=rule) for n, rule in rules.items()])
        5.0
    """
    return math.hypot(*(part.rule.sensitivity for part in parts))


def sensitivity_of(rule: AnyClipRule, names: Sequence[str]) -> float:
    """Return `joint_sensitivity` of the parts of `rule` over the trained parameters `names`."""
    return joint_sensitivity(parts_of(rule, names))


def as_clip_rule(max_norm: Any) -> AnyClipRule:
    """Return `max_norm` if it is a rule, else the flat rule with this bound.

    Raises:
        InvalidInput: if it is neither a rule nor a positive, finite number.
    """
    if isinstance(max_norm, FlatClip):
        return max_norm
    if isinstance(max_norm, PartedClipRule) and not isinstance(max_norm, type):
        return max_norm
    if isinstance(max_norm, ClipRule) and not isinstance(max_norm, type):
        _require_bounded(max_norm)
        return max_norm
    number = isinstance(max_norm, int | float) and not isinstance(max_norm, bool)
    if not number or not SMALLEST_NORM <= max_norm <= LARGEST_NORM:
        raise InvalidInput(
            f"max_norm is {max_norm!r}; give a number from {SMALLEST_NORM:g} to {LARGEST_NORM:g}, "
            "a clip rule, or None for no clipping"
        )
    return FlatClip(max_norm=float(max_norm))


def _require_bounded(rule: ClipRule) -> None:
    sensitivity = rule.sensitivity
    if not (math.isfinite(sensitivity) and sensitivity > 0):
        raise InvalidInput(
            f"the clip rule {type(rule).__name__} states a sensitivity of {sensitivity}; "
            "a rule bounds every unit by a positive, finite number"
        )
