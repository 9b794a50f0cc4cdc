"""Losses from configs: what is built is the module with its options, and mistakes are named."""

import pytest
import torch

from cvplugins.errors import UserError
from cvplugins.losses import LOSSES, BCELoss, CompositeLoss, CrossEntropyLoss, DiceLoss, FocalLoss, OHEMLoss, build_loss


def test_every_loss_without_required_options_is_built():
    built = 0
    for core in LOSSES:
        try:
            expected = core()
        except TypeError:
            with pytest.raises(UserError, match=f"{core.__name__} needs "):
                build_loss({"type": core.__name__})
            continue
        assert type(build_loss({"type": core.__name__})) is type(expected)
        built += 1
    assert built > 20


def test_options_and_losses_within_losses_arrive():
    config = {
        "type": "cvplugins.CompositeLoss",
        "losses": {
            "ohem": {"type": "OHEMLoss", "loss": {"type": "FocalLoss", "gamma": 1.0}, "keep_ratio": 0.5},
            "ce": {"type": "CrossEntropyLoss", "class_weight": (1.0, 2.0)},
        },
        "weights": {"ce": [(0, 0.0), (10, 1.0)]},
    }
    parts = {
        "ohem": OHEMLoss(FocalLoss(gamma=1.0), keep_ratio=0.5),
        "ce": CrossEntropyLoss(class_weight=[1.0, 2.0]),
    }
    expected, built = CompositeLoss(parts, {"ce": [(0, 0.0), (10, 1.0)]}), build_loss(config)
    expected.iteration = built.iteration = 5
    logits, target = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 3)
    assert torch.equal(built(logits, target), expected(logits, target))
    assert config["losses"]["ohem"]["type"] == "OHEMLoss"  # the config itself is left alone


def test_use_sigmoid_is_taken_where_it_is_true():
    assert isinstance(build_loss({"type": "BCELoss", "use_sigmoid": True}), BCELoss)
    assert build_loss({"type": "DiceLoss", "mode": "binary", "use_sigmoid": True}).use_sigmoid
    with pytest.raises(UserError, match="CrossEntropyLoss works with use_sigmoid=False only"):
        build_loss({"type": "CrossEntropyLoss", "use_sigmoid": True})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"gamma": 2.0}, "a dict with type, but got"),
        ("FocalLoss", "a dict with type, but got 'FocalLoss'"),
        ({"type": "FocalLos"}, "no loss 'FocalLos' here; use .*FocalLoss"),
        ({"type": "mmdet.FocalLoss"}, "no loss 'mmdet.FocalLoss' here"),
        ({"type": "FocalLoss", "gama": 2.0}, "FocalLoss has no option gama; it has use_sigmoid, gamma"),
        ({"type": "FocalLoss", "gamma": -1.0}, "FocalLoss: gamma must be at least 0"),
        ({"type": "FocalLoss", "gamma": "two"}, "FocalLoss: .* is .*; expected a number"),
        ({"type": "OHEMLoss", "keep_ratio": 0.5}, "OHEMLoss needs loss"),
        ({"type": "OHEMLoss", "keep_ratio": 0.5, "loss": {"type": "X"}}, "no loss 'X' here"),
        (
            {"type": "CompositeLoss", "losses": {"a": {"type": "BCELoss"}, "b": {"type": "FocalLoss"}}},
            "CompositeLoss: parts read the same scores in different ways",
        ),
    ],
)
def test_a_wrong_config_is_named(config, message):
    with pytest.raises(UserError, match=message):
        build_loss(config)


def test_only_known_losses_are_offered():
    with pytest.raises(UserError, match=r"no loss 'FocalLoss' here; use DiceLoss$"):
        build_loss({"type": "FocalLoss"}, [DiceLoss])
