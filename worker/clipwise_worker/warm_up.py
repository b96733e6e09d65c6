"""What every attempt pays once: imports, and the first call of everything. Imports torch."""

import tempfile
from pathlib import Path

import sklearn.datasets  # noqa: F401 - the built-in data sets are read with it
import torch

from clipwise.models import TorchModel
from clipwise.optim import Optimizer
from clipwise.optim.modules.adam import Adam
from clipwise.optim.modules.momentum import Momentum
from clipwise.schedules import FlatClip
from clipwise.training import checkpoint
from clipwise_worker import execution  # noqa: F401 - and with it everything that it needs


def warm_up() -> None:
    """Clip, step, predict and save with a model of a few weights; leaves torch as it was."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    state = torch.get_rng_state()
    model = TorchModel(module, "cross_entropy")
    batch = (torch.ones(4, 2), torch.zeros(4, dtype=torch.int64), torch.ones(4))
    model.probe_independence(batch[:2])
    optimizer = Optimizer(0.1, modules=(Momentum(), Adam()))
    for _ in range(2):
        gradients = model.compute_batch_gradients(batch, FlatClip(max_norm=1.0), divisor=1.0)
        optimizer.apply_gradients(model, gradients)
    model.predict(batch[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.safetensors"
        checkpoint.write(path, step=2, model=model, optimizer=optimizer, mechanism=None, physical_size=4)
    torch.set_rng_state(state)
