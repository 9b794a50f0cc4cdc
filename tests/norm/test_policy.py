"""Conversion of batch norms. Oracle: the layer as it was."""

import copy
import os
import pickle
import re

import pytest
import torch
import torch.distributed as dist
from helpers import run_ranks
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cvplugins.norm import SyncBatchNorm, apply_norm_policy, convert_batch_norm


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
    new = object()
    assert convert_batch_norm(model, process_group=new).converted == ("0", "1", "2")
    assert [layer.process_group for layer in model] == [new] * 3


def test_patterns():
    def converted(**patterns):
        return convert_batch_norm(Model(), **patterns).converted

    assert converted(include=["backbone.*"]) == ("backbone.1",)
    assert converted(include=["backbone.*", "neck.1"]) == ("backbone.1", "neck.1")
    assert converted(exclude=["neck*", "named"]) == ("backbone.1", "torch_sync")
    assert converted(include=["neck*"], exclude=["*.0"]) == ("neck.1",)
    assert converted(include=[]) == ()
    assert convert_batch_norm(Model(), include=["Neck*"]).left["neck.0"] == "no rule fits"
    assert convert_batch_norm(Model(), exclude=["neck*"]).left["neck.0"] == "kept by a rule"


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
    targets = "'SyncBN', 'FrozenBN', 'GN', 'LN2d', 'BN', 'keep'"
    with pytest.raises(ValueError, match=f"unknown to 'SBN'; use one of {targets}"):
        convert_batch_norm(nn.BatchNorm2d(2), to="SBN")
    with pytest.raises(ValueError, match="unknown frozen 'thaw'; use one of 'keep', 'convert'"):
        convert_batch_norm(nn.BatchNorm2d(2), frozen="thaw")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([], r"rules is \[\]; give a list of rules such as dict\(to='SyncBN'"),
        ({"to": "BN"}, r"rules is \{'to': 'BN'\}; give a list"),
        (["BN"], "rule 0 is 'BN'; give a dict"),
        ([{"to": "BN"}, {"to": "BN", "name": ["*"]}], "rule 1 has no option 'name'; did you mean names"),
        ([{"to": "BN", "xyz": 1}], "rule 0 has no option 'xyz'; there are: to, names, types"),
        ([{"names": ["*"]}], "rule 0 has no 'to'; use one of 'SyncBN'"),
        ([{"to": "SBN"}], "rule 0: unknown to 'SBN'"),
        ([{"to": "BN", "names": "backbone*"}], r"rule 0: names is the string 'backbone\*'; give a list of patterns"),
        ([{"to": "BN", "momentum": 2}], "rule 0: momentum is 2; it must be between 0 and 1"),
        ([{"to": "GN", "num_groups": 0}], "rule 0: num_groups is 0; it must be at least 1"),
        ([{"to": "SyncBN", "process_group": "rack"}], "rule 0: process_group is 'rack'; use None, 'node'"),
        ([{"to": "SyncBN", "process_group": 0}], "rule 0: process_group is 0"),
        ([{"to": "BN", "evaluating": "stop"}], "rule 0: unknown evaluating 'stop'"),
    ],
)
def test_wrong_rules_are_named(rules, message):
    with pytest.raises(ValueError, match=message):
        apply_norm_policy(nn.BatchNorm2d(2), rules)


class Backbone(nn.Module):
    """As mmdet's ResNet: keeps its batch norms in evaluation mode while it trains."""

    def __init__(self):
        super().__init__()
        self.norm_eval = True
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))


def detector():
    """A backbone with norm_eval, a neck of 6 channels, a frozen layer and a head."""
    return nn.ModuleDict(
        {
            "backbone": Backbone(),
            "neck": nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.BatchNorm2d(6).requires_grad_(False)),
            "head": nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, momentum=0.2)),
        }
    )


def test_the_first_rule_that_fits_decides():
    model = detector()
    summary = apply_norm_policy(
        model,
        [
            {"to": "keep", "names": ["backbone.layer1.*"]},
            {"to": "FrozenBN", "names": ["backbone.*"]},
            {"to": "SyncBN", "types": ["BatchNorm1d"], "momentum": 0.01},
            {"to": "GN", "types": ["torch.*"], "num_groups": 3},
        ],
    )
    assert [(layer.name, layer.after, layer.reason) for layer in summary.layers] == [
        ("backbone.bn1", "cvplugins.FrozenBatchNorm", ""),
        ("backbone.layer1.1", "torch.BatchNorm2d", "kept by a rule"),
        ("neck.1", "cvplugins.ConvertedGroupNorm", ""),
        ("neck.2", "torch.BatchNorm2d", "frozen"),
        ("head.1", "cvplugins.SyncBatchNorm (momentum 0.01)", ""),
    ]
    assert model["head"][1].momentum == 0.01


