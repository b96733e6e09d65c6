"""The clip rule that clips named groups of parameters, each by its own norm and bound."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from annotated_types import MinLen
from pydantic import model_validator

from clipwise import configuration as declared
from clipwise.configuration import configuration
from clipwise.errors import InvalidInput
from clipwise.schedules.bounds import Bound
from clipwise.schedules.clip_rule import Part
from clipwise.schedules.flat_clip import FlatClip


@configuration
class ClipGroup:
    """Parameters that are clipped by their joint norm.

    Attributes:
        name: what the group is called.
        parameters: patterns of parameter names; `*` stands for any characters, dots too, `?` for one.
        max_norm: bound of the group's joint norm.
    """

    name: Annotated[str, MinLen(1)]
    parameters: Annotated[tuple[str, ...], declared.Sequence, MinLen(1)]
    max_norm: Bound

    def holds(self, name: str) -> bool:
        """Tell whether the parameter `name` belongs to the group."""
        return any(fnmatchcase(name, pattern) for pattern in self.parameters)


@configuration
class PerGroupClip:
    """Clip the gradient of each group of parameters by the group's joint norm.

    One unit contributes at most the root of the sum of the squared bounds.

    Source: McMahan et al., A general approach to adding differential privacy to iterative training
    procedures (2018).

    Attributes:
        groups: every trained parameter is in exactly one. A tied parameter counts under its first name.

    Example:
        >>> from clipwise.schedules import sensitivity_of
        >>> encoder = ClipGroup(name="encoder", parameters=("encoder.*",), max_norm=0.3)
        >>> head = ClipGroup(name="head", parameters=("head.*",), max_norm=0.4)
        >>> names = ["encoder.weight", "head.weight", "head.bias"]
        >>> sensitivity_of(PerGroupClip(groups=(encoder, head)), names)
        0.5
    """

    kind: Literal["per_group"] = "per_group"
    groups: Annotated[tuple[ClipGroup, ...], declared.Sequence, MinLen(1)]

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [group.name for group in self.groups]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two groups are called '{name}'; give each a name of its own")
        return self

    def parts(self, names: Sequence[str]) -> tuple[Part, ...]:
        """Return one part for each group.

        Raises:
            InvalidInput: naming a parameter that is in no group or in several, or a group without one.
        """
        for name in names:
            holding = [group.name for group in self.groups if group.holds(name)]
            if not holding:
                raise InvalidInput(
                    f"parameter '{name}' is in no group of the clip rule; add a pattern that matches it to "
                    f"one of: {', '.join(group.name for group in self.groups)}, or add a group"
                )
            if len(holding) > 1:
                raise InvalidInput(
                    f"parameter '{name}' is in several groups of the clip rule: {', '.join(holding)}; "
                    "let the patterns of one group alone match it"
                )
        return tuple(self._part(group, names) for group in self.groups)

    @staticmethod
    def _part(group: ClipGroup, names: Sequence[str]) -> Part:
        held = tuple(name for name in names if group.holds(name))
        if not held:
            raise InvalidInput(
                f"group '{group.name}' of the clip rule holds no trained parameter "
                f"({', '.join(group.parameters)}); correct its patterns, or leave it out. A tied parameter "
                "counts under its first name"
            )
        return Part(label=group.name, names=held, rule=FlatClip(max_norm=group.max_norm))
