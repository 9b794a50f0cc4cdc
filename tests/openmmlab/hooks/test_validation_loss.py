"""The validation loss of real small models, against their own ``loss`` on data that is scaled by hand."""

import random

import numpy as np
import pytest
import torch
from helpers import run_ranks
from small_models import small_faster_rcnn, small_mask2former
from torch import nn

pytestmark = pytest.mark.openmmlab

HEIGHT, WIDTH = 96, 128
BOXES = [[20.0, 20.0, 120.0, 120.0], [60.0, 10.0, 180.0, 160.0]]


def zoo_model(path, **head):
    """A one-stage detector of the zoo on ResNet-18 with random weights."""
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    config = Config.fromstring(f"_base_ = 'mmdet::{path}'", ".py").model
    config.backbone.update(depth=18, style="pytorch", init_cfg=None)
    config.neck.update(in_channels=[64, 128, 256, 512], out_channels=32)
    config.bbox_head.update(in_channels=32, feat_channels=64, stacked_convs=1, **head)
    torch.manual_seed(0)
    return MODELS.build(config).eval()


def retinanet():
    return zoo_model("retinanet/retinanet_r50_fpn_1x_coco.py")


def fcos():
    return zoo_model("fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py")


def faster_rcnn():
    torch.manual_seed(0)
    return small_faster_rcnn(None, None).eval()


def mask2former():
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    return MODELS.build(small_mask2former()).eval()


def segmentor(norm="BN"):
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope("mmseg")
    torch.manual_seed(0)
    head = dict(in_channels=64, channels=8, num_classes=3, num_convs=1, norm_cfg=dict(type=norm))
    return MODELS.build(
        dict(
            type="EncoderDecoder",
            data_preprocessor=dict(type="SegDataPreProcessor", size=(64, 64), test_cfg=dict(size_divisor=32)),
            backbone=dict(type="ResNetV1c", depth=18, base_channels=8, norm_cfg=dict(type=norm)),
            decode_head=dict(type="FCNHead", dropout_ratio=0.5, **head),
            auxiliary_head=dict(type="FCNHead", in_index=2, **{**head, "in_channels": 32}),
            train_cfg=dict(),
            test_cfg=dict(mode="whole"),
        )
    ).eval()


def sample_of(index, count=1, scale=2):
    """An image and its data sample: annotations in an original image that is ``scale`` times as large."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    boxes = torch.tensor([BOXES[index % 2]])[:count] / 2 * scale
    height, width = HEIGHT * scale, WIDTH * scale
    masks = np.zeros((count, height, width), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    sample = DetDataSample(
        metainfo=dict(
            img_path=f"{index}.jpg",
            ori_shape=(height, width),
            img_shape=(HEIGHT, WIDTH),
            scale_factor=(1 / scale, 1 / scale),
        )
    )
    labels = torch.tensor([3])[:count]
    sample.gt_instances = InstanceData(bboxes=boxes, labels=labels, masks=BitmapMasks(masks, height, width))
    sample.ignored_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=labels[:0], masks=BitmapMasks(masks[:0], height, width)
    )
    image = torch.randint(0, 255, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
    return image, sample


def segmentation_sample(index, size=(96, 160), image_size=(48, 80)):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(index)
    image = torch.randint(0, 255, (3, *image_size), dtype=torch.uint8, generator=generator)
    label = torch.randint(0, 3, (1, *size), generator=generator)
    scale = (image_size[1] / size[1], image_size[0] / size[0])
    meta = dict(img_path=f"{index}.png", ori_shape=size, img_shape=image_size, scale_factor=scale)
    return image, SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=label))


def collate(pairs):
    images, samples = zip(*pairs, strict=True)
    return dict(inputs=list(images), data_samples=list(samples))


def measured(model, batches, **options):
    """The metrics that the hook's metric gives for batches of (image, sample)."""
    from mmengine.logging import MMLogger

    from cvplugins.openmmlab.hooks.validation_loss import ImageLosses

    MMLogger.get_instance("test")
    metric = ImageLosses(model, **options)
    for batch in batches:
        metric.process(collate(batch), [])
    return metric.evaluate(sum(map(len, batches)))


def by_hand(model, image, sample, training=False):
    """The model's own losses of an image whose annotations need no scaling; with the flags of training if asked."""
    if training:
        model.train()
        for module in model.modules():
            if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.Dropout, nn.MultiheadAttention)):
                module.eval()
    data = model.data_preprocessor(collate([(image, sample)]), False)
    if "masks" in data["data_samples"][0].gt_instances:
        model.data_preprocessor.pad_gt_masks(data["data_samples"])
    torch.manual_seed(0)
    with torch.no_grad():
        losses = model.loss(data["inputs"], data["data_samples"])
    total, parts = model.parse_losses(losses)
    model.eval()
    return {name: float(value) for name, value in {**parts, "loss": total}.items()}


