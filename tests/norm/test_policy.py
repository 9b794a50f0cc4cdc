"""Conversion of batch norms. Oracle: the layer as it was."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cvplugins.norm import SyncBatchNorm, convert_batch_norm


class ActivatedBatchNorm(nn.BatchNorm2d):
    def forward(self, input):
        return super().forward(input).relu()


class NamedBatchNorm(nn.BatchNorm2d):
    """A subclass that computes what its parent does."""


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
        self.backbone[3].requires_grad_(False)
        self.neck = nn.ModuleList([nn.BatchNorm3d(2, affine=False), nn.BatchNorm1d(2, momentum=None, eps=0.1)])
        self.torch_sync = nn.SyncBatchNorm(2, process_group="a group")
        self.named = NamedBatchNorm(2, track_running_stats=False)
        self.activated = ActivatedBatchNorm(2)
        self.lazy = nn.LazyBatchNorm2d()
        self.instance = nn.InstanceNorm2d(2, affine=True)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.GroupNorm(2, 4))


CONVERTED = ("backbone.1", "neck.0", "neck.1", "torch_sync", "named")
LEFT = {"backbone.3": "frozen", "activated": "has a forward of its own", "lazy": "lazy: has not seen an input yet"}


def classes(model):
    return {name: type(module) for name, module in model.named_modules()}


def test_converts_what_it_should_and_says_so():
    model = Model()
    before = classes(model)
    summary = convert_batch_norm(model)
    after = classes(model)
    assert summary.converted == CONVERTED
    assert summary.left == LEFT
    assert {name for name in after if after[name] is not before[name]} == set(CONVERTED)
    assert all(after[name] is SyncBatchNorm for name in CONVERTED)


def test_table():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm2d(2).requires_grad_(False), nn.SyncBatchNorm(2))
    assert convert_batch_norm(model).table().splitlines() == [
        "layer  was                  is                       left because",
        "0      torch.BatchNorm1d    cvplugins.SyncBatchNorm",
        "1      torch.BatchNorm2d    torch.BatchNorm2d        frozen",
        "2      torch.SyncBatchNorm  cvplugins.SyncBatchNorm",
    ]


def every_setting(layer):
    """Return everything about a layer that could get lost."""
    tensors = {name: (id(x), x.requires_grad) for name, x in [*layer.named_parameters(), *layer.named_buffers()]}
    options = (layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, layer.training)
    return tensors, options, list(layer._forward_hooks), list(layer.state_dict())


def test_everything_but_the_class_stays():
    model = Model()
    model.neck[1].eval().double()
    model.backbone[1].bias.requires_grad_(False)
    seen = []
    model.backbone[1].register_forward_hook(lambda *_: seen.append("hook"))
    model.backbone[1].running_mean.fill_(3)
    optimizer = torch.optim.SGD([x for x in model.backbone.parameters() if x.requires_grad], lr=1)
    before = {name: every_setting(model.get_submodule(name)) for name in CONVERTED}
    assert convert_batch_norm(model).converted == CONVERTED
    assert {name: every_setting(model.get_submodule(name)) for name in CONVERTED} == before
    model.backbone(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert seen == ["hook"]
    weight = model.backbone[1].weight.clone()
    optimizer.step()
    assert not torch.equal(model.backbone[1].weight, weight)


def test_there_and_back_is_the_identity():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), NamedBatchNorm(2))
    before, states = classes(model), [dict(vars(layer)) for layer in model]
    convert_batch_norm(model)
    model = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    summary = convert_batch_norm(model, to="BN")
    assert summary.converted == ("0", "1", "2", "3")
    assert classes(model) == before
    assert [list(vars(layer)) for layer in model] == [list(state) for state in states]


def test_without_a_former_class_it_becomes_batch_norm_2d():
    model = nn.Sequential(SyncBatchNorm(2), nn.SyncBatchNorm(2), nn.BatchNorm1d(2))
    summary = convert_batch_norm(model, to="BN")
    assert [type(layer) for layer in model] == [nn.BatchNorm2d, nn.BatchNorm2d, nn.BatchNorm1d]
    assert summary.left == {"2": "already BN"}
    assert not hasattr(model[1], "process_group")


def test_process_groups():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.SyncBatchNorm(2, process_group="old"), SyncBatchNorm(2))
    convert_batch_norm(model)
    assert [layer.process_group for layer in model] == [None, "old", None]
    assert convert_batch_norm(model).left == dict.fromkeys("012", "already SyncBN")
    assert convert_batch_norm(model, process_group="new").converted == ("0", "1", "2")
    assert [layer.process_group for layer in model] == ["new"] * 3


def test_patterns():
    def converted(**patterns):
        return convert_batch_norm(Model(), **patterns).converted

    assert converted(include=["backbone.*"]) == ("backbone.1",)
    assert converted(include=["backbone.*", "neck.1"]) == ("backbone.1", "neck.1")
    assert converted(exclude=["neck*", "named"]) == ("backbone.1", "torch_sync")
    assert converted(include=["neck*"], exclude=["*.0"]) == ("neck.1",)
    assert converted(include=[]) == ()
    assert convert_batch_norm(Model(), include=["Neck*"]).left["neck.0"] == "not included"
    assert convert_batch_norm(Model(), exclude=["neck*"]).left["neck.0"] == "excluded"


def test_frozen_layers_convert_on_demand_and_stay_frozen():
    model = Model()
    assert "backbone.3" in convert_batch_norm(model, frozen="convert").converted
    assert not any(parameter.requires_grad for parameter in model.backbone[3].parameters())


def test_a_shared_layer_stays_shared():
    norm = nn.BatchNorm2d(2)
    model = nn.ModuleDict({"a": norm, "b": nn.Sequential(norm)})
    assert convert_batch_norm(model).converted == ("a",)
    assert model["a"] is model["b"][0] is norm


def test_the_model_may_be_the_layer():
    norm = nn.BatchNorm2d(2)
    assert "(model)" in convert_batch_norm(norm).table()
    assert isinstance(norm, SyncBatchNorm)
    assert isinstance(norm, _BatchNorm)


def test_output_is_the_same():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    twin = copy.deepcopy(model)
    convert_batch_norm(twin)
    input = torch.randn(2, 3, 8, 8)
    for training in (True, False):
        torch.testing.assert_close(twin.train(training)(input), model.train(training)(input), rtol=0, atol=0)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="unknown to 'SBN'; use one of 'SyncBN', 'BN'"):
        convert_batch_norm(nn.BatchNorm2d(2), to="SBN")
    with pytest.raises(ValueError, match="unknown frozen 'thaw'; use one of 'keep', 'convert'"):
        convert_batch_norm(nn.BatchNorm2d(2), frozen="thaw")
    with pytest.raises(TypeError, match=r"include is the string 'backbone\*'; give a list of patterns"):
        convert_batch_norm(nn.BatchNorm2d(2), include="backbone*")
