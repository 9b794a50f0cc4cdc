"""Heads with core losses: Detectron2's own numbers where the losses are the same, and training with the others."""

import pytest
import torch
from small_detectron2 import KINDS, batch, losses_and_gradients, small_config

pytestmark = pytest.mark.detectron2

# What the losses of Detectron2's default config are called here.
SAME = {
    "CLS": {"type": "CrossEntropyLoss"},
    "BOX_REG": {"type": "SmoothL1Loss", "beta": 0.0},
    "RPN_CLS": {"type": "BCELoss"},
    "RPN_LOC": {"type": "L1Loss"},
    "MASK": {"type": "BCELoss"},
}
SAME_RETINANET = {
    "CLS": {"type": "FocalLoss", "use_sigmoid": True, "alpha": 0.25, "gamma": 2.0},
    "BOX_REG": {"type": "SmoothL1Loss", "beta": 0.1},
}


def places(kind):
    if kind == "retinanet":
        return ("CLS", "BOX_REG")
    return tuple(place for place in SAME if place != "MASK" or kind == "mask")


def same(kind):
    return SAME_RETINANET if kind == "retinanet" else {place: SAME[place] for place in places(kind)}


def built(cfg, like=None):
    from detectron2.modeling import build_model

    from cvplugins.detectron2 import validate_cvplugins_config

    validate_cvplugins_config(cfg)
    torch.manual_seed(0)
    model = build_model(cfg)
    if like is not None:
        model.load_state_dict(like.state_dict())  # the checkpoints are the same
    return model


def assert_close(found, expected, share):
    """To a share of the largest number of each tensor, which is what rounding errors of its sums go with."""
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        bound = share * each.abs().max() + 1e-12
        assert (found[name] - each).abs().max() <= bound, (name, found[name], each)


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_without_losses_all_numbers_equal_detectron2s_to_the_last_bit(kind, empty):
    theirs = built(small_config(kind, ours=False))
    ours = built(small_config(kind), theirs)
    assert type(ours) is not type(theirs) or type(ours.roi_heads) is not type(theirs.roi_heads)
    expected, expected_gradients, expected_log = losses_and_gradients(theirs, batch(empty))
    found, gradients, log = losses_and_gradients(ours, batch(empty))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert gradients.keys() == expected_gradients.keys()
    assert all(torch.equal(gradients[name], each) for name, each in expected_gradients.items())
    assert log == expected_log


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_with_the_same_losses_all_numbers_equal_detectron2s(kind, empty):
    """To float32's rounding, losses 1e-6 and gradients 1e-5 of the largest: sums are taken in another order."""
    theirs = built(small_config(kind, ours=False))
    ours = built(small_config(kind, **same(kind)), theirs)
    expected, expected_gradients, expected_log = losses_and_gradients(theirs, batch(empty))
    found, gradients, log = losses_and_gradients(ours, batch(empty))
    assert_close(found, expected, 1e-6)
    assert_close(gradients, expected_gradients, 1e-5)
    assert log == expected_log


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
@pytest.mark.parametrize("model", ["fpn", "cascade", "retinanet"])
def test_iou_losses_equal_detectron2s(model, kind):
    plain = small_config(model, ours=False)
    plain.MODEL.RPN.BBOX_REG_LOSS_TYPE = plain.MODEL.RETINANET.BBOX_REG_LOSS_TYPE = kind
    plain.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE = kind
    theirs = built(plain)
    loss = {"type": "BoxIoULoss", "kind": kind}
    boxes = {"BOX_REG": loss} if model == "retinanet" else {"BOX_REG": loss, "RPN_LOC": loss}
    ours = built(small_config(model, **boxes), theirs)
    expected, expected_gradients, _ = losses_and_gradients(theirs, batch())
    found, gradients, _ = losses_and_gradients(ours, batch())
    assert_close(found, expected, 1e-6)
    assert_close(gradients, expected_gradients, 1e-5)