@pytest.mark.parametrize(
    ("build", "training"), [(faster_rcnn, False), (retinanet, False), (fcos, True), (mask2former, True)]
)
def test_equals_the_loss_on_images_of_the_right_scale(build, training):
    """FCOS says why heads have to think that they train: in evaluation mode its boxes are of another unit."""
    model = build()
    found = measured(model, [[sample_of(0)], [sample_of(1)]])
    expected = [by_hand(model, *sample_of(index, scale=1), training=training) for index in (0, 1)]
    assert set(found) == {f"val/{name}" for name in expected[0]}
    assert len(found) > 2
    for name in expected[0]:
        assert found[f"val/{name}"] == pytest.approx(sum(each[name] for each in expected) / 2, rel=1e-5), name
    if build is fcos:
        wrong = by_hand(model, *sample_of(0, scale=1))
        assert wrong["loss_bbox"] != pytest.approx(expected[0]["loss_bbox"], rel=0.01)


def test_unscaled_boxes_would_give_another_loss():
    """The reason for scaling; and ``resized`` is what leaves the boxes alone."""
    model = retinanet()
    right = measured(model, [[sample_of(0)]])["val/loss_bbox"]
    wrong = measured(model, [[sample_of(0)]], resized=True)["val/loss_bbox"]
    assert wrong != pytest.approx(right, rel=0.01)
    assert measured(model, [[sample_of(0, scale=1)]], resized=True)["val/loss_bbox"] == pytest.approx(right, rel=1e-5)


def test_segmentation_equals_cross_entropy_on_the_resized_label():
    """By hand: every second pixel of the label, against logits at the padded input's size, padding left out."""
    model = segmentor()
    image, sample = segmentation_sample(0)
    data = model.data_preprocessor(collate([(image, sample)]), False)
    assert data["inputs"].shape[-2:] == (64, 96)  # padded from (48, 80)
    with torch.no_grad():
        features = model.extract_feat(data["inputs"])
        expected = 0.0
        for head in (model.decode_head, model.auxiliary_head):
            logits = nn.functional.interpolate(head(features), size=(64, 96), mode="bilinear", align_corners=False)
            pixels = nn.functional.cross_entropy(
                logits[:, :, :48, :80], sample.gt_sem_seg.data[:, ::2, ::2], reduction="sum"
            )
            expected += float(pixels) / (64 * 96)  # mmseg counts ignored pixels in its mean
    found = measured(model, [[segmentation_sample(0)]])
    assert found["val/loss"] == pytest.approx(expected, rel=1e-5)
    assert found["val/decode.loss_ce"] + found["val/aux.loss_ce"] == pytest.approx(found["val/loss"], rel=1e-6)
    assert 0 < found["val/decode.acc_seg"] < 100


def test_images_of_several_sizes_and_any_batch_size():
    """Labels of several sizes cannot be stacked; an image's loss does not depend on its neighbours."""
    model = segmentor()
    pairs = [segmentation_sample(index, size=(96 + 2 * index, 160)) for index in range(3)]
    assert measured(model, [pairs]) == measured(model, [[pair] for pair in reversed(pairs)])


def flat_state(model):
    values = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach().clone() for name, value in values}


def generators():
    return random.getstate()[1], np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_leaves_everything_as_it_was_and_is_the_same_again(monkeypatch):
    """Faster R-CNN samples anchors and boxes at random."""
    model = faster_rcnn()
    model.register_buffer("calls", torch.zeros(()))
    loss = model.roi_head.loss
    seen = {}

    def counting(*args):
        seen.update((name, module.training) for name, module in model.named_modules())
        model.calls += 1
        return loss(*args)

    monkeypatch.setattr(model.roi_head, "loss", counting)
    image, sample = sample_of(0)
    boxes = sample.gt_instances.bboxes.clone()
    found = []
    for seed in (11, 12):  # states that the loss does not begin with
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        weights, randomness = flat_state(model), generators()
        found.append(measured(model, [[(image, sample)]]))
        assert generators() == randomness
        assert all(torch.equal(weights[name], value) for name, value in flat_state(model).items())
    assert found[0] == found[1]
    assert not any(module.training for module in model.modules())
    assert all(value.grad is None for value in model.parameters())
    assert torch.equal(sample.gt_instances.bboxes, boxes)
    assert seen[""]
    assert seen["roi_head.bbox_head"]
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert layers
    assert not any(seen[name] for name in layers)


