"""Losses in the places where OpenMMLab's heads call them, and the calling convention itself."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from small_models import batch, small_faster_rcnn, small_mask2former

from cvplugins.errors import UserError

pytestmark = pytest.mark.openmmlab


def build(**options):
    from mmengine.registry import MODELS

    return MODELS.build(dict(type="cvplugins.FocalLoss", **options))


FOCAL = dict(type="cvplugins.FocalLoss")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rpn_loss", "roi_loss", "roi_channels"),
    [
        (dict(FOCAL, use_sigmoid=True, alpha=0.25), None, 21),
        (FOCAL, None, 21),  # a softmax RPN: the head reads the absence of use_sigmoid as False, and so do we
        (None, FOCAL, 21),
        (None, dict(FOCAL, use_sigmoid=True, alpha=0.25), 20),
    ],
    ids=["rpn_sigmoid", "rpn_softmax", "roi_softmax", "roi_sigmoid"],
)
def test_faster_rcnn_trains_two_iterations_and_predicts(rpn_loss, roi_loss, roi_channels):
    from mmengine.optim import OptimWrapper

    model = small_faster_rcnn(rpn_loss, roi_loss)
    assert model.roi_head.bbox_head.fc_cls.out_features == roi_channels
    heads = {"rpn_head.rpn_cls.weight", "roi_head.bbox_head.fc_cls.weight"}
    before = {name: value.clone() for name, value in model.named_parameters() if name in heads}
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    for _ in range(2):
        logged = model.train_step(batch(), optimizer)
    assert {"loss_rpn_cls", "loss_cls", "acc"} <= set(logged)
    assert all(value.isfinite() for value in logged.values())
    for name, value in model.named_parameters():
        if name in heads:
            assert not torch.equal(value, before[name]), name
    model.eval()
    predictions = model.test_step(batch())[0].pred_instances
    assert ((predictions.labels >= 0) & (predictions.labels < 20)).all()


@pytest.mark.slow
@pytest.mark.parametrize("loss", [dict(type="cvplugins.BoxIoULoss", kind="ciou"), dict(type="cvplugins.SmoothL1Loss")])
def test_box_losses_train_both_heads(loss):
    from mmengine.optim import OptimWrapper

    decoded = loss["type"] == "cvplugins.BoxIoULoss"
    heads = ("rpn_head", "roi_head.bbox_head")
    options = {f"model.{head}.loss_bbox": {"_delete_": True, **loss, "loss_weight": 2.0} for head in heads}
    options |= {f"model.{head}.reg_decoded_bbox": decoded for head in heads}
    model = small_faster_rcnn(None, None, options)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    names = ["rpn_head.rpn_reg.weight", "roi_head.bbox_head.fc_reg.weight"]
    before = [model.get_parameter(name).clone() for name in names]
    for _ in range(2):
        logged = model.train_step(batch(), optimizer)
    assert logged["loss_rpn_bbox"] > 0
    assert all(value.isfinite() for value in logged.values())
    for name, value in zip(names, before, strict=True):
        assert not torch.equal(model.get_parameter(name), value), name


@pytest.mark.slow
def test_hard_examples_are_mined_in_both_heads():
    """Three negatives a positive in the RPN, a quarter of the samples in the box head; the heads see one loss."""
    from mmengine.optim import OptimWrapper

    rpn = dict(
        type="cvplugins.OHEMLoss", loss=dict(FOCAL, use_sigmoid=True), negative_ratio=3, background=1, use_sigmoid=True
    )
    roi = dict(type="cvplugins.OHEMLoss", loss=dict(type="CrossEntropyLoss"), keep_ratio=0.25)
    model = small_faster_rcnn(rpn, roi)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    watched = ("rpn_head.rpn_cls.weight", "roi_head.bbox_head.fc_cls.weight")
    before = [model.get_parameter(name).clone() for name in watched]
    for _ in range(2):
        logged = model.train_step(batch(), optimizer)
    assert all(value.isfinite() for value in logged.values())
    assert logged["loss_rpn_cls"] > 0
    for name, value in zip(watched, before, strict=True):
        assert not torch.equal(model.get_parameter(name), value), name


@pytest.mark.parametrize("wrapped", ["mmdet.CrossEntropyLoss", "cvplugins.CrossEntropyLoss"])
def test_mining_equals_the_wrapped_loss_on_what_is_kept(wrapped):
    from mmengine.registry import MODELS

    logits, target, weight = torch.randn(40, 4), torch.randint(0, 4, (40,)), torch.rand(40)
    ohem = MODELS.build(dict(type="cvplugins.OHEMLoss", loss=dict(type=wrapped), keep_ratio=0.3, loss_weight=2.0))
    each = torch.nn.functional.cross_entropy(logits, target, reduction="none") * weight
    expected = 2 * each.topk(12).values.sum() / 5
    torch.testing.assert_close(ohem(logits, target, weight, avg_factor=5), expected)


def test_mining_leaves_out_what_the_wrapped_loss_ignores():
    from mmengine.registry import MODELS

    part = dict(type="cvplugins.CrossEntropyLoss", ignore_index=7)
    ohem = MODELS.build(dict(type="cvplugins.OHEMLoss", loss=part, keep_ratio=1.0))
    logits, target = torch.randn(4, 4), torch.tensor([0, 7, 2, 7])
    torch.testing.assert_close(ohem(logits, target), torch.nn.functional.cross_entropy(logits[::2], target[::2]))


def test_backbone_in_a_config_is_built_with_its_weights(tmp_path):
    """PerceptualLoss freezes it, so that the model's init_weights would not find it."""
    from mmdet.registry import MODELS as mmdet_models
    from mmengine.registry import MODELS, DefaultScope

    backbone = dict(type="ResNet", depth=18, num_stages=1, out_indices=(0,), strides=(1,), dilations=(1,))
    with DefaultScope.overwrite_default_scope("mmdet"):
        resnet = mmdet_models.build(backbone)
        torch.save(resnet.state_dict(), tmp_path / "weights.pth")
        backbone["init_cfg"] = dict(type="Pretrained", checkpoint=str(tmp_path / "weights.pth"))
        loss = MODELS.build(dict(type="cvplugins.PerceptualLoss", backbone=backbone))
    images = torch.rand(2, 1, 3, 32, 32)
    resnet.eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    one, other = (resnet((image - mean) / std)[0] for image in images)
    torch.testing.assert_close(loss(*images), (one - other).square().mean())


