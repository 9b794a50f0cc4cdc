"""The translation of Detectron2's arguments, against the core's functions; it needs no Detectron2."""

import subprocess
import sys

import pytest
import torch

from cvplugins import losses as core
from cvplugins.detectron2.models.losses import (
    PLACES,
    BoxLoss,
    ClassLoss,
    MaskLoss,
    ObjectnessLoss,
    PointLoss,
    QueryClassLoss,
    SigmoidClassLoss,
)
from cvplugins.errors import UserError

GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(6, 4, generator=GENERATOR)
LABELS = torch.tensor([0, 2, 3, 3, 1, -1])  # 3 is the background, -1 ignored


DICE = {"type": "DiceLoss", "mode": "binary", "smooth": 0.5}


class Shift:
    """A transform whose offsets are differences of coordinates."""

    def get_deltas(self, anchors, boxes):
        return boxes - anchors

    def apply_deltas(self, deltas, anchors):
        return anchors + deltas


def test_classes_of_a_softmax():
    for config, loss in (
        ({"type": "CrossEntropyLoss", "label_smoothing": 0.1}, core.CrossEntropyLoss(label_smoothing=0.1)),
        ({"type": "FocalLoss", "gamma": 1.5, "alpha": [1.0, 2.0, 3.0, 0.5]}, core.FocalLoss(gamma=1.5)),
    ):
        if "alpha" in config:
            loss.alpha = config["alpha"]
        expected = loss(SCORES[:5], LABELS[:5], reduction="sum") / 7
        torch.testing.assert_close(0.5 * expected, ClassLoss.of({**config, "loss_weight": 0.5})(SCORES, LABELS, 7))


def test_classes_of_sigmoids():
    one_hot = torch.nn.functional.one_hot(LABELS[:5], 4)[:, :3].float()
    bce = torch.nn.functional.binary_cross_entropy_with_logits(SCORES[:5, :3], one_hot, reduction="sum") / 7
    for kind in (ClassLoss, SigmoidClassLoss):
        loss = kind.of({"type": "BCELoss"})
        assert loss.use_sigmoid
        torch.testing.assert_close(loss(SCORES[:, :3], LABELS, 7), bce)


def test_objectness():
    scores, labels = SCORES.flatten(), torch.arange(24) % 3 == 0
    bce = torch.nn.functional.binary_cross_entropy_with_logits(scores, labels.float(), reduction="sum") / 5
    torch.testing.assert_close(ObjectnessLoss.of({"type": "BCELoss"})(scores, labels.to(torch.int8), 5), bce)
    focal = ObjectnessLoss.of({"type": "FocalLoss", "use_sigmoid": True, "alpha": 0.25})(scores, labels, 5)
    p = torch.where(labels, scores.sigmoid(), 1 - scores.sigmoid())
    by_hand = (torch.where(labels, 0.25, 0.75) * (1 - p) ** 2 * -p.log()).sum() / 5
    torch.testing.assert_close(focal, by_hand)


def test_hard_negatives_of_objectness():
    """The background is class 1, as the option of OHEMLoss says."""
    ohem = {"type": "OHEMLoss", "loss": {"type": "BCELoss"}, "negative_ratio": 1, "background": 1}
    scores, labels = torch.tensor([0.0, 3.0, 1.0, 2.0]), torch.tensor([1, 0, 0, 0])
    expected = torch.nn.functional.softplus(torch.tensor([0.0, 3.0])).sum() / 2
    torch.testing.assert_close(ObjectnessLoss.of(ohem)(scores, labels, 2), expected)


