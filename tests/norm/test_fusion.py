"""Folding batch norms into convolutions. Oracle: the model before, to 1e-5."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cvplugins.norm import SyncBatchNorm, apply_norm_policy, fuse_conv_bn


def trained(model):
    """Give every batch norm statistics and weights that an identity would not pass for."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if getattr(layer, "running_mean", None) is not None:
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            if layer.weight is not None:
                nn.init.uniform_(layer.weight, 0.5, 2)
                nn.init.normal_(layer.bias)
    return model.eval()


def assert_folds(model, input, count, left=()):
    """Fold and compare; return the reasons of what was left."""
    model = trained(model)
    with torch.no_grad():
        expected = model(input)
        report = fuse_conv_bn(model, input)
        torch.testing.assert_close(model(input), expected, rtol=1e-5, atol=1e-5)
    assert len(report.folded) == count
    return report.left


CONVOLUTIONS = {
    "1d": (nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), (2, 3, 9)),
    "2d": (nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), (2, 3, 9, 9)),
    "3d": (nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), (2, 3, 5, 5, 5)),
    "groups": (nn.Conv2d(4, 4, 3, groups=2, stride=2, dilation=2), nn.BatchNorm2d(4), (2, 4, 9, 9)),
    "padded": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(4), (2, 3, 9, 9)),
    "transposed": (nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4), (2, 3, 9, 9)),
    "not affine": (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False, eps=0.1), (2, 3, 9, 9)),
    "synchronised": (nn.Conv2d(3, 4, 3), SyncBatchNorm(4), (2, 3, 9, 9)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_every_convolution(name):
    convolution, norm, shape = CONVOLUTIONS[name]
    assert assert_folds(nn.Sequential(convolution, norm, nn.ReLU(inplace=True)), torch.randn(shape), 1) == {}


def test_frozen_layers_fold():
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    apply_norm_policy(model, [{"to": "FrozenBN"}])
    assert assert_folds(model, torch.randn(2, 3, 9, 9), 1) == {}
    assert isinstance(model[1], nn.Identity)
    assert list(model.state_dict()) == ["0.weight", "0.bias"]


class Branches(nn.Module):
    """One block for each way in which a batch norm must not be folded; registered in an order that misleads."""

    def __init__(self):
        super().__init__()
        for name in ("residual", "activated", "several", "returned", "stored", "first", "shared", "joined", "joined_2"):
            self.add_module(name, nn.Conv2d(3, 3, 1))
        for name in ("residual", "activated", "several", "several_2", "returned", "stored", "shared_a", "shared_b"):
            self.add_module(f"{name}_norm", nn.BatchNorm2d(3))
        self.first_norm = nn.BatchNorm2d(3)
        self.joined_norm = nn.BatchNorm2d(3)
        self.unreached = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    def forward(self, x):
        x = self.first(self.first_norm(x))  # mmcv folds this pair by the order of registration
        y = self.residual(x)
        x = self.residual_norm(y) + y
        x = self.activated_norm(self.activated(x).relu_())
        y = self.several(x)
        x = self.several_norm(y) + self.several_2_norm(y)
        self.kept = self.stored(x)
        x = self.stored_norm(self.kept)
        x = self.shared_a_norm(self.shared(x)) + self.shared_b_norm(self.shared(x + 1))
        x = self.joined_norm(self.joined(x)) + self.joined_norm(self.joined_2(x))
        y = self.returned(x)
        return self.returned_norm(y), y


def test_what_must_not_be_folded_is_left_and_says_why():
    assert assert_folds(Branches(), torch.randn(2, 3, 5, 5), 0) == {
        "residual_norm": "after a convolution whose output goes to add too",
        "activated_norm": "after a convolution whose output goes to relu_ too",
        "several_norm": "after a convolution that feeds several",
        "several_2_norm": "after a convolution that feeds several",
        "returned_norm": "after a convolution whose output goes to the caller too",
        "stored_norm": "after a convolution whose output goes to the caller too",
        "shared_a_norm": "after a convolution that feeds several",
        "shared_b_norm": "after a convolution that feeds several",
        "first_norm": "after something else than a convolution",
        "joined_norm": "after several convolutions",
        "unreached.1": "not reached by the example",
    }


class ActivatedBatchNorm(nn.BatchNorm2d):
    def forward(self, input):
        return super().forward(input).relu()


class StandardisedConv2d(nn.Conv2d):
    def forward(self, input):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(input, weight / weight.std((1, 2, 3), keepdim=True), self.bias)


class NormInside(nn.Conv2d):
    """As Detectron2's Conv2d: normalises within its own forward."""

    def __init__(self, *args, norm):
        super().__init__(*args)
        self.norm = norm

    def forward(self, input):
        return F.relu_(self.norm(F.conv2d(input, self.weight, self.bias)))


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ((nn.Conv2d(3, 4, 3), ActivatedBatchNorm(4)), "has a forward of its own"),
        ((StandardisedConv2d(3, 4, 3), nn.BatchNorm2d(4)), "after a convolution whose weight is computed or shared"),
        (
            (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)),
            "after a convolution whose weight is computed or shared",
        ),
        (
            (nn.ConvTranspose2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)),
            "after a transposed convolution of several groups",
        ),
        ((nn.Conv2d(3, 4, 3), nn.Dropout(), nn.BatchNorm2d(4)), None),  # nothing happens in evaluation mode
    ],
)
def test_layers_with_a_meaning_of_their_own(layers, reason):
    left = assert_folds(nn.Sequential(*layers), torch.randn(2, 3, 9, 9), int(reason is None))
    assert left == ({} if reason is None else {str(len(layers) - 1): reason})


