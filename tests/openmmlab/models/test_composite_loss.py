"""CompositeLoss in every place of OpenMMLab that takes a loss: it trains, and each part stands in the log."""

import copy
import json
import pickle

import pytest
import torch
from small_models import batch, small_faster_rcnn, small_mask2former

pytestmark = pytest.mark.openmmlab


def composite(losses, **options):
    return dict(type="cvplugins.CompositeLoss", losses=losses, **options)


class Samples(torch.utils.data.Dataset):
    """The two images of ``batch``, one by one."""

    def __init__(self, masks=False):
        self.samples = batch(masks)

    def __len__(self):
        return len(self.samples["inputs"])

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.samples.items()}


def train(model, samples, tmp_path, name, watched, iterations=2, lr=1e-3):
    """Train under a Runner; return the lines of the log, and check that the watched parameters moved."""
    from small_runner import runner

    before = {key: model.get_parameter(key).clone() for key in watched}
    run = runner(
        tmp_path,
        name,
        model=model,
        dataset=samples,
        loader=dict(collate_fn=dict(type="pseudo_collate")),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=lr)),
        default_hooks=dict(logger=dict(type="LoggerHook", interval=1), checkpoint=None),
        default_scope="mmdet",
    )
    run.train()
    for key, value in before.items():
        assert not torch.equal(run.model.get_parameter(key), value), key
    (path,) = tmp_path.glob("**/vis_data/scalars.json")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_in_rpn_and_box_head(tmp_path):
    """Parts of the sum over five levels of the RPN, and of the box head, beside the heads' own entries."""
    rpn = composite(
        dict(focal=dict(type="cvplugins.FocalLoss", use_sigmoid=True), bce=dict(type="cvplugins.BCELoss")),
        weights=dict(focal="learned", bce=[(0, 0.0), (1, 1.0)]),
        use_sigmoid=True,
        loss_name="loss_rpn_cls",
        loss_weight=2.0,
    )
    roi = composite(
        dict(ce=dict(type="CrossEntropyLoss"), focal=dict(type="cvplugins.FocalLoss")), loss_name="loss_cls"
    )
    boxes = composite(
        dict(giou=dict(type="cvplugins.BoxIoULoss"), l1=dict(type="cvplugins.L1Loss", loss_weight=0.01)),
        loss_name="loss_bbox",
    )
    options = {f"model.{head}.loss_bbox": {"_delete_": True, **boxes} for head in ("roi_head.bbox_head",)}
    options |= {"model.roi_head.bbox_head.reg_decoded_bbox": True}
    model = small_faster_rcnn(rpn, roi, options)
    watched = [
        "rpn_head.rpn_cls.weight",
        "rpn_head.loss_cls.loss.log_variance.focal",
        "roi_head.bbox_head.fc_cls.weight",
        "roi_head.bbox_head.fc_reg.weight",
    ]
    logged = train(model, Samples(), tmp_path, "composite_rcnn", watched, lr=0.01)
    assert logged[0]["loss_rpn_cls.bce"] == 0  # the schedule begins at 0
    assert logged[1]["loss_rpn_cls.bce"] > 0
    for line in logged:
        for head, parts in {
            "loss_rpn_cls": ("focal", "bce"),
            "loss_cls": ("ce", "focal"),
            "loss_bbox": ("giou", "l1"),
        }.items():
            assert sum(line[f"{head}.{part}"] for part in parts) == pytest.approx(line[head], rel=1e-5), head


@pytest.mark.slow
def test_in_retinanet(tmp_path):
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    model = Config.fromstring("_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'", ".py").model
    model.backbone.init_cfg = None
    parts = dict(ours=dict(type="cvplugins.FocalLoss", use_sigmoid=True), theirs=dict(type="FocalLoss"))
    model.bbox_head.loss_cls = composite(parts, use_sigmoid=True, loss_name="loss_cls")
    logged = train(MODELS.build(model), Samples(), tmp_path, "composite_retina", ["bbox_head.retina_cls.weight"])
    for line in logged:
        assert line["loss_cls.ours"] + line["loss_cls.theirs"] == pytest.approx(line["loss_cls"], rel=1e-5)


