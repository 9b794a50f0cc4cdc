"""NCCL, which takes tensors on a GPU alone. Oracle: what was sent, and one process with the joined batch."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cvplugins.distributed import gather_objects, sum_over_ranks
from cvplugins.monitors import NonFiniteGuard
from cvplugins.norm import SyncBatchNorm, recompute_statistics

pytestmark = pytest.mark.gpu
# Both ranks of one GPU end with "Duplicate GPU detected".
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")


def run_nccl(function, world_size, folder):
    """Return what ``function()`` returns on each rank; rank i has GPU i."""
    mp.spawn(on_a_rank, (function, world_size, str(folder)), nprocs=world_size)
    return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(world_size)]


def on_a_rank(rank, function, world_size, folder):
    torch.cuda.set_device(rank)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("nccl", meeting, timedelta(seconds=60), rank=rank, world_size=world_size)
    torch.save(function("cuda"), Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, 5, 4, generator=generator, dtype=torch.float64)


def share(device):
    """Two images on the first rank, four on the second; all in a world of one."""
    parts = images().split([2, 4]) if dist.get_world_size() > 1 else [images()]
    return parts[dist.get_rank()].to(device)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), SyncBatchNorm(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).double()


def everything(device):
    own, rank, world_size = share(device), dist.get_rank(), dist.get_world_size()
    found = {
        "summed": sum_over_ranks(torch.tensor([1, 10**rank], device=device)).tolist(),
        "gathered": gather_objects({"rank": rank, "text": "x" * 1000 * rank}),
    }
    model = DistributedDataParallel(network().to(device))
    (world_size * model(own).square().sum()).backward()  # it takes the mean over ranks
    found["gradients"] = {name.removeprefix("module."): each.grad.cpu() for name, each in model.named_parameters()}
    found["running"] = {name.removeprefix("module."): each.cpu() for name, each in model.named_buffers()}
    layer = nn.BatchNorm2d(3).double().to(device)
    recompute_statistics(layer, [own], 1)
    found["precise"] = {name: each.cpu() for name, each in layer.named_buffers()}
    found["faults"] = fault_on_the_last_rank(model, device)
    return found


def fault_on_the_last_rank(model, device):
    guard = NonFiniteGuard()
    guard.begin(model)
    value = torch.tensor(float("nan") if dist.get_rank() == dist.get_world_size() - 1 else 1.0, device=device)
    return str(guard.observe(model, {"loss": value}, 0))


def check(ranks):
    world_size = len(ranks)
    reference = network()
    reference(images()).square().sum().backward()
    layer = nn.BatchNorm2d(3).double()
    recompute_statistics(layer, [images()], 1)
    for found in ranks:
        assert found["summed"] == [world_size, sum(10**rank for rank in range(world_size))]
        assert found["gathered"] == [{"rank": rank, "text": "x" * 1000 * rank} for rank in range(world_size)]
        for name, parameter in reference.named_parameters():
            torch.testing.assert_close(
                found["gradients"][name], parameter.grad, msg=lambda text, name=name: name + text
            )
        for name, buffer in reference.named_buffers():
            torch.testing.assert_close(found["running"][name], buffer, rtol=1e-6, atol=1e-6)
        for name, buffer in layer.named_buffers():
            torch.testing.assert_close(found["precise"][name], buffer, rtol=1e-6, atol=1e-6)
        assert "loss" in found["faults"]


def test_one_rank(tmp_path):
    check(run_nccl(everything, 1, tmp_path))


@pytest.mark.distributed
@two_gpus
def test_two_ranks_with_a_gpu_each(tmp_path):
    check(run_nccl(everything, 2, tmp_path))