def test_overview():
    summary = apply_norm_policy(detector(), [{"to": "SyncBN"}, {"to": "LN2d", "names": ["Neck*"]}])
    assert summary.overview().splitlines() == [
        "layers  was                is                       left because                    names",
        "2       torch.BatchNorm2d  torch.BatchNorm2d        in evaluation mode (norm_eval)  "
        "backbone.bn1, backbone.layer1.1",
        "1       torch.BatchNorm2d  cvplugins.SyncBatchNorm                                  neck.1",
        "1       torch.BatchNorm2d  torch.BatchNorm2d        frozen                          neck.2",
        "1       torch.BatchNorm1d  cvplugins.SyncBatchNorm                                  head.1",
        "warning: rule 1 (LN2d) decides about no batch norm: nothing fits names=['Neck*'] that an earlier rule does "
        "not fit",
        "warning: 1 layers do not learn, but their running statistics move in training (neck.2); make them FrozenBN",
    ]


@pytest.mark.parametrize(
    ("rules", "warning"),
    [
        ([{"to": "FrozenBN", "momentum": 0.1}], "momentum=0.1 does nothing, FrozenBN moves no running statistics"),
        ([{"to": "LN2d", "momentum": 0.1}], "momentum=0.1 does nothing, LN2d moves no running statistics"),
        ([{"to": "BN", "process_group": 2}], "process_group does nothing, only SyncBN has one"),
        ([{"to": "BN", "num_groups": 4}], "num_groups=4 does nothing, only GN has groups"),
        ([{"to": "BN"}, {"to": "GN"}], r"rule 1 \(GN\) decides about no batch norm"),
        ([{"to": "BN", "types": ["Batch"]}], r"nothing fits names=\['\*'\], types=\['Batch'\]"),
        (
            [{"to": "SyncBN", "evaluating": "convert"}],
            r"2 layers are SyncBN but in evaluation mode, where it does nothing \(backbone.bn1, backbone.layer1.1\)",
        ),
        ([{"to": "BN", "momentum": 0.0}], r"2 layers have momentum 0: .* \(neck.1, head.1\)"),
        ([{"to": "BN"}], r"1 layers do not learn, but their running statistics move in training \(neck.2\)"),
    ],
)
def test_settings_without_effect_and_contradictions_are_named(rules, warning):
    assert re.search(warning, "\n".join(apply_norm_policy(detector(), rules).warnings))


def test_a_consistent_policy_has_no_warnings():
    rules = [{"to": "FrozenBN", "names": ["backbone.*", "neck.2"]}, {"to": "SyncBN", "momentum": 0.05}]
    assert apply_norm_policy(detector(), rules).warnings == ()


def test_layers_that_cannot_be_converted_are_left_and_say_why():
    model = nn.Sequential(nn.BatchNorm2d(6), nn.BatchNorm2d(6, track_running_stats=False), nn.BatchNorm2d(6).eval())
    assert apply_norm_policy(model, [{"to": "GN", "num_groups": 4}]).left == {
        "0": "4 groups do not divide 6 channels",
        "1": "4 groups do not divide 6 channels",
        "2": "in evaluation mode",
    }
    assert apply_norm_policy(model, [{"to": "FrozenBN"}]).left == {"1": "has no running statistics to freeze"}


@pytest.mark.parametrize("to", ["SyncBN", "FrozenBN", "GN", "LN2d"])
def test_there_and_back_by_rules_is_the_identity(to):
    """Weights, statistics, options, mode, dtype and what trains; also across a copy and a checkpoint."""
    model = nn.Sequential(
        nn.BatchNorm1d(4, eps=0.1, momentum=None),
        NamedBatchNorm(4, momentum=0.3).double().eval(),
        nn.BatchNorm3d(4, affine=False),
    )
    model[1].bias.requires_grad_(False)
    model[0](torch.randn(5, 4) * 3 + 1)
    before, states = copy.deepcopy(model), [every_setting(layer) for layer in model]
    there = {"to": to, "num_groups": 2, "frozen": "convert", "evaluating": "convert"}
    assert apply_norm_policy(model, [there]).converted == ("0", "1", "2")
    assert apply_norm_policy(model, [there]).left == dict.fromkeys("012", f"already {to}")
    assert list(model.state_dict()) == list(before.state_dict())
    assert [layer.eps for layer in model] == [0.1, 1e-5, 1e-5]
    assert [layer.training for layer in model] == [True, False, True]
    model.load_state_dict(before.state_dict())
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    for converted in (model, twin):
        assert apply_norm_policy(converted, [{"to": "BN", "frozen": "convert"}]).converted == ("0", "1", "2")
        assert classes(converted) == classes(before)
        assert [list(vars(layer)) for layer in converted] == [list(vars(layer)) for layer in before]
        torch.testing.assert_close(converted.state_dict(), before.state_dict(), rtol=0, atol=0)
    assert [every_setting(layer) for layer in model] == states