@pytest.mark.slow
def test_in_mask2former(tmp_path):
    from mmdet.registry import MODELS

    class_weight = [1.0] * 80 + [0.1]
    config = small_mask2former(
        loss_cls=composite(
            dict(ce=dict(type="cvplugins.CrossEntropyLoss"), focal=dict(type="cvplugins.FocalLoss")),
            class_weight=class_weight,
            loss_name="loss_cls",
        ),
        loss_mask=composite(
            dict(
                bce=dict(type="cvplugins.BCELoss"), lovasz=dict(type="cvplugins.LovaszLoss", binary=True, over="batch")
            ),
            loss_name="loss_mask",
        ),
        loss_dice=composite(
            dict(
                dice=dict(type="cvplugins.DiceLoss", mode="binary"),
                tversky=dict(type="cvplugins.TverskyLoss", mode="binary"),
            ),
            loss_name="loss_dice",
            loss_weight=5.0,
        ),
    )
    model = MODELS.build(config)
    assert model.panoptic_head.loss_cls.loss.losses["ce"].loss.loss.class_weight == class_weight
    logged = train(model, Samples(masks=True), tmp_path, "composite_m2f", ["panoptic_head.query_feat.weight"], lr=1e-4)
    layers = ("", "d0.")
    for line in logged:
        for loss, parts in {"loss_cls": ("ce", "focal"), "loss_mask": ("bce", "lovasz")}.items():
            added = sum(line[f"{loss}.{part}"] for part in parts)
            assert added == pytest.approx(sum(line[layer + loss] for layer in layers), rel=1e-4), loss


@pytest.mark.slow
def test_in_a_decode_head_its_parts_are_entries_of_their_own():
    from mmengine.optim import OptimWrapper
    from mmengine.registry import DefaultScope
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    parts = dict(
        ce=dict(type="CrossEntropyLoss", loss_weight=2.0),
        dice=dict(type="cvplugins.DiceLoss"),
        focal=dict(type="cvplugins.FocalLoss"),
    )
    loss = composite(parts, weights=dict(dice=3.0, focal="learned"), loss_weight=0.5)
    head = dict(type="FCNHead", in_channels=4, channels=4, num_classes=3, num_convs=1, loss_decode=loss)
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = MODELS.build(
            dict(
                type="EncoderDecoder",
                backbone=dict(
                    type="UNet", base_channels=4, num_stages=2, strides=(1, 1), enc_num_convs=(1, 1),
                    dec_num_convs=(1,), downsamples=(True,), enc_dilations=(1, 1), dec_dilations=(1,),
                ),
                decode_head=head,
                data_preprocessor=dict(type="SegDataPreProcessor", size=(16, 16)),
            )
        )  # fmt: skip
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    label = torch.randint(0, 3, (1, 16, 16))
    label[:, :2] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(img_shape=(16, 16))) for _ in range(2)]
    images = [torch.randint(0, 255, (3, 16, 16), dtype=torch.uint8) for _ in range(2)]
    before = {name: value.clone() for name, value in model.named_parameters()}
    for _ in range(2):
        logged = model.train_step(dict(inputs=images, data_samples=samples), optimizer)
    for name in ("decode_head.conv_seg.weight", "decode_head.loss_decode.loss.log_variance.focal"):
        assert not torch.equal(model.get_parameter(name), before[name]), name
    entries = {name for name in logged if "loss_" in name}
    assert entries == {"decode.loss_ce", "decode.loss_dice", "decode.loss_focal"}
    logits, target = torch.randn(2, 3, 16, 16), torch.randint(0, 3, (2, 16, 16))
    criterion = model.decode_head.loss_decode
    each = [part(logits, target, weight=None, ignore_index=255) for part in criterion]
    torch.testing.assert_close(sum(each), criterion(logits, target, ignore_index=255))


def build(**options):
    from mmengine.registry import MODELS

    return MODELS.build(composite(**options))


FOCAL = dict(type="cvplugins.FocalLoss", use_sigmoid=True)


def test_outside_of_a_runner_nothing_is_logged_and_schedules_stand():
    loss = build(losses=dict(focal=FOCAL), weights=dict(focal=[(0, 0.5), (10, 1.0)]))
    logits, target = torch.randn(3, 4), torch.tensor([0, 1, 4])
    torch.testing.assert_close(loss(logits, target) * 2, build(losses=dict(focal=FOCAL))(logits, target))


def test_use_sigmoid_has_to_agree_with_the_parts():
    assert build(losses=dict(focal=FOCAL), use_sigmoid=True).custom_cls_channels
    assert build(losses=dict(focal=FOCAL)).get_cls_channels(20) == 20
    with pytest.raises(ValueError, match="CompositeLoss works with use_sigmoid=True only"):
        build(losses=dict(focal=FOCAL), use_sigmoid=False)


def test_can_be_copied_and_pickled():
    loss = build(losses=dict(focal=FOCAL), weights="learned")
    logits, target = torch.randn(3, 4), torch.tensor([0, 1, 4])
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        torch.testing.assert_close(copied(logits, target), loss(logits, target))


def test_parts_are_shown():
    assert "focal" in repr(build(losses=dict(focal=FOCAL)))


def test_weight_penalty_is_built_by_its_name():
    from mmengine.registry import MODELS

    penalty = MODELS.build(dict(type="cvplugins.WeightPenalty", l1=0.5))
    assert penalty(torch.nn.Linear(2, 1)) > 0
