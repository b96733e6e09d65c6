"""Sharded parameters are refused, with or without a wrapper: a rank would clip against its shards alone."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

from clipwise.clipping import clipped_gradients
from clipwise.errors import UnsupportedModule

BATCH = (torch.ones(4, 3), torch.zeros(4, dtype=torch.long))


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_a_fully_sharded_module_is_refused(mesh: DeviceMesh) -> None:
    module = nn.Sequential(fully_shard(nn.Linear(3, 2), mesh=mesh))
    with pytest.raises(UnsupportedModule, match=r"module '0'.*sharded"):
        clipped_gradients(module, "cross_entropy", BATCH, 1.0)


def test_a_sharded_parameter_of_an_ordinary_module_is_refused(mesh: DeviceMesh) -> None:
    module = nn.Sequential(nn.Linear(3, 2, bias=False))
    module[0].weight = nn.Parameter(distribute_tensor(torch.ones(2, 3), mesh, [Shard(0)]))
    with pytest.raises(UnsupportedModule, match=r"parameter '0\.weight' is a DTensor"):
        clipped_gradients(module, "cross_entropy", BATCH, 1.0)