def test_options_of_one_loss_alone_pass_through():
    from mmengine.registry import MODELS

    loss = MODELS.build(dict(type="cvplugins.GANLoss", kind="hinge", loss_weight=2.0))
    assert loss(torch.tensor([[0.5]]), True, for_generator=True) == -1
    features = MODELS.build(dict(type="cvplugins.FeatureMatchingLoss"))
    value = features([torch.ones(2, 3)], [torch.zeros(2, 3)], torch.tensor([1.0, 3.0]))
    assert value == 2


@pytest.mark.slow
def test_retinanet_trains_with_ours():
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.optim import OptimWrapper
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    model = Config.fromstring("_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'", ".py").model
    model.backbone.init_cfg = None
    model.bbox_head.loss_cls = dict(FOCAL, use_sigmoid=True, alpha=0.25)
    model.bbox_head.loss_bbox = dict(type="cvplugins.L1Loss")
    model = MODELS.build(model)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.001))
    before = model.bbox_head.retina_cls.weight.clone()
    for _ in range(2):
        logged = model.train_step(batch(), optimizer)
    assert all(value.isfinite() and value > 0 for value in logged.values())
    assert not torch.equal(model.bbox_head.retina_cls.weight, before)


@pytest.mark.slow
def test_segmentation_head_logs_each_of_its_losses():
    from mmengine.registry import DefaultScope
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    names = ("FocalLoss", "CrossEntropyLoss", "DiceLoss", "TverskyLoss", "IoULoss", "GeneralizedDiceLoss", "LovaszLoss")
    losses = [dict(type=f"cvplugins.{name}") for name in names]
    losses.append(dict(type="cvplugins.OHEMLoss", loss=dict(type="CrossEntropyLoss"), keep_ratio=0.1, min_kept=4))
    with DefaultScope.overwrite_default_scope("mmseg"):
        head = MODELS.build(
            dict(type="FCNHead", in_channels=4, channels=4, num_classes=3, num_convs=1, loss_decode=losses)
        )
    label = torch.randint(0, 3, (1, 8, 8))
    label[:, :2] = 255
    sample = SegDataSample(gt_sem_seg=PixelData(data=label))
    logged = head.loss([torch.randn(1, 4, 8, 8)], [sample], None)
    assert {"loss_focal", "loss_cross_entropy", "loss_dice", "loss_tversky", "loss_iou", "loss_ohem"} <= set(logged)
    for name, value in logged.items():
        if name.startswith("loss"):
            (gradient,) = torch.autograd.grad(value, head.conv_seg.weight, retain_graph=True)
            assert gradient.abs().sum() > 0, name


