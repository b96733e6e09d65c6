"""The clip schedule that does not change."""

from typing import Any, Literal

from clipwise.configuration import configuration
from clipwise.schedules.clip_rule import AnyClipRule, as_clip_rule


@configuration
class ConstantClip:
    """The same bound at every step."""

    kind: Literal["constant"] = "constant"

    def rule(self, step: int, max_norm: float | Any) -> AnyClipRule:  # noqa: ARG002
        """Return the clip rule for `step` (from 0), given the configured bound or rule.

        Raises:
            InvalidInput: if `max_norm` is neither a rule nor a positive, finite number.
        """
        return as_clip_rule(max_norm)
