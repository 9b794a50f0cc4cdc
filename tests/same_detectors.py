"""The same Faster R-CNN in both frameworks, with random weights that find something."""

from __future__ import annotations

import re
from pathlib import Path

import torch

# Widths of a small model, in mmdet's config and in Detectron2's.
SMALL = (
    dict(
        backbone=dict(base_channels=8),
        neck=dict(in_channels=[32, 64, 128, 256], out_channels=16),
        rpn_head=dict(in_channels=16, feat_channels=16),
        roi_head=dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16, fc_out_channels=32)),
    ),
    {
        "RESNETS": dict(RES2_OUT_CHANNELS=32, STEM_OUT_CHANNELS=8, WIDTH_PER_GROUP=8),
        "FPN": dict(OUT_CHANNELS=16),
        "ROI_BOX_HEAD": dict(FC_DIM=32),
    },
)


def mmdet_model(root: Path, small: bool):
    """The model of the VOC config, without pretrained weights, always with the same random ones."""
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.registry import MODELS

    register_all_modules(init_default_scope=True)
    cfg = Config.fromfile(root / "configs" / "voc_faster_rcnn.py")
    cfg.model.backbone.init_cfg = None
    if small:
        cfg.merge_from_dict({"model": SMALL[0]})
    torch.manual_seed(0)
    return MODELS.build(cfg.model).eval()


def detectron2_model(root: Path, small: bool, **model):
    """The model with the settings that the documentation gives."""
    from detectron2.config import CfgNode, get_cfg
    from detectron2.modeling import build_model

    cfg = get_cfg()
    page = (root / "docs" / "weights.md").read_text(encoding="utf-8")
    cfg.merge_from_other_cfg(CfgNode.load_cfg(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1]))
    for changes in ({"DEVICE": "cpu"}, SMALL[1] if small else {}, model):
        cfg.merge_from_other_cfg(CfgNode({"MODEL": changes}))
    return build_model(cfg).eval()


@torch.no_grad()
def make_plausible(model, images) -> None:
    """Set random weights of an mmdet model so that activations stay in range and there are detections.

    Batch norms get the statistics of the images and random factors; the heads' outputs spread over what a trained one's
    do.
    """
    generator = torch.Generator().manual_seed(0)
    norms = [each for each in model.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.3, 0.7, generator=generator)
        norm.bias.normal_(0, 0.2, generator=generator)
        norm.momentum = 1.0
        norm.train()
    features = model.extract_feat(model.data_preprocessor({"inputs": images})["inputs"])
    for norm in norms:
        norm.momentum = 0.1
        norm.eval()
    rpn, head = model.rpn_head, model.roi_head.bbox_head
    for conv in model.neck.fpn_convs:
        conv.conv.weight /= torch.cat([each.flatten() for each in features]).std()
    # Objectness stays below 15: from 17 on mmdet's scores, which are sigmoids in float32, are all equal.
    for layer, size in ((rpn.rpn_conv, 0.7), (rpn.rpn_cls, 1.0), (rpn.rpn_reg, 0.2)):
        layer.weight.normal_(0, size * (2 / layer.weight[0].numel()) ** 0.5, generator=generator)
    for layer, size in ((head.shared_fcs[0], 1.0), (head.shared_fcs[1], 1.0), (head.fc_cls, 2.0), (head.fc_reg, 1.0)):
        layer.weight.normal_(0, size * (2 / layer.in_features) ** 0.5, generator=generator)
        layer.bias.normal_(0, 0.1, generator=generator)


def sample_images(sample: Path, count: int) -> list[torch.Tensor]:
    """Images of the sample as RGB, ``(3, H, W)``."""
    import numpy as np
    from PIL import Image

    paths = sorted((sample / "VOC2007" / "JPEGImages").glob("*.jpg"))[:count]
    return [torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) for path in paths]


@torch.no_grad()
def found_by_mmdet(model, images):
    """Boxes, scores and labels of each image."""
    from mmdet.structures import DetDataSample

    results = []
    for image in images:
        size = tuple(image.shape[1:])
        meta = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
        found = model.test_step({"inputs": [image.flip(0)], "data_samples": [DetDataSample(metainfo=meta)]})
        instances = found[0].pred_instances
        # Detectron2 drops boxes that lie wholly outside the image; mmdet keeps what is left of them, without width.
        instances = instances[(instances.bboxes[:, 2:] > instances.bboxes[:, :2]).all(dim=1)]
        results.append((instances.bboxes, instances.scores, instances.labels))
    return results


@torch.no_grad()
def found_by_detectron2(model, images):
    """Boxes, scores and labels of each image."""
    results = []
    for image in images:
        found = model([{"image": image, "height": image.shape[1], "width": image.shape[2]}])[0]["instances"]
        results.append((found.pred_boxes.tensor, found.scores, found.pred_classes))
    return results


def largest_difference(one, other) -> float:
    """Of boxes and scores, each detection against the nearest one of its label; infinite for another count."""
    worst = 0.0
    for (boxes, scores, labels), (other_boxes, other_scores, other_labels) in zip(one, other, strict=True):
        if labels.sort().values.tolist() != other_labels.sort().values.tolist():
            return float("inf")
        rows = torch.cat([boxes, scores[:, None], 1e6 * labels[:, None]], dim=1)
        other_rows = torch.cat([other_boxes, other_scores[:, None], 1e6 * other_labels[:, None]], dim=1)
        distances = torch.cdist(rows.double(), other_rows.double(), p=float("inf"))
        for axis in (0, 1):
            worst = max(worst, distances.min(dim=axis).values.max().item())
    return worst