def test_hooks_see_what_they_saw():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model[0].register_forward_hook(lambda *_: None)
    left = assert_folds(model, torch.randn(2, 3, 9, 9), 0)
    assert left == {"1": "with hooks, or after a convolution with hooks"}


def test_a_convolution_that_normalises_inside_folds():
    assert assert_folds(NormInside(3, 4, 3, norm=nn.BatchNorm2d(4)), torch.randn(2, 3, 9, 9), 1) == {}


def test_a_pair_that_is_used_several_times_folds_if_it_stays_together():
    class Levels(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

        def forward(self, x):
            return [self.norm(self.conv(level)) for level in (x, x[..., ::2], x + 1)]

    assert assert_folds(Levels(), torch.randn(2, 3, 9, 9), 1) == {}


def test_a_tied_weight_keeps_its_other_user():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    model[2].weight = model[0].weight
    reasons = assert_folds(model, torch.randn(2, 3, 9, 9), 0)
    assert reasons == {"1": "after a convolution whose output goes to the caller too"}


def test_layers_in_plain_lists_fold_too():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.steps = [self.conv, self.norm]

        def forward(self, x):
            for step in self.steps:
                x = step(x)
            return x

    assert assert_folds(Listed(), torch.randn(2, 3, 9, 9), 1) == {}


def test_training_mode_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="the model is in training mode; call model"):
        fuse_conv_bn(model, torch.zeros(1, 3, 4, 4))
    model.eval()[1].train()
    with pytest.raises(ValueError, match="1 is in training mode"):
        fuse_conv_bn(model, torch.zeros(1, 3, 4, 4))


def test_report():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)).eval()
    report = fuse_conv_bn(model, torch.zeros(1, 3, 4, 4))
    assert report.folded == (("1", "2"),)
    assert str(report) == ("1 of 3 batch norms folded into convolutions; 2 after something else than a convolution (0)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"), [("resnet18", 20), ("mobilenet_v3_small", 34), ("densenet121", 59), ("regnet_y_400mf", 53)]
)
def test_models_of_torchvision(name, count):
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    model = getattr(models, name)(weights=None)
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    model.train()(torch.rand(4, 3, 64, 64))  # statistics that keep the values in range
    model.eval()
    input = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(input)
        report = fuse_conv_bn(model, input)
        assert (len(report.folded), len(report.folded) + len(report.left)) == (count, norms)
        torch.testing.assert_close(model(input), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.openmmlab
def test_models_of_openmmlab():
    """mmdet's detector on a real batch, through its own test_step."""
    from small_models import batch, small_faster_rcnn

    torch.manual_seed(0)
    model = small_faster_rcnn(None, None)
    data = batch()
    with torch.no_grad():
        model.train()._run_forward(model.data_preprocessor(copy.deepcopy(data), True), mode="loss")
        model.eval()
        images = model.data_preprocessor(copy.deepcopy(data), False)["inputs"]
        expected = model.extract_feat(images)
        report = fuse_conv_bn(model, copy.deepcopy(data), call=model.test_step)
        torch.testing.assert_close(model.extract_feat(images), expected, rtol=1e-5, atol=1e-5)
    assert (len(report.folded), report.left) == (20, {})


@pytest.mark.openmmlab
def test_conv_modules_of_mmcv():
    from mmcv.cnn import ConvModule

    for order in (("conv", "norm", "act"), ("norm", "conv", "act")):
        module = ConvModule(3, 3, 3, norm_cfg=dict(type="BN"), order=order)
        folds = order[0] == "conv"
        left = assert_folds(nn.Sequential(module, nn.Identity()), torch.randn(2, 3, 9, 9), int(folds))
        assert left == ({} if folds else {"0.bn": "after something else than a convolution"})
