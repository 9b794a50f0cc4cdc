"""The frozen network: what it gives (against torchvision run by hand), where it stays, and what weights it takes."""

import copy
import pickle
import sys
import urllib.error

import pytest
import torch
from torch import nn

from cvplugins.errors import UserError
from cvplugins.losses import PerceptualLoss, StyleLoss
from cvplugins.losses.features import IMAGENET_MEAN, IMAGENET_STD, FrozenFeatures, feature_maps

torchvision = pytest.importorskip("torchvision")


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))


def normalised(images):
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


@pytest.fixture
def vgg(monkeypatch):
    """VGG-11 without its classifier, whose 500 MB take seconds to fill."""
    torch.manual_seed(0)
    from torchvision.models.vgg import VGG, cfgs, make_layers

    network = VGG(make_layers(cfgs["A"]), init_weights=False).eval()
    network.classifier = nn.Flatten()
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: copy.deepcopy(network))
    return network


@pytest.fixture
def vgg_file(vgg, tmp_path):
    torch.save(vgg.state_dict(), tmp_path / "vgg11.pth")
    return tmp_path / "vgg11.pth"


@pytest.fixture
def resnet():
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None).eval()
    network.bn1.running_mean.normal_()
    return network


@pytest.fixture
def resnet_file(resnet, tmp_path):
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


def test_vgg_layers_have_the_names_of_the_papers_and_the_order_asked_for(vgg, vgg_file):
    images = torch.rand(2, 3, 32, 32)
    layers = ["relu3_2", "conv1_1", "relu1_1", "pool2", "features.8", "conv3_2"]
    maps = FrozenFeatures("vgg11", vgg_file, layers)(images)
    by_hand, values = [], normalised(images)
    for layer in vgg.features:
        values = layer(values.clone())  # the clone: its ReLUs write in place
        by_hand.append(values)
    # VGG-11 is conv relu pool, conv relu pool, conv relu conv relu pool ...
    for ours, index in zip(maps, [9, 0, 1, 5, 8, 8], strict=True):
        torch.testing.assert_close(ours, by_hand[index])
    assert (maps[1] < 0).any()


def test_default_layers_that_a_network_lacks_are_named(vgg_file):
    with pytest.raises(ValueError, match=r"'vgg11' has no layer 'relu1_2'; it has conv1_1, relu1_1, pool1, conv2_1"):
        PerceptualLoss("vgg11", vgg_file)


def test_default_layers_of_style_fit_every_vgg(vgg_file):
    assert len(StyleLoss("vgg11", vgg_file).features(torch.rand(1, 3, 32, 32))) == 5


def test_nodes_of_another_network(resnet, resnet_file):
    images = torch.rand(2, 3, 32, 32)
    maps = FrozenFeatures("resnet18", resnet_file, ["layer2", "relu"])(images)
    first = resnet.relu(resnet.bn1(resnet.conv1(normalised(images))))
    torch.testing.assert_close(maps[1], first)
    torch.testing.assert_close(maps[0], resnet.layer2(resnet.layer1(resnet.maxpool(first))))


def test_it_is_no_part_of_the_model():
    network = small_network()
    loss = PerceptualLoss(network)
    host = nn.ModuleDict({"net": nn.Linear(2, 2), "loss": loss})
    assert list(host.state_dict()) == ["net.weight", "net.bias"]
    assert [name for name, _ in host.named_parameters()] == ["net.weight", "net.bias"]
    before = copy.deepcopy(loss.features.backbone.state_dict())
    images = torch.rand(2, 3, 6, 6, requires_grad=True)
    host.train()
    loss(images, torch.rand(2, 3, 6, 6)).backward()
    frozen = loss.features.backbone
    assert not any(module.training for module in frozen.modules())
    assert all(not each.requires_grad and each.grad is None for each in frozen.parameters())
    for key, value in frozen.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert images.grad.abs().sum() > 0
    # The caller's own module goes on learning.
    assert network.training
    assert all(each.requires_grad for each in network.parameters())


def test_it_moves_with_the_model():
    host = nn.Sequential(PerceptualLoss(small_network()))
    frozen = host[0].features
    host.to("meta")
    assert {each.device.type for each in (*frozen.backbone.parameters(), *frozen.buffers())} == {"meta"}
    copied = copy.deepcopy(host)
    assert copied[0].features.backbone is not frozen.backbone


