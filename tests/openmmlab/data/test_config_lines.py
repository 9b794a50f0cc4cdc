"""Config lines of `cvplugins data stats`, read and built by mmdet and mmseg. Oracles: their own classes."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import ClassBalancedDataset
from mmengine.registry import init_default_scope

from cvplugins.cli import main

pytestmark = pytest.mark.openmmlab


def config_lines(capsys, tmp_path, *arguments):
    """Return the lines, and the suggestions that they are made of."""
    numbers = tmp_path / "stats.json"
    assert main(["data", "stats", *map(str, arguments), "--json", str(numbers)]) == 0
    printed = capsys.readouterr().out.split("\n\n")[-1]
    return printed, json.loads(numbers.read_text())["suggestions"]


def load(tmp_path, base, lines):
    path = tmp_path / "config.py"
    path.write_text(f"_base_ = __import__('cvplugins').config_path('{base}')\n{lines}\n")
    return Config.fromfile(path)


def test_mmdet_builds_model_anchors_and_dataset(sample, capsys, tmp_path, monkeypatch, root):
    from mmdet.registry import DATASETS, MODELS

    lines, found = config_lines(
        capsys, tmp_path, sample, "--config-lines", "mmdet", "--weights", "effective", "--scale", "200", "200"
    )
    cfg = load(tmp_path, "voc_faster_rcnn_sample", lines)
    init_default_scope("mmdet")
    model = MODELS.build(cfg.model)
    weights = model.roi_head.bbox_head.loss_cls.class_weight
    assert weights == pytest.approx([*found["weights"]["effective"], 1], rel=1e-3)
    assert len(weights) == model.roi_head.bbox_head.num_classes + 1
    # The anchors of every level, at one centre, fit the boxes as well as the lines say.
    anchors = np.concatenate([each.numpy() for each in model.rpn_head.prior_generator.base_anchors])
    sizes = anchors[:, 2:] - anchors[:, :2]
    assert len(sizes) == 15
    boxes = _boxes(sample)
    inside = np.minimum(boxes[:, None], sizes).prod(axis=2)
    iou = inside / (boxes.prod(axis=1)[:, None] + sizes.prod(axis=1) - inside)
    assert iou.max(axis=1).mean() == pytest.approx(found["anchors"]["mean_iou"], abs=1e-3)
    monkeypatch.chdir(root)
    inner = cfg.train_dataloader.dataset.dataset.datasets[0]
    inner.update(data_root=f"{sample}/", filter_cfg=None, pipeline=[])
    built = DATASETS.build(dict(**cfg.class_balanced, dataset=inner))
    assert isinstance(built, ClassBalancedDataset)
    assert len(built) > len(built.dataset)


def _boxes(sample):
    """Return width and height of all training boxes as the sample's model sees them, 200 pixels long."""
    from xml.etree import ElementTree

    found = []
    for year in ("VOC2007", "VOC2012"):
        for name in (sample / year / "ImageSets" / "Main" / "trainval.txt").read_text().split():
            tree = ElementTree.parse(sample / year / "Annotations" / f"{name}.xml")
            longest = max(int(tree.find("size").findtext(side)) for side in ("width", "height"))
            for each in tree.iter("bndbox"):
                xmin, ymin, xmax, ymax = (float(each.findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax"))
                found.append(np.array([xmax - xmin + 1, ymax - ymin + 1]) * 200 / longest)
    return np.array(found)


def test_the_length_of_an_epoch_is_mmengines(sample, capsys, tmp_path):
    from mmdet.registry import DATASETS

    _, found = config_lines(capsys, tmp_path, sample / "VOC2012", "--config-lines", "mmdet")
    init_default_scope("mmdet")
    voc = dict(
        type="VOCDataset",
        data_root=f"{sample}/",
        ann_file="VOC2012/ImageSets/Main/trainval.txt",
        data_prefix=dict(sub_data_root="VOC2012/"),
        pipeline=[],
    )
    built = DATASETS.build(dict(type="ClassBalancedDataset", oversample_thr=found["repeat_threshold"], dataset=voc))
    assert len(built) == found["images_an_epoch"]["rounded_up"]


def test_mmseg_builds_losses_and_mask2former_takes_the_weights(scenes, capsys, tmp_path):
    from mmseg.registry import MODELS

    lines, found = config_lines(capsys, tmp_path, scenes, "--config-lines", "mmseg", "--weights", "median")
    lines += "\nmodel = dict(decode_head=dict(loss_cls=dict(class_weight=query_weight)))"
    cfg = load(tmp_path, "ade20k_mask2former_sample", lines)
    assert cfg.pixel_loss.class_weight == pytest.approx(found["weights"]["median"], rel=1e-3)
    assert len(cfg.model.decode_head.loss_cls.class_weight) == cfg.model.decode_head.num_classes + 1
    init_default_scope("mmseg")
    loss = MODELS.build(cfg.pixel_loss)
    head = dict(type="FCNHead", in_channels=4, channels=4, num_classes=150, num_convs=1, loss_decode=cfg.pixel_loss)
    assert len(MODELS.build(head).loss_decode.class_weight) == len(loss.class_weight) == 150
    from cvplugins.openmmlab.data.segmentation_checks import _check_model

    _check_model(cfg.model, 150, "ADE20KDataset")  # the check before training takes the length
