"""Real mmdet models, small and with random weights, and two images to train them on."""

import torch


def small_faster_rcnn(rpn_loss, roi_loss, more=None):
    """The sample's detector with random weights and the given classification losses."""
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    from cvplugins.openmmlab.run.config import load_config

    options = {"model.rpn_head.loss_cls": {"_delete_": True, **rpn_loss}} if rpn_loss else {}
    options |= {"model.roi_head.bbox_head.loss_cls": {"_delete_": True, **roi_loss}} if roi_loss else {}
    options |= more or {}
    init_default_scope("mmdet")
    return MODELS.build(load_config("configs/voc_faster_rcnn_sample.py", options).model)


def batch(masks=False):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    samples = []
    for box in ([10.0, 10.0, 60.0, 60.0], [30.0, 5.0, 90.0, 80.0]):
        sample = DetDataSample(
            metainfo=dict(
                batch_input_shape=(96, 128), img_shape=(96, 128), ori_shape=(96, 128), scale_factor=(1.0, 1.0)
            )
        )
        sample.gt_instances = InstanceData(bboxes=torch.tensor([box]), labels=torch.tensor([3]))
        if masks:
            mask = torch.zeros(1, 96, 128, dtype=torch.uint8)
            left, top, right, bottom = map(int, box)
            mask[:, top:bottom, left:right] = True
            sample.gt_instances.masks = BitmapMasks(mask.numpy(), 96, 128)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    images = [torch.randint(0, 255, (3, 96, 128), dtype=torch.uint8) for _ in samples]
    return dict(inputs=images, data_samples=samples)


def small_mask2former(**losses):
    """Config of a Mask2Former of one layer on ResNet-18 with the given losses."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    config = Config.fromstring("_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'", ".py")
    head = config.model.panoptic_head
    config.model.data_preprocessor.batch_augments = None
    config.model.backbone.update(depth=18, init_cfg=None)
    head.update(in_channels=[64, 128, 256, 512], num_queries=10)
    head.pixel_decoder.encoder.num_layers = 1
    head.transformer_decoder.num_layers = 1
    config.model.train_cfg.num_points = 64
    for name, loss in losses.items():
        head[name] = loss
    return config.model