def test_boxes_by_offsets_and_decoded():
    anchors = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 8.0, 6.0]])
    gt_boxes, deltas = anchors + 1, torch.full((2, 4), 0.5)
    offsets = BoxLoss.of({"type": "SmoothL1Loss", "beta": 0.25})
    assert not offsets.decoded
    torch.testing.assert_close(offsets(deltas, anchors, gt_boxes, Shift(), 3), torch.tensor(8 * (0.5 - 0.125) / 3))
    decoded = BoxLoss.of({"type": "BoxIoULoss", "kind": "giou"})
    assert decoded.decoded
    expected = core.box_iou_loss(anchors + 0.5, gt_boxes, kind="giou", divisor=3)
    torch.testing.assert_close(decoded(deltas, anchors, gt_boxes, Shift(), 3), expected)


@pytest.mark.parametrize(
    "config",
    [
        {"type": "DiceLoss", "mode": "binary"},
        {"type": "DiceLoss", "mode": "multilabel"},
        {"type": "LovaszLoss", "binary": True},
        {"type": "BoundaryLoss", "mode": "binary"},
        {"type": "BCELoss"},
        {"type": "FocalLoss", "use_sigmoid": True},
    ],
)
def test_masks(config):
    scores = torch.randn(3, 8, 8, generator=GENERATOR)
    masks = torch.zeros(3, 8, 8)
    masks[:, 2:6, 1:5] = 1
    one_by_one = {**config, "mode": "binary"} if "mode" in config else config
    loss = MaskLoss.of(one_by_one).loss
    expected = sum(loss(score[None], mask[None]) for score, mask in zip(scores, masks, strict=True)) / 3
    torch.testing.assert_close(MaskLoss.of(config)(scores, masks), expected)


def test_classes_of_queries():
    """Oracle: torch's weighted mean, which is what Mask2Former computes."""
    labels, weight = LABELS[:5], torch.tensor([1.0, 1.0, 1.0, 0.1])
    expected = torch.nn.functional.cross_entropy(SCORES[:5], labels, weight)
    loss = QueryClassLoss.of({"type": "CrossEntropyLoss", "loss_weight": 2.0})
    torch.testing.assert_close(loss(SCORES[:5], labels, weight), 2 * expected)
    focal = QueryClassLoss.of({"type": "FocalLoss", "gamma": 0.0})
    torch.testing.assert_close(focal(SCORES[:5], labels, weight), expected)


def test_masks_at_points():
    """Means over the points, or the region, of each of 6 masks, divided by the 4 that a process has on average."""
    shares = torch.rand(6, 4, generator=torch.Generator().manual_seed(1))
    bce = torch.nn.functional.binary_cross_entropy_with_logits(SCORES, shares, reduction="none")
    torch.testing.assert_close(PointLoss.of({"type": "BCELoss"})(SCORES, shares, 4.0), bce.mean(1).sum() / 4)
    p = SCORES.sigmoid()
    dice = 1 - (2 * (p * shares).sum(1) + 1) / (p.sum(1) + shares.sum(1) + 1)
    ours = PointLoss.of(DICE)
    torch.testing.assert_close(ours(SCORES, shares, 4.0), dice.sum() / 4)
    both = PointLoss.of({"type": "CompositeLoss", "losses": {"bce": {"type": "BCELoss"}, "dice": DICE}})
    torch.testing.assert_close(both(SCORES, shares, 4.0), (bce.mean(1).sum() + dice.sum()) / 4)
    torch.testing.assert_close(both.parts["dice"], dice.sum() / 4)


@pytest.mark.parametrize("place", PLACES)
def test_nothing_to_learn_from_gives_0_with_a_gradient(place):
    configs = {"RPN_LOC": {"type": "L1Loss"}, "BOX_REG": {"type": "BoxIoULoss"}, "M2F_CLS": {"type": "FocalLoss"}}
    config = configs.get(place, DICE if place == "M2F_DICE" else {"type": "BCELoss"})
    loss = PLACES[place].of(config)
    shape = {"CLS": (0, 3), "RPN_CLS": (0,), "MASK": (0, 4, 4)}.get(place, (0, 4))
    predicted = torch.zeros(shape, requires_grad=True)
    if isinstance(loss, BoxLoss):
        value = loss(predicted, torch.zeros(0, 4), torch.zeros(0, 4), Shift(), 1)
    elif isinstance(loss, MaskLoss):
        value = loss(predicted, torch.zeros(shape))
    elif isinstance(loss, PointLoss):
        value = loss(predicted, torch.zeros(shape), 1.0)
    elif isinstance(loss, QueryClassLoss):
        value = loss(predicted, torch.zeros(0, dtype=torch.long), torch.ones(4))
    else:
        value = loss(predicted, torch.zeros(0, dtype=torch.long), 1)
    value.backward()
    assert value == 0
    assert predicted.grad.shape == shape