def test_rules_can_follow_each_other():
    model = nn.Sequential(nn.BatchNorm1d(4, momentum=0.3))
    for to in ("FrozenBN", "GN", "SyncBN", "LN2d", "FrozenBN", "BN"):
        rule = {"to": to, "frozen": "convert", "num_groups": 2}
        assert apply_norm_policy(model, [rule]).converted == ("0",)
        assert model[0].weight.requires_grad == (to != "FrozenBN")
    assert type(model[0]) is nn.BatchNorm1d
    assert model[0].momentum == 0.3


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (2, 4, 3, 5), (2, 4, 2, 3, 2)])
def test_what_the_targets_compute(shape):
    """Oracles: batch norm in evaluation mode, torch's group norm, and the formula of layer norm over channels."""
    layer = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)](4, eps=0.1)
    nn.init.uniform_(layer.weight), nn.init.normal_(layer.bias)
    layer(torch.randn(shape) * 2 + 1)
    input = torch.randn(shape)
    expected = {
        "FrozenBN": copy.deepcopy(layer).eval()(input),
        "GN": nn.functional.group_norm(input, 2, layer.weight, layer.bias, 0.1),
    }
    centred = input - input.mean(1, keepdim=True)
    channels = [1, -1, *[1] * (len(shape) - 2)]
    scale, shift = layer.weight.view(channels), layer.bias.view(channels)
    expected["LN2d"] = centred / (input.var(1, keepdim=True, correction=0) + 0.1).sqrt() * scale + shift
    state = copy.deepcopy(layer.state_dict())
    for to, value in expected.items():
        converted = copy.deepcopy(layer)
        apply_norm_policy(converted, [{"to": to, "num_groups": 2}])
        torch.testing.assert_close(converted(input), value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(dict(converted.state_dict()), dict(state), rtol=0, atol=0)  # training moved nothing


def test_frozen_layers_do_not_learn_and_their_gradients_are_gone():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model(torch.randn(2, 3, 4, 4)).square().sum().backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.5)
    apply_norm_policy(model, [{"to": "FrozenBN"}])
    before = copy.deepcopy(model[1].state_dict())
    optimizer.step()
    model.train()(torch.randn(2, 3, 4, 4)).square().sum().backward()
    optimizer.step()
    torch.testing.assert_close(dict(model[1].state_dict()), dict(before), rtol=0, atol=0)


def test_a_frozen_layer_stays_frozen_without_being_asked():
    model = nn.Sequential(nn.BatchNorm2d(4))
    apply_norm_policy(model, [{"to": "FrozenBN"}])
    for to in ("SyncBN", "BN", "GN", "LN2d"):
        assert apply_norm_policy(model, [{"to": to}]).left == {"0": "frozen"}


def test_frozen_layers_of_torchvision_become_batch_norm():
    FrozenBatchNorm2d = pytest.importorskip("torchvision").ops.FrozenBatchNorm2d
    model = nn.Sequential(FrozenBatchNorm2d(4))
    nn.init.uniform_(model[0].weight), nn.init.uniform_(model[0].running_var)
    input = torch.randn(2, 4, 3, 3)
    expected = model(input)
    summary = apply_norm_policy(model, [{"to": "SyncBN"}])
    assert summary.left == {"0": "frozen"}
    assert summary.warnings == ()  # its statistics do not move
    assert apply_norm_policy(model, [{"to": "FrozenBN"}]).converted == ("0",)
    torch.testing.assert_close(model(input), expected)
    assert apply_norm_policy(model, [{"to": "BN", "frozen": "convert"}]).converted == ("0",)
    torch.testing.assert_close(model.eval()(input), expected)


def grouped_statistics():
    """Return the running mean after one batch of ones times the rank, for each kind of process group."""
    found = {}
    os.environ["LOCAL_WORLD_SIZE"] = "2"
    for group in (None, 2, "node", 4):
        model = nn.Sequential(nn.BatchNorm2d(1, momentum=1.0), nn.BatchNorm2d(1, momentum=1.0))
        apply_norm_policy(model, [{"to": "SyncBN", "process_group": group}])
        model[0](torch.full((2, 1, 2, 2), float(dist.get_rank())))
        found[group] = model[0].running_mean.item()
    with pytest.raises(ValueError, match="process_group is 3, which does not divide 4 ranks; use a divisor, 'node'"):
        apply_norm_policy(model, [{"to": "SyncBN", "process_group": 3}])
    return found


@pytest.mark.distributed
def test_process_groups_by_number_and_node():
    for rank, found in enumerate(run_ranks(grouped_statistics, 4)):
        pair = 0.5 if rank < 2 else 2.5
        assert found == {None: 1.5, 2: pair, "node": pair, 4: 1.5}


@pytest.mark.detectron2
def test_layers_of_detectron2():
    layers = pytest.importorskip("detectron2.layers.batch_norm")
    model = nn.Sequential(layers.FrozenBatchNorm2d(4), layers.NaiveSyncBatchNorm(4))
    nn.init.uniform_(model[0].weight), nn.init.uniform_(model[0].running_var)
    input = torch.randn(2, 4, 3, 3)
    expected = model.eval()(input)
    model.train()
    assert apply_norm_policy(model, [{"to": "SyncBN"}]).left == {"0": "frozen"}
    assert apply_norm_policy(model, [{"to": "BN", "frozen": "convert"}]).converted == ("0", "1")
    assert [type(layer) for layer in model] == [nn.BatchNorm2d] * 2
    assert not model[0].weight.requires_grad  # it did not learn before
    torch.testing.assert_close(model.eval()(input), expected)
