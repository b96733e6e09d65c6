"""The optimizer's plug-ins: one frozen configuration per kind, its JSON and its update."""

from collections.abc import Mapping
from typing import Any

from clipwise import plugins
from clipwise.optim.modules.adam import Adam
from clipwise.optim.modules.gaussian_noise import GaussianNoise
from clipwise.optim.modules.l2_clipping import L2Clipping
from clipwise.optim.modules.momentum import Momentum

MODULES: Mapping[str, type[Any]] = {
    "adam": Adam,
    "gaussian_noise": GaussianNoise,
    "l2_clipping": L2Clipping,
    "momentum": Momentum,
}
NOISE_KINDS = frozenset({"gaussian_noise"})


def kinds() -> Mapping[str, type[Any]]:
    """Return every kind that is installed here: ours, and those of other packages."""
    return {**plugins.installed(plugins.OPTIMIZER_MODULES_GROUP), **MODULES}