FAMILIES = {
    "softmax focal": {"CLS": {"type": "FocalLoss", "gamma": 2.0}},
    "sigmoid focal": {"CLS": {"type": "FocalLoss", "use_sigmoid": True, "alpha": 0.25}},
    "sigmoid": {"CLS": {"type": "BCELoss"}, "RPN_CLS": {"type": "FocalLoss", "use_sigmoid": True, "alpha": 0.25}},
    "smoothed": {"CLS": {"type": "CrossEntropyLoss", "label_smoothing": 0.1}, "BOX_REG": {"type": "CharbonnierLoss"}},
    "IoU": {"BOX_REG": {"type": "BoxIoULoss", "kind": "ciou"}, "RPN_LOC": {"type": "BoxIoULoss", "kind": "siou"}},
    "hard examples": {
        "CLS": {"type": "OHEMLoss", "keep_ratio": 0.5, "loss": {"type": "BCELoss"}},
        "RPN_CLS": {"type": "OHEMLoss", "negative_ratio": 3, "background": 1, "loss": {"type": "BCELoss"}},
        "BOX_REG": {"type": "OHEMLoss", "keep_ratio": 0.5, "loss": {"type": "L1Loss"}},
    },
    "masks by region": {"MASK": {"type": "DiceLoss", "mode": "binary"}},
    "masks by boundary": {"MASK": {"type": "BoundaryLoss", "mode": "binary", "normalise": True}},
    "masks, focal": {"MASK": {"type": "FocalLoss", "use_sigmoid": True, "loss_weight": 2.0}},
}
RUNS = [
    (kind, family)
    for kind in KINDS
    for family, losses in FAMILIES.items()
    if set(losses) & set(places(kind)) and not (kind == "retinanet" and family in ("softmax focal", "smoothed"))
]


@pytest.mark.parametrize(("kind", "family"), RUNS)
def test_two_iterations_train_every_parameter_and_log_every_loss(kind, family):
    from detectron2.engine import SimpleTrainer

    chosen = {place: loss for place, loss in FAMILIES[family].items() if place in places(kind)}
    model = built(small_config(kind, **chosen))
    before = {name: each.clone() for name, each in model.named_parameters()}
    loader = [batch(), batch()]
    trainer = SimpleTrainer(model.train(), loader, torch.optim.SGD(model.parameters(), lr=0.01))
    torch.manual_seed(0)
    trainer.train(0, 2)
    expected = {"loss_cls", "loss_box_reg"}
    if kind == "cascade":
        expected = {f"{name}_stage{stage}" for name in expected for stage in range(3)}
    if kind != "retinanet":
        expected |= {"loss_rpn_cls", "loss_rpn_loc"}
    if kind == "mask":
        expected |= {"loss_mask", "mask_rcnn/accuracy"}
    for name in expected:
        values = [value for value, _ in trainer.storage.history(name).values()]
        assert len(values) == 2, name
        assert all(value == value and value != float("inf") for value in values), name
    # Of a bias the signs of an L1 loss may sum up to 0.
    still = [name for name, each in model.named_parameters() if each.ndim > 1 and torch.equal(each, before[name])]
    assert not still
    with torch.no_grad():
        assert all("instances" in each for each in model.eval()(batch()))


def test_sigmoids_are_read_as_sigmoids_and_leave_the_column_of_the_background_alone():
    model = built(small_config("fpn", CLS={"type": "FocalLoss", "use_sigmoid": True}))
    predictor = model.roi_heads.box_predictor
    _, gradients, _ = losses_and_gradients(model, batch())
    rows = gradients["roi_heads.box_predictor.cls_score.bias"]
    assert (rows[:3] != 0).all()
    assert rows[3] == 0
    scores = torch.tensor([[2.0, -1.0, 0.0, 9.0], [0.5, 0.0, 0.0, 0.0]])
    found = predictor.predict_probs((scores, None), [[None], [None]])
    assert torch.equal(torch.cat(found), scores.sigmoid())
    softmax = built(small_config("fpn", CLS={"type": "FocalLoss"})).roi_heads.box_predictor
    assert torch.equal(torch.cat(softmax.predict_probs((scores, None), [[None], [None]])), scores.softmax(1))


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("loss", [{"type": "L1Loss"}, {"type": "BoxIoULoss"}])
def test_boxes_of_each_class_or_of_all(agnostic, loss):
    cfg = small_config("fpn", BOX_REG=loss)
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = agnostic
    model = built(cfg)
    losses, gradients, _ = losses_and_gradients(model, batch())
    assert losses["loss_box_reg"] > 0
    reached = gradients["roi_heads.box_predictor.bbox_pred.bias"].view(-1, 4).abs().sum(1) > 0
    # The objects are of classes 1 and 2; no box of class 0 is learned from.
    assert reached.tolist() == ([True] if agnostic else [False, True, True])


def test_without_proposals_and_without_foreground_the_losses_are_0_with_gradients():
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    losses = {"CLS": {"type": "FocalLoss"}, "BOX_REG": {"type": "BoxIoULoss"}}
    predictor = built(small_config("fpn", **losses)).roi_heads.box_predictor
    features = predictor.cls_score.in_features
    background = Instances((64, 64), proposal_boxes=Boxes(torch.tensor([[0.0, 0.0, 9.0, 9.0]])))
    background.gt_classes = torch.tensor([3])
    for proposals in ([], [background[:0]], [background]):
        predictor.zero_grad()
        with EventStorage():
            found = predictor.losses(predictor(torch.zeros(sum(map(len, proposals)), features)), proposals)
        sum(found.values()).backward()
        assert found["loss_box_reg"] == 0
        assert (found["loss_cls"] == 0) == (not sum(map(len, proposals)))
        assert all(each.grad is not None and each.grad.isfinite().all() for each in predictor.parameters())