@pytest.mark.slow
def test_mask2former_trains_with_ours():
    from mmdet.registry import MODELS
    from mmengine.optim import OptimWrapper

    config = small_mask2former(
        loss_cls=dict(type="cvplugins.CrossEntropyLoss", class_weight=[1.0] * 80 + [0.1], loss_weight=2.0),
        loss_mask=dict(type="cvplugins.BCELoss", loss_weight=5.0),
        loss_dice=dict(type="cvplugins.DiceLoss", mode="binary", loss_weight=5.0),
    )
    model = MODELS.build(config)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-4))
    before = model.panoptic_head.query_feat.weight.clone()
    for _ in range(2):
        logged = model.train_step(batch(masks=True), optimizer)
    assert {"loss_cls", "loss_mask", "loss_dice", "d0.loss_dice"} <= set(logged)
    assert all(value.isfinite() and value > 0 for value in logged.values())
    assert not torch.equal(model.panoptic_head.query_feat.weight, before)


MASK_LOSSES = {
    "bce": dict(type="cvplugins.BCELoss"),
    "dice": dict(type="cvplugins.DiceLoss", mode="binary"),
    "composite": dict(
        type="cvplugins.CompositeLoss",
        losses=dict(focal=dict(FOCAL, use_sigmoid=True), hinge=dict(type="cvplugins.LovaszLoss", binary=True)),
    ),
}


@pytest.mark.parametrize("loss", MASK_LOSSES.values(), ids=MASK_LOSSES)
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_mask_head_of_mask_rcnn_takes_masks_of_the_labels(loss, class_agnostic):
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict
    from mmengine.registry import DefaultScope

    head = dict(type="FCNMaskHead", num_convs=1, in_channels=4, conv_out_channels=4, num_classes=3)
    with DefaultScope.overwrite_default_scope("mmdet"):
        head = MODELS.build(dict(head, class_agnostic=class_agnostic, loss_mask=dict(loss, use_mask=True)))
    masks = torch.randn(2, 1 if class_agnostic else 3, 8, 8, requires_grad=True)
    wanted = (torch.rand(2, 8, 8) > 0.5).float()
    head.get_targets = lambda **_: wanted  # what the head crops from the ground truth
    labels = torch.tensor([2, 0])
    sampled = [SimpleNamespace(pos_gt_labels=labels)]
    value = head.loss_and_target(masks, sampled, [], ConfigDict())["loss_mask"]["loss_mask"]
    value.sum().backward()
    reached = masks.grad.abs().sum((2, 3)) > 0
    expected = [[True], [True]] if class_agnostic else [[False, False, True], [True, False, False]]
    assert reached.tolist() == expected


def test_mask_loss_equals_mmdets():
    from mmdet.models.losses import CrossEntropyLoss
    from mmengine.registry import MODELS

    masks, wanted, labels = torch.randn(5, 3, 8, 8), (torch.rand(5, 8, 8) > 0.5).float(), torch.randint(0, 3, (5,))
    ours = MODELS.build(dict(type="cvplugins.BCELoss", use_mask=True, loss_weight=2.0))
    theirs = CrossEntropyLoss(use_mask=True, loss_weight=2.0)
    torch.testing.assert_close(ours(masks, wanted, labels), theirs(masks, wanted, labels).squeeze())


def test_convention_is_translated():
    logits, target, weight = torch.randn(6, 4), torch.randint(0, 4, (6,)), torch.rand(6)
    loss = build(loss_weight=2.0)
    core = loss.loss
    torch.testing.assert_close(
        loss(logits, target, weight, avg_factor=3), 2 * core(logits, target, weight=weight, divisor=3)
    )
    torch.testing.assert_close(loss(logits, target, avg_factor=torch.tensor([3])), 2 * core(logits, target, divisor=3))
    torch.testing.assert_close(
        loss(logits, target, reduction_override="none"), 2 * core(logits, target, reduction="none")
    )


def test_weight_per_logit_may_be_flat():
    logits, target, weight = torch.randn(6, 4), torch.randint(0, 4, (6,)), torch.rand(6, 4)
    loss = build(use_sigmoid=True)
    torch.testing.assert_close(loss(logits, target, weight.view(-1)), loss(logits, target, weight))