def test_parts_of_a_composite_loss_are_kept():
    parts = {"ce": {"type": "CrossEntropyLoss"}, "focal": {"type": "FocalLoss"}}
    loss = ClassLoss.of({"type": "CompositeLoss", "losses": parts, "weights": {"focal": 2.0}, "loss_weight": 3.0})
    value = loss(SCORES, LABELS, 5)
    torch.testing.assert_close(sum(loss.parts.values()), value)
    torch.testing.assert_close(loss.parts["focal"], 6 * core.softmax_focal_loss(SCORES[:5], LABELS[:5]))


def test_empty_entries_and_modules():
    assert ClassLoss.of(None) is ClassLoss.of({}) is ClassLoss.of({"type": "", "gamma": None}) is None
    module = core.FocalLoss()
    assert ClassLoss.of(module).loss is module
    own = torch.nn.Identity()  # of a user, whose business it is
    assert BoxLoss.of(own).loss is own
    made = BoxLoss.of(own)
    assert BoxLoss.of(made) is made


@pytest.mark.parametrize(
    ("place", "config", "message"),
    [
        ("RPN_CLS", {"type": "BoxIoULoss"}, "no loss 'BoxIoULoss' here; use BCELoss, CompositeLoss, FocalLoss, OHEML"),
        ("BOX_REG", {"type": "CrossEntropyLoss"}, "no loss 'CrossEntropyLoss' here; use BoxIoULoss, Charbonnier"),
        ("BOX_REG", core.CrossEntropyLoss(), "CrossEntropyLoss does not fit here; use L1Loss"),
        ("CLS", core.OHEMLoss(core.DiceLoss(), keep_ratio=0.5), "DiceLoss does not fit here"),
        ("RPN_CLS", {"type": "FocalLoss"}, "FocalLoss reads its scores as a softmax, but here stand sigmoids"),
        ("MASK", {"type": "DiceLoss"}, "DiceLoss reads its scores as a softmax.*mode='binary'"),
        ("CLS", {"type": "FocalLoss", "loss_weight": "2"}, "loss_weight of FocalLoss is '2'; expected a number"),
        ("CLS", {"type": "CrossEntropyLoss", "class_weight": [1.0, 2.0]}, "class_weight holds 2 numbers; use 1 or 3"),
        ("CLS", {"type": "BCELoss", "reduction": "sum"}, "reduction 'sum' takes no divisor"),
        ("MASK", {"type": "BCELoss", "reduction": "none"}, r"gives \(2, 1, 4, 4\) values, not one"),
        (
            "BOX_REG",
            {"type": "CompositeLoss", "losses": {"a": {"type": "L1Loss"}, "b": {"type": "BoxIoULoss"}}},
            "BoxIoULoss compares decoded boxes and does not fit beside losses of offsets",
        ),
    ],
)
def test_what_does_not_fit_is_named(place, config, message):
    with pytest.raises(UserError, match=message):
        PLACES[place].of(config).try_out(2)


def test_without_detectron2_the_missing_framework_is_named():
    code = """
import sys
sys.modules["detectron2"] = None  # as if it were not installed
import cvplugins.detectron2, cvplugins.detectron2.models.losses
try:
    cvplugins.detectron2.CvpluginsRPN
except ImportError as error:
    print(error)
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "CvpluginsRPN needs Detectron2: pip install" in finished.stdout, finished.stderr