@pytest.mark.parametrize("build", [faster_rcnn, retinanet, fcos, mask2former])
def test_images_without_objects(build):
    model = build()
    found = measured(model, [[sample_of(0), sample_of(1, count=0)]])
    assert np.isfinite(list(found.values())).all()
    alone = measured(model, [[sample_of(0)]])
    assert measured(model, [[sample_of(0), sample_of(1, count=0)]], skip_empty=True) == alone
    assert np.isnan(measured(model, [[sample_of(1, count=0)]], skip_empty=True)["val/loss"])


def test_a_loss_that_fails_without_objects_says_what_to_do(monkeypatch):
    model = faster_rcnn()
    monkeypatch.setattr(model.roi_head, "loss", lambda *_: 1 / 0)
    with pytest.raises(
        ValueError, match=r"fails for 1.jpg, .* \(ZeroDivisionError: .*; if that is why, set skip_empty"
    ):
        measured(model, [[sample_of(1, count=0)]])
    with pytest.raises(ZeroDivisionError):
        measured(model, [[sample_of(1)]])


def test_images_without_labelled_pixels():
    model = segmentor()
    ignored = segmentation_sample(1)
    ignored[1].gt_sem_seg.data[:] = 255
    found = measured(model, [[segmentation_sample(0), ignored]])
    alone = measured(model, [[segmentation_sample(0)]])
    assert found["val/loss"] == pytest.approx(alone["val/loss"] / 2)
    assert measured(model, [[segmentation_sample(0), ignored]], skip_empty=True) == alone


def test_a_loss_that_is_not_finite_is_named_with_its_image(monkeypatch, caplog):
    from mmengine.logging import MMLogger

    model = segmentor()
    loss = model.decode_head.loss

    def poisoned(inputs, samples, config):
        losses = loss(inputs, samples, config)
        return {**losses, "loss_ce": losses["loss_ce"] * (torch.inf if samples[0].img_path == "1.png" else 1)}

    monkeypatch.setattr(model.decode_head, "loss", poisoned)
    logger = MMLogger.get_instance("test")
    # The current one would be the newest, which depends on the tests before.
    monkeypatch.setattr(MMLogger, "get_current_instance", lambda *_: logger)
    logger.addHandler(caplog.handler)
    try:
        found = measured(model, [[segmentation_sample(0), segmentation_sample(1)]])
    finally:
        logger.removeHandler(caplog.handler)
    assert np.isnan(found["val/loss"])
    assert np.isfinite(found["val/aux.loss_ce"])
    assert "validation loss: decode.loss_ce is not finite in 1 images: 1.png" in caplog.text
    assert "aux" not in caplog.text


def test_what_the_pipeline_does_not_load_is_named():
    from cvplugins.openmmlab.hooks.validation_loss import ImageLosses

    model = mask2former()
    image, sample = sample_of(0)
    del sample.gt_instances.masks
    with pytest.raises(ValueError, match=r"loss of 0.jpg needs 'masks', .* put a LoadAnnotations"):
        measured(model, [[(image, sample)]])
    image, sample = segmentation_sample(0)
    del sample.gt_sem_seg
    for skip_empty in (False, True):
        with pytest.raises(ValueError, match=r"loss of 0.png needs 'gt_sem_seg'"):
            measured(segmentor(), [[(image, sample)]], skip_empty=skip_empty)
    with pytest.raises(ValueError, match="needs batches of mmdet or mmseg"):
        ImageLosses(model).process(dict(image=1), [])


def test_an_unknown_kind_of_ground_truth_is_refused():
    from mmengine.registry import HOOKS

    with pytest.raises(ValueError, match="ground_truth='both'; use one of auto, original, input"):
        HOOKS.build(dict(type="cvplugins.ValidationLoss", ground_truth="both"))


def on_a_rank(count):
    """FCOS averages its normaliser over the ranks; 3 images on 2 ranks make one wait for ever, were it asked."""
    from torch.nn.parallel import DistributedDataParallel

    from cvplugins.distributed import rank, world_size
    from cvplugins.openmmlab.hooks.validation_loss import ImageLosses

    found = []
    for total in (count, -(-count // world_size()) * world_size()):  # as they are, and padded by a sampler
        metric = ImageLosses(DistributedDataParallel(fcos()))
        for index in range(total)[rank() :: world_size()]:
            metric.process(collate([sample_of(index % count)]), [])
        found.append(metric.evaluate(count))
    return found


@pytest.mark.distributed
def test_uneven_and_padded_ranks_give_what_one_process_gives():
    expected = measured(fcos(), [[sample_of(index)] for index in range(3)])
    assert run_ranks(on_a_rank, 2, 3) == [[expected, expected]] * 2