def test_heads_can_ask_for_the_kind_of_scores():
    assert build(use_sigmoid=True).use_sigmoid
    assert not build().use_sigmoid


def test_use_sigmoid_is_taken_where_it_is_the_only_way():
    """mmdet's heads read it from the config, so it has to be allowed there."""
    from mmengine.registry import MODELS

    assert MODELS.build(dict(type="cvplugins.BCELoss", use_sigmoid=True)).use_sigmoid
    with pytest.raises(ValueError, match="BCELoss works with use_sigmoid=True only"):
        MODELS.build(dict(type="cvplugins.BCELoss", use_sigmoid=False))


@pytest.mark.parametrize(
    ("name", "logged"),
    [
        ("BCELoss", "loss_bce"),
        ("BoxIoULoss", "loss_box_iou"),
        ("CrossEntropyLoss", "loss_cross_entropy"),
        ("IoULoss", "loss_iou"),
        ("SmoothL1Loss", "loss_smooth_l1"),
    ],
)
def test_names_are_words(name, logged):
    from mmengine.registry import MODELS

    assert MODELS.build(dict(type=f"cvplugins.{name}")).loss_name == logged


def test_name_in_the_log():
    assert build().loss_name == "loss_focal"
    assert build(loss_name="loss_hard").loss_name == "loss_hard"


def test_a_loss_of_numbers_does_not_suit_a_head_of_classes():
    from mmengine.registry import MODELS

    loss = MODELS.build(dict(type="cvplugins.L1Loss"))
    with pytest.raises(TypeError, match="L1Loss compares no labels, of which ignore_index=255 could be one"):
        loss(torch.randn(2, 3), torch.randn(2, 3), weight=None, ignore_index=255)


def test_unknown_option_is_named_with_those_that_exist():
    with pytest.raises(UserError, match=r"FocalLoss has no option gama; it has use_sigmoid, gamma, alpha"):
        build(gama=1)


def test_can_be_copied_and_pickled():
    for loss in (copy.deepcopy(build(gamma=3)), pickle.loads(pickle.dumps(build(gamma=3)))):
        assert loss.loss.gamma == 3


ONE_CHANNEL = [
    dict(type="cvplugins.BCELoss"),
    dict(type="cvplugins.FocalLoss", use_sigmoid=True),
    dict(type="cvplugins.OHEMLoss", loss=dict(type="cvplugins.BCELoss"), keep_ratio=1.0),
    dict(type="cvplugins.OHEMLoss", loss=dict(type="mmseg.CrossEntropyLoss", use_sigmoid=True), keep_ratio=1.0),
    dict(type="cvplugins.LovaszLoss", binary=True, use_sigmoid=True),
    *(
        dict(type=f"cvplugins.{name}Loss", mode=mode)
        for name in ("Dice", "IoU", "Tversky", "FocalTversky", "GeneralizedDice", "Boundary", "Hausdorff")
        for mode in ("binary", "multilabel")
    ),
    dict(
        type="cvplugins.CompositeLoss",
        losses=dict(
            bce=dict(type="mmseg.CrossEntropyLoss", use_sigmoid=True),
            focal=dict(type="cvplugins.FocalLoss", use_sigmoid=True),
            dice=dict(type="cvplugins.DiceLoss", mode="binary", use_sigmoid=True),
        ),
    ),
]


@pytest.mark.parametrize("config", ONE_CHANNEL, ids=lambda config: f"{config['type'][10:]}-{config.get('mode', '')}")
@pytest.mark.parametrize("pixels", [(6, 8), (1, 8)], ids=str)
def test_one_channel_scores_the_region_of_label_one(config, pixels):
    """As mmseg's heads with out_channels=1 call it: scores (N, 1, H, W), labels (N, H, W) of 0, 1 and 255."""
    from mmengine.registry import MODELS

    if config["type"][10:] in ("BoundaryLoss", "HausdorffLoss"):
        pixels = (6, 8)
    target = torch.zeros(2, *pixels, dtype=torch.long)
    target[..., 4:] = 1
    target[..., -1] = 255
    logits = torch.zeros(2, 1, *pixels, requires_grad=True)
    MODELS.build(config)(logits, target, weight=None, ignore_index=255).sum().backward()
    push = -logits.grad.squeeze(1)
    assert push[target == 1].sum() > 0
    assert push[target == 0].sum() < 0
    assert (push[target == 255] == 0).all()


