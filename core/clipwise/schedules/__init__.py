"""Clip schedules and the clip rules that they give, in the arithmetic of any framework."""

from clipwise.schedules.automatic_clip import AutomaticClip
from clipwise.schedules.clip_rule import (
    AnyClipRule,
    ClipRule,
    Part,
    PartedClipRule,
    as_clip_rule,
    joint_sensitivity,
    parts_of,
    sensitivity_of,
)
from clipwise.schedules.constant_clip import ConstantClip
from clipwise.schedules.flat_clip import FlatClip
from clipwise.schedules.per_group_clip import ClipGroup, PerGroupClip
from clipwise.schedules.per_parameter_clip import PerParameterClip

__all__ = [
    "AnyClipRule",
    "AutomaticClip",
    "ClipGroup",
    "ClipRule",
    "ConstantClip",
    "FlatClip",
    "Part",
    "PartedClipRule",
    "PerGroupClip",
    "PerParameterClip",
    "as_clip_rule",
    "joint_sensitivity",
    "parts_of",
    "sensitivity_of",
]
