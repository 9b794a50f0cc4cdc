"""Each config against the zoo's that it inherits from: every difference is listed here with its reason."""

import pytest

pytestmark = pytest.mark.openmmlab

SEEDED = "IterationSeedHook seeds workers that start anew in every epoch: a resumed run repeats the straight one"
METRIC = "every number from one pass instead of one"
WHOLE = "checkpoints are whole or absent; the best by 11-point AP50 is kept"

DIFFERENCES = {
    "voc_faster_rcnn": (
        "mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py",
        {
            "train_dataloader.dataset.dataset.datasets.0.filter_cfg.bbox_min_size": "small boxes count",
            "train_dataloader.dataset.dataset.datasets.1.filter_cfg.bbox_min_size": "small boxes count",
            "train_dataloader.persistent_workers": SEEDED,
            "val_evaluator": METRIC,
            "test_evaluator": METRIC,
            "default_hooks.checkpoint": WHOLE,
            "custom_hooks": "repeatable resuming, training plan, gradient health, result files, normalisation policy",
        },
    ),
    "voc_faster_rcnn_r50_c4": (
        "mmdet::pascal_voc/faster-rcnn_r50-caffe-c4_ms-18k_voc0712.py",
        {
            "train_dataloader.dataset.ignore_keys": "joins 07 and 12",
            "val_evaluator": METRIC,
            "test_evaluator": METRIC,
            "default_hooks.checkpoint": WHOLE,
            "custom_hooks": "repeatable resuming, training plan, gradient health, result files, normalisation policy",
        },
    ),
    "voc_faster_rcnn_sample": (
        "configs/voc_faster_rcnn.py",
        {
            "data_root": "the sample",
            "train_dataloader.dataset.dataset.datasets.0.data_root": "the sample",
            "train_dataloader.dataset.dataset.datasets.1.data_root": "the sample",
            "val_dataloader.dataset.data_root": "the sample",
            "test_dataloader.dataset.data_root": "the sample",
            "scale": "the sample's image size",
            "train_dataloader.dataset.dataset.datasets.0.pipeline.2.scale": "the sample's image size",
            "train_dataloader.dataset.dataset.datasets.1.pipeline.2.scale": "the sample's image size",
            "val_dataloader.dataset.pipeline.1.scale": "the sample's image size",
            "test_dataloader.dataset.pipeline.1.scale": "the sample's image size",
            "train_dataloader.batch_size": "one CPU process instead of 8 GPUs x 2",
            "val_dataloader.batch_size": "small images",
            "test_dataloader.batch_size": "small images",
            "train_dataloader.dataset.times": "an epoch is one pass",
            "max_epochs": "minutes",
            "train_cfg.max_epochs": "minutes",
            "train_cfg.val_interval": "minutes",
            "model.backbone.depth": "ResNet-18",
            "model.backbone.base_channels": "half the width",
            "model.backbone.frozen_stages": "random weights: everything trains",
            "model.backbone.norm_eval": "random weights: everything trains",
            "model.backbone.init_cfg": "random weights",
            "model.neck.in_channels": "ResNet-18 of half the width",
            "model.neck.out_channels": "a quarter",
            "model.rpn_head.in_channels": "a quarter",
            "model.rpn_head.feat_channels": "a quarter",
            "model.roi_head.bbox_roi_extractor.out_channels": "a quarter",
            "model.roi_head.bbox_head.in_channels": "a quarter",
            "model.roi_head.bbox_head.fc_out_channels": "a quarter",
            "model.train_cfg.rpn_proposal.nms_pre": "fewer proposals",
            "model.train_cfg.rpn_proposal.max_per_img": "fewer proposals",
            "model.train_cfg.rcnn.sampler.num": "fewer proposals",
            "model.test_cfg.rpn.nms_pre": "fewer proposals",
            "model.test_cfg.rpn.max_per_img": "fewer proposals",
            "optim_wrapper.optimizer": "Adam learns from scratch in hundreds of iterations",
            "param_scheduler": "warm-up from scratch, drop near the end",
            "auto_scale_lr.base_batch_size": "the batch that the learning rate is for",
            "default_hooks.logger.interval": "few iterations",
            "default_hooks.checkpoint.max_keep_ckpts": "disk",
            "randomness": "a repeatable score",
        },
    ),
}


def flatten(node, prefix=""):
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, (list, tuple)) and any(isinstance(child, dict) for child in node):
        items = enumerate(node)
    else:
        return {prefix: node}
    flat = {}
    for key, child in items:
        if key != "_scope_":  # mmengine's mark of a config that comes from another package
            flat.update(flatten(child, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def load(name, tmp_path):
    from mmengine.config import Config

    if "::" in name:
        path = tmp_path / "zoo.py"
        path.write_text(f"_base_ = {name!r}\n")
        name = str(path)
    return flatten(Config.fromfile(name).to_dict())


@pytest.mark.parametrize("name", DIFFERENCES)
def test_every_difference_to_the_base_is_meant(name, tmp_path):
    base_name, meant = DIFFERENCES[name]
    ours, base = load(f"configs/{name}.py", tmp_path), load(base_name, tmp_path)
    different = {key for key in ours.keys() | base.keys() if ours.get(key, ...) != base.get(key, ...)}
    unmeant = [key for key in different if not any(key == known or key.startswith(f"{known}.") for known in meant)]
    assert not unmeant
    unused = [known for known in meant if not any(key == known or key.startswith(f"{known}.") for key in different)]
    assert not unused


@pytest.mark.parametrize("name", ["voc_faster_rcnn", "voc_faster_rcnn_r50_c4"])
def test_small_boxes_count_and_07_and_12_join(name, sample):
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope

    from cvplugins.openmmlab.config import load_config

    init_default_scope("mmdet")
    config = load_config(f"configs/{name}.py", {"data_root": str(sample)})
    dataset = config.train_dataloader.dataset
    dataset = DATASETS.build(dataset.dataset if dataset.type == "RepeatDataset" else dataset)
    years = {dataset.get_data_info(index)["img_path"].split("VOC20")[1][:2] for index in range(len(dataset))}
    assert years == {"07", "12"}
    instances = [one for index in range(len(dataset)) for one in dataset.get_data_info(index)["instances"]]
    small = [one for one in instances if min(one["bbox"][2] - one["bbox"][0], one["bbox"][3] - one["bbox"][1]) < 32]
    assert any(one["ignore_flag"] == 0 for one in small)


def test_upstream_still_has_the_defects_that_the_configs_mend(tmp_path):
    """When this fails, a config can be simplified."""
    fpn = load("mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py", tmp_path)
    assert fpn["train_dataloader.dataset.dataset.datasets.0.filter_cfg.bbox_min_size"] == 32
    c4 = load("mmdet::pascal_voc/faster-rcnn_r50-caffe-c4_ms-18k_voc0712.py", tmp_path)
    assert "train_dataloader.dataset.ignore_keys" not in c4