def test_one_channel_of_rpn_scores_class_zero():
    """mmdet's heads flatten their scores; there label 1 is the background."""
    logits = torch.zeros(2, 1, requires_grad=True)
    build(use_sigmoid=True)(logits, torch.tensor([0, 1]), avg_factor=1).backward()
    assert logits.grad[0] < 0 < logits.grad[1]


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "FocalLoss", "DiceLoss", "LovaszLoss", "BoundaryLoss"])
def test_one_channel_is_refused_by_losses_of_exclusive_classes(name):
    from mmengine.registry import MODELS

    loss = MODELS.build(dict(type=f"cvplugins.{name}"))
    with pytest.raises(ValueError, match=r"does not fit scores .* of one channel; losses of sigmoids are BCELoss"):
        loss(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long), ignore_index=255)


@pytest.mark.parametrize("name", ["BCELoss", "L2Loss"])
def test_one_weight_for_all_classes_of_an_anchor_as_from_yolov3(name):
    from mmengine.registry import MODELS

    loss = MODELS.build(dict(type=f"cvplugins.{name}", reduction="sum"))
    logits, target, weight = torch.randn(2, 5, 3), torch.rand(2, 5, 3), torch.rand(2, 5, 1)
    torch.testing.assert_close(loss(logits, target, weight), loss(logits, target, weight.expand(2, 5, 3)))


def test_one_channel_of_a_discriminator_is_left_alone():
    from mmengine.registry import MODELS

    loss = MODELS.build(dict(type="cvplugins.GANLoss", kind="hinge"))
    assert loss(torch.full((2, 1, 4, 4), 0.5), True, for_generator=True) == -0.5


CROSS_ENTROPY = dict(type="cvplugins.CrossEntropyLoss")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(CROSS_ENTROPY, loss_weight="1.0"), "loss_weight of CrossEntropyLoss is '1.0'; expected a number"),
        (dict(type="cvplugins.OHEMLoss", keep_ratio=0.5), "OHEMLoss needs loss"),
        (dict(type="cvplugins.OHEMLoss", keep_ratio=0.5, loss=dict(gamma=2)), "expected the config of a loss"),
        (dict(type="cvplugins.OHEMLoss", keep_ratio=0.5, loss="mmdet.L1Loss"), "expected the config of a loss"),
        (dict(type="cvplugins.CompositeLoss", losses=[CROSS_ENTROPY]), "expected configs under names"),
        (dict(type="cvplugins.CompositeLoss", losses=dict(a="mmdet.L1Loss")), "expected the config of a loss"),
        (dict(type="cvplugins.CompositeLoss", losses=dict(a=dict(beta=1)), class_weight=[1]), "the config of a loss"),
        (dict(type="cvplugins.CompositeLoss", losses=dict(a=CROSS_ENTROPY), weights=[1.0]), "under its name"),
        (dict(type="cvplugins.CompositeLoss", losses=dict(a=CROSS_ENTROPY), weights=dict(a=None)), "use a number"),
        (
            dict(type="cvplugins.CompositeLoss", losses=dict(a=CROSS_ENTROPY), weights=dict(a=(0, 1.0))),
            "list of points",
        ),
    ],
)
def test_mistakes_in_a_config_are_named(config, message):
    from mmengine.registry import MODELS

    with pytest.raises(UserError, match=message):
        MODELS.build(config)


def test_unknown_part_is_named_with_class_weights_too():
    from mmengine.registry import MODELS

    parts = dict(a=dict(type="mmseg.DicLoss"))
    with pytest.raises(KeyError, match="DicLoss"):
        MODELS.build(dict(type="cvplugins.CompositeLoss", losses=parts, class_weight=[1.0]))


def test_head_with_a_channel_for_the_background_gets_no_second_one():
    """DoubleConvFCBBoxHead makes one whatever the loss says."""
    loss = build(use_sigmoid=True)
    assert loss.get_cls_channels(3) == 3
    assert loss.get_activation(torch.zeros(2, 3)).shape == (2, 4)
    assert loss.get_activation(torch.zeros(2, 4)).shape == (2, 4)


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "FocalLoss", "BCELoss", "DiceLoss"])
def test_no_samples_with_their_weights_cost_nothing(name):
    from mmengine.registry import MODELS

    logits = torch.zeros(0, 4, requires_grad=True)
    loss = MODELS.build(dict(type=f"cvplugins.{name}"))
    value = loss(logits, torch.zeros(0, dtype=torch.long), torch.zeros(0), avg_factor=1.0)
    value.backward()
    assert value == 0
    assert logits.grad.shape == (0, 4)
