"""Clip schedules and the clip rules that they give, in the arithmetic of any framework."""

from clipwise.schedules.clip_rule import ClipRule, FlatClip, as_clip_rule
from clipwise.schedules.constant_clip import ConstantClip

__all__ = ["ClipRule", "ConstantClip", "FlatClip", "as_clip_rule"]
