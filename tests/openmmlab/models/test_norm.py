"""SyncBatchNorm from ``norm_cfg`` and from the model wrapper."""

import re

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.openmmlab


def test_is_built_by_norm_cfg():
    from mmcv.cnn import ConvModule

    from cvplugins.norm import SyncBatchNorm

    module = ConvModule(3, 4, 1, norm_cfg=dict(type="cvplugins.SyncBatchNorm", momentum=0.2, requires_grad=False))
    assert isinstance(module.bn, SyncBatchNorm)  # the name in state_dict is that of batch norm
    assert module.bn.momentum == 0.2
    assert not module.bn.weight.requires_grad
    plain = ConvModule(3, 4, 1, norm_cfg=dict(type="BN"))
    module.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(module(images), plain(images))  # one process: plain batch norm


def test_runs_of_one_process_keep_it():
    """mmengine reverts synchronised layers there; ours needs no such care."""
    from mmengine.model import revert_sync_batchnorm

    from cvplugins.norm import SyncBatchNorm

    model = revert_sync_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 1), SyncBatchNorm(4)))
    assert model.train()(torch.randn(2, 3, 5, 5)).shape == (2, 4, 5, 5)


class Frozen(nn.Module):
    """A backbone as mmdet's ResNet: evaluation mode by ``norm_eval``, and a stage without gradients."""

    def __init__(self):
        super().__init__()
        self.norm_eval = True
        self.bn = nn.BatchNorm2d(3)


@pytest.fixture
def one_process_group():
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process_group")
def test_wrapper_converts_what_trains_and_says_what_not(caplog):
    import logging

    from mmengine.logging import MMLogger
    from mmengine.registry import MODEL_WRAPPERS

    from cvplugins.norm import SyncBatchNorm

    model = nn.Sequential(Frozen(), nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    model[2].requires_grad_(False)
    logger = MMLogger.get_instance("wrapper")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    # device_ids as mmengine gives it whatever the device; DDP itself refuses it on the CPU.
    wrapped = MODEL_WRAPPERS.build(
        dict(type="cvplugins.SyncBatchNormDataParallel"), default_args=dict(module=model, device_ids=[0])
    )
    assert type(wrapped.module[0].bn) is nn.BatchNorm2d
    assert type(wrapped.module[1]) is SyncBatchNorm
    assert type(wrapped.module[2]) is nn.BatchNorm2d
    assert "left because" in caplog.text
    assert re.search(r"1 .*torch.BatchNorm2d +torch.BatchNorm2d +in evaluation mode \(norm_eval\) +0.bn", caplog.text)
    assert re.search(r"1 .*torch.BatchNorm2d +cvplugins.SyncBatchNorm +1\n", caplog.text)
    assert re.search(r"1 .*torch.BatchNorm2d +torch.BatchNorm2d +frozen +2\n", caplog.text)


@pytest.mark.usefixtures("one_process_group")
def test_wrapper_can_leave_everything_alone():
    from mmengine.registry import MODEL_WRAPPERS

    from cvplugins.norm import SyncBatchNorm

    model = nn.Sequential(nn.BatchNorm2d(3), nn.SyncBatchNorm(3))
    wrapped = MODEL_WRAPPERS.build(dict(type="cvplugins.SyncBatchNormDataParallel", module=model, convert=False))
    assert type(wrapped.module[0]) is nn.BatchNorm2d
    assert type(wrapped.module[1]) is SyncBatchNorm  # torch's refuses to run on the CPU


@pytest.mark.usefixtures("one_process_group")
@pytest.mark.parametrize("to", ["SyncBN", "BN", "FrozenBN", "GN"])
def test_a_policy_takes_the_synchronised_layers_of_mmcv(to):
    from mmcv.ops import SyncBatchNorm

    from cvplugins.norm import apply_norm_policy

    model = nn.Sequential(SyncBatchNorm(4, momentum=0.3))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert apply_norm_policy(model, [dict(to=to, num_groups=2)]).converted == ("0",)
    model(torch.randn(2, 4, 3, 3))
    torch.testing.assert_close(dict(model[0].named_parameters()), {k[2:]: state[k] for k in ("0.weight", "0.bias")})
    apply_norm_policy(model, [dict(to="BN", frozen="convert")])
    assert type(model[0]) is nn.BatchNorm2d
    assert model[0].momentum == 0.3
    assert model[0].weight.requires_grad