def test_parts_of_a_composite_loss_follow_the_iteration_and_are_logged():
    from detectron2.engine import SimpleTrainer

    composite = {
        "type": "CompositeLoss",
        "losses": {"ce": {"type": "CrossEntropyLoss"}, "focal": {"type": "FocalLoss"}},
        "weights": {"focal": [[0, 0.0], [1, 2.0]], "ce": "learned"},
    }
    model = built(small_config("fpn", CLS=composite))
    learned = [name for name, _ in model.named_parameters() if "log_variance" in name]
    assert learned == ["roi_heads.box_predictor.cls_loss.loss.log_variance.ce"]
    trainer = SimpleTrainer(model.train(), [batch(), batch()], torch.optim.SGD(model.parameters(), lr=0.01))
    trainer.train(0, 2)
    focal, ce, whole = (
        [value for value, _ in trainer.storage.history(name).values()]
        for name in ("loss_cls.focal", "loss_cls.ce", "loss_cls")
    )
    assert focal[0] == 0 < focal[1]
    assert [a + b for a, b in zip(focal, ce, strict=True)] == pytest.approx(whole, rel=1e-6)
    assert model.roi_heads.box_predictor.cls_loss.loss.log_variance["ce"] != 0


def test_a_mask_loss_of_learned_weights_is_no_layer():
    parts = {"bce": {"type": "BCELoss"}, "dice": {"type": "DiceLoss", "mode": "binary"}}
    model = built(small_config("mask", MASK={"type": "CompositeLoss", "losses": parts, "weights": "learned"}))
    losses, gradients, log = losses_and_gradients(model, batch())
    assert losses["loss_mask"].isfinite()
    assert "roi_heads.mask_head.mask_loss.loss.log_variance.dice" in gradients
    assert set(log) >= {"loss_mask.bce", "loss_mask.dice"}


def test_masks_of_all_classes_at_once():
    cfg = small_config("mask", MASK={"type": "BCELoss"})
    plain = small_config("mask", ours=False)
    cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = plain.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = True
    theirs = built(plain)
    expected, _, _ = losses_and_gradients(theirs, batch())
    found, _, _ = losses_and_gradients(built(cfg, theirs), batch())
    torch.testing.assert_close(found["loss_mask"], expected["loss_mask"], rtol=1e-6, atol=1e-7)


def test_masks_of_c4():
    cfg, plain = small_config("c4", MASK={"type": "BCELoss"}), small_config("c4", ours=False)
    for each, prefix in ((cfg, "Cvplugins"), (plain, "")):
        each.MODEL.MASK_ON = True
        each.MODEL.ROI_MASK_HEAD.update(NAME=f"{prefix}MaskRCNNConvUpsampleHead", CONV_DIM=8)
    theirs = built(plain)
    expected, _, _ = losses_and_gradients(theirs, batch())
    found, _, _ = losses_and_gradients(built(cfg, theirs), batch())
    assert_close(found, expected, 1e-6)


def test_a_lazy_config_of_the_zoo_takes_modules_and_dicts():
    from detectron2.config import LazyCall as L
    from detectron2.config import LazyConfig, instantiate

    from cvplugins.detectron2 import CvpluginsFastRCNNOutputLayers, CvpluginsMaskRCNNConvUpsampleHead, CvpluginsRPN
    from cvplugins.detectron2.run.config import zoo_folder
    from cvplugins.losses import BoxIoULoss, DiceLoss

    lazy = LazyConfig.load(str(zoo_folder() / "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")).model
    lazy.backbone.bottom_up.stages.norm = lazy.backbone.bottom_up.stem.norm = "BN"
    rpn, heads = lazy.proposal_generator, lazy.roi_heads
    rpn._target_, rpn.box_loss = CvpluginsRPN, L(BoxIoULoss)(kind="giou")
    heads.box_predictor._target_ = CvpluginsFastRCNNOutputLayers
    heads.box_predictor.cls_loss = {"type": "CrossEntropyLoss", "class_weight": [1.0] * 80 + [0.5]}
    heads.mask_head._target_, heads.mask_head.mask_loss = CvpluginsMaskRCNNConvUpsampleHead, L(DiceLoss)(mode="binary")
    model = instantiate(lazy)
    assert model.roi_heads.box_predictor.cls_loss.loss.class_weight == [1.0] * 80 + [0.5]
    losses, gradients, _ = losses_and_gradients(model, batch())
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
    assert all(each.isfinite() for each in losses.values())
    assert all(gradients[f"roi_heads.mask_head.{layer}.weight"].any() for layer in ("predictor", "deconv", "mask_fcn1"))