@pytest.mark.gpu
def test_it_moves_to_the_gpu():
    loss = PerceptualLoss(small_network()).double()  # in float32 a GPU may convolve in TF32
    images = torch.rand(2, 2, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(loss.cuda()(*images.cuda()).cpu(), loss.cpu()(*images))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_computes_in_its_own_type_and_compares_in_full_precision(dtype):
    loss = PerceptualLoss(small_network())
    images = torch.rand(2, 2, 3, 6, 6)
    expected = loss(*images)
    value = loss.to(dtype)(*images)
    assert {each.dtype for each in loss.features(images[0])} == {dtype}
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(value.float(), expected, rtol=0.05, atol=0)


def test_autocast_leaves_it_alone():
    loss = PerceptualLoss(small_network())
    images = torch.rand(2, 2, 3, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert {each.dtype for each in loss.features(images[0])} == {torch.float32}
        inside = loss(*images)
    torch.testing.assert_close(inside, loss(*images))


def test_torchvisions_network_can_be_copied_and_pickled(resnet_file):
    """A deep copy of torchvision's feature extractor alone starts to train: its batch norm would move."""
    loss = PerceptualLoss("resnet18", resnet_file, ["layer1"])
    images = torch.rand(2, 1, 3, 16, 16)
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), copy.deepcopy(copy.deepcopy(loss))):
        torch.testing.assert_close(copied(*images), loss(*images), rtol=0, atol=0)
        assert not any(module.training for module in copied.features.backbone.modules())


def test_no_images_give_zero_with_a_graph(resnet_file):
    loss = PerceptualLoss("resnet18", resnet_file, ["layer1", "layer4"])
    images = torch.rand(0, 3, 32, 32, requires_grad=True)
    value = loss(images, images.detach())
    value.backward()
    assert value == 0
    assert images.grad.shape == images.shape


class Dictionary(nn.Module):
    def forward(self, images):
        return {"whole": images, "parts": [images[:, :1], (images[:, 1:],)]}


def test_outputs_of_every_form_become_a_list():
    images = torch.rand(2, 3, 4, 4)
    plain = {"mean": None, "std": None}
    assert len(FrozenFeatures(Dictionary(), **plain)(images)) == 3
    (whole,) = FrozenFeatures(Dictionary(), layers=["whole"], **plain)(images)
    assert torch.equal(whole, images)
    for wrong in (None, "abc", [torch.ones(1), 3]):
        with pytest.raises(TypeError, match=r"is no feature map; expected a tensor, or a list"):
            feature_maps(wrong)


def test_images_of_other_channels_are_named():
    with pytest.raises(ValueError, match=r"images \(2, 1, 6, 6\) do not fit mean and std of 3 channels"):
        FrozenFeatures(nn.Identity())(torch.rand(2, 1, 6, 6))
    (grey,) = FrozenFeatures(nn.Identity(), mean=[0.5], std=[0.25])(torch.full((2, 1, 6, 6), 0.75))
    torch.testing.assert_close(grey, torch.ones(2, 1, 6, 6))


def test_a_module_takes_weights_from_a_file(tmp_path):
    network, other = small_network(), small_network()
    nn.init.normal_(other[0].weight)
    torch.save({"state_dict": other.state_dict(), "meta": {"epoch": 3}}, tmp_path / "epoch_3.pth")
    images = torch.rand(1, 3, 6, 6)
    (ours,) = FrozenFeatures(network, tmp_path / "epoch_3.pth")(images)
    torch.testing.assert_close(ours, other.eval()(normalised(images)))
    assert not torch.equal(network[0].weight, other[0].weight)


class RunsCode:
    ran = False

    def __reduce__(self):
        return setattr, (RunsCode, "ran", True)


@pytest.mark.parametrize("name", ["resnet18", None])
def test_files_that_do_not_fit_are_answered(name, resnet, tmp_path):
    def load(path):
        return FrozenFeatures(name or small_network(), str(path), ["layer1"] if name else None)

    path = tmp_path / "weights.pth"
    with pytest.raises(UserError, match=r"weights .*weights\.pth: there is no such file"):
        load(path)
    for content in (b"", b"not found"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"weights .* cannot be read as weights alone: .*torch\.save"):
            load(path)
    for content in (RunsCode(), small_network()):
        torch.save(content, path)
        with pytest.raises(UserError, match="cannot be read as weights alone"):
            load(path)
        assert not RunsCode.ran
    for content in (torch.ones(3), {"epoch": 3}, [torch.ones(3)]):
        torch.save(content, path)
        with pytest.raises(UserError, match="hold no state dict"):
            load(path)
    torch.save({"first.weight": torch.ones(3)}, path)
    with pytest.raises(UserError, match=r"missing \S+weight, .* and \d+ more; unexpected first\.weight$"):
        load(path)
    right = (resnet if name else small_network()).state_dict()
    torch.save({**right, "more.weight": torch.ones(3)}, path)
    with pytest.raises(UserError, match=r"missing nothing; unexpected more\.weight$"):
        load(path)
    key = next(iter(right))
    torch.save({**right, key: torch.ones(2)}, path)
    with pytest.raises(UserError, match=r"do not fit the backbone: size mismatch for \S+weight: .*\.$") as raised:
        load(path)
    assert key in str(raised.value)


def test_a_network_by_name_needs_weights_layers_and_a_right_name(resnet_file):
    with pytest.raises(ValueError, match="needs weights, for features of a random network mean nothing"):
        PerceptualLoss("resnet18", layers=["layer1"])
    with pytest.raises(ValueError, match="needs layers"):
        PerceptualLoss("resnet18", resnet_file)
    with pytest.raises(ValueError, match="torchvision has no model 'resnet19'"):
        PerceptualLoss("resnet19", resnet_file)
    with pytest.raises(ValueError, match=r"'resnet18' has no layer 'layer5'; it has x, conv1"):
        PerceptualLoss("resnet18", resnet_file, ["layer5"])
    with pytest.raises(TypeError, match=r"backbone is a dict; expected a module or the name"):
        PerceptualLoss({"type": "ResNet"})
    PerceptualLoss("resnet18", "random", ["layer1"])


def test_a_file_of_the_layers_alone_is_enough(resnet, tmp_path):
    """VGG's file holds 500 MB of a classifier that nobody asks for."""
    first = {key: value for key, value in resnet.state_dict().items() if key.startswith(("conv1", "bn1"))}
    torch.save(first, tmp_path / "first.pth")
    images = torch.rand(1, 3, 32, 32)
    (ours,) = FrozenFeatures("resnet18", tmp_path / "first.pth", ["bn1"])(images)
    torch.testing.assert_close(ours, resnet.bn1(resnet.conv1(normalised(images))))
    with pytest.raises(UserError, match=r"missing layer1\.0"):
        FrozenFeatures("resnet18", tmp_path / "first.pth", ["layer1"])


def test_published_weights_that_cannot_be_downloaded(tmp_path, monkeypatch):
    def refuse(url, *_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(UserError, match=r"could not be downloaded .*no network.*resnet18-\w+\.pth .*path of the file"):
        PerceptualLoss("resnet18", "torchvision", ["layer1"])


def test_published_weights_are_torchvisions(resnet, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(
        "torch.hub.download_url_to_file", lambda url, path, *_, **__: torch.save(resnet.state_dict(), path)
    )
    images = torch.rand(1, 3, 32, 32)
    (ours,) = FrozenFeatures("resnet18", "torchvision", ["bn1"])(images)
    torch.testing.assert_close(ours, resnet.bn1(resnet.conv1(normalised(images))))


def test_missing_torchvision_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="pip install torchvision; or give a module"):
        FrozenFeatures("vgg16", "random", ["relu1_1"])


@pytest.mark.openmmlab
def test_backbones_of_mmdet_are_taken():
    from mmdet.models.backbones import ResNet

    loss = PerceptualLoss(ResNet(18, out_indices=(0, 2)), layers=[1], distance="l1").train()
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    value = loss(images, torch.rand(2, 3, 32, 32))
    value.backward()
    assert value > 0
    assert images.grad.abs().sum() > 0
    assert [each.shape[1] for each in loss.features(images)] == [256]
