"""Each config against the zoo's that it inherits from: every difference is listed here with its reason."""

import pytest

pytestmark = pytest.mark.openmmlab

SEEDED = "IterationSeedHook seeds workers that start anew in every epoch: a resumed run repeats the straight one"
METRIC = "every number from one pass instead of one"
WHOLE = "checkpoints are whole or absent; the best by 11-point AP50 is kept"

ADE20K = {
    "data_root": "data/ADEChallengeData2016, as the archive is named",
    **{f"{loader}_dataloader.dataset.data_root": "the same" for loader in ("train", "val", "test")},
    "model.decode_head.train_cfg.assigner.type": "a cost that is not finite is named",
    "val_evaluator": METRIC,
    "test_evaluator": METRIC,
    "default_hooks.checkpoint": "checkpoints are whole or absent; two and the best by mIoU are kept",
    "custom_hooks": "repeatable resuming, training plan, gradient health, result files, normalisation policy",
}

ONE_GPU = {
    "train_dataloader.batch_size": "what the memory holds",
    "batch_size": "what the memory holds",
    "passes": "16 images a step, as in the recipe",
    "optim_wrapper.accumulative_counts": "16 images a step, as in the recipe",
    "optim_wrapper.type": "mixed precision, as in the original",
    "optim_wrapper.loss_scale": "mixed precision, as in the original",
    "param_scheduler.0.end": "mmengine counts passes",
    "train_cfg.max_iters": "mmengine counts passes",
    "train_cfg.val_interval": "mmengine counts passes",
    "default_hooks.checkpoint.interval": "mmengine counts passes",
}

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
    "ade20k_mask2former_r50": (
        "mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py",
        {
            **ADE20K,
            "model.backbone.norm_cfg.type": "one process needs no SyncBN; the layers are frozen",
            "model.backbone.norm_eval": "running statistics are frozen too, as in the original",
        },
    ),
    "ade20k_mask2former_swin_t": ("mmseg::mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py", ADE20K),
    "ade20k_mask2former_swin_l": (
        "mmseg::mask2former/mask2former_swin-l-in22k-384x384-pre_8xb2-160k_ade20k-640x640.py",
        ADE20K,
    ),
    "ade20k_mask2former_r50_dice_focal": (
        "configs/ade20k_mask2former_r50.py",
        {f"model.decode_head.loss_{part}": "ours" for part in ("cls", "mask", "dice")},
    ),
    "ade20k_mask2former_r50_8gb": ("configs/ade20k_mask2former_r50.py", ONE_GPU),
    "ade20k_mask2former_r50_16gb": ("configs/ade20k_mask2former_r50.py", ONE_GPU),
    "ade20k_mask2former_r50_24gb": (
        "configs/ade20k_mask2former_r50.py",
        {
            "train_dataloader.batch_size": "the whole batch of the recipe",
            "train_dataloader.num_workers": "16 images a step on one machine",
            "optim_wrapper.type": "mixed precision, as in the original",
            "optim_wrapper.loss_scale": "mixed precision, as in the original",
        },
    ),
    "ade20k_mask2former_sample": (
        "configs/ade20k_mask2former_r50.py",
        {
            "data_root": "the sample",
            **{f"{loader}_dataloader.dataset.data_root": "the sample" for loader in ("train", "val", "test")},
            "crop_size": "the sample's image size",
            "model.data_preprocessor.size": "the sample's image size",
            **{
                f"{place}.{step}": "the sample's image size"
                for place in ("train_pipeline", "train_dataloader.dataset.pipeline")
                for step in ("2.scales", "2.max_size", "3.crop_size")
            },
            **{
                f"{place}.1.scale": "the sample's image size"
                for place in ("test_pipeline", "val_dataloader.dataset.pipeline", "test_dataloader.dataset.pipeline")
            },
            "train_dataloader.batch_size": "one CPU process instead of 8 GPUs x 2",
            **{f"{loader}_dataloader.num_workers": "two cores" for loader in ("train", "val", "test")},
            "channels": "a quarter",
            "attention": "a quarter",
            "model.backbone.depth": "ResNet-18",
            "model.backbone.base_channels": "half the width",
            "model.backbone.norm_cfg.requires_grad": "random weights: everything trains",
            "model.backbone.norm_eval": "random weights: everything trains",
            "model.backbone.init_cfg": "random weights",
            "model.decode_head": "a quarter of the channels, fewer layers, queries and points",
            "max_iters": "minutes",
            "train_cfg.max_iters": "minutes",
            "train_cfg.val_interval": "minutes",
            "optim_wrapper.optimizer.lr": "random weights, batch 8",
            "optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult": "random weights: everything trains",
            "param_scheduler": "warm-up from scratch, the end of the shorter schedule",
            "auto_scale_lr.base_batch_size": "the batch that the learning rate is for",
            "default_hooks.logger.interval": "few iterations",
            "default_hooks.checkpoint.interval": "few iterations",
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

    from cvplugins.openmmlab.upstream import make_mmseg_configs_reachable

    make_mmseg_configs_reachable()
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

    from cvplugins.openmmlab.run.config import load_config

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


@pytest.mark.parametrize("gigabytes", [8, 16, 24])
def test_the_configs_for_one_gpu_keep_the_recipe(gigabytes):
    """16 images a step, 160k steps, validated every 5k; mmengine counts passes."""
    from cvplugins.openmmlab.run.config import load_config

    config = load_config(f"configs/ade20k_mask2former_r50_{gigabytes}gb.py")
    passes = config.optim_wrapper.get("accumulative_counts", 1)
    assert config.train_dataloader.batch_size * passes == 16
    counted = (config.train_cfg.max_iters, config.param_scheduler[0].end, config.train_cfg.val_interval)
    assert [count / passes for count in counted] == [160_000, 160_000, 5_000]
    assert config.default_hooks.checkpoint.interval == config.train_cfg.val_interval
    assert config.optim_wrapper.type == "AmpOptimWrapper"
    assert config.optim_wrapper.clip_grad.max_norm == 0.01


def test_the_other_losses_train(root):
    """Every loss of every decoder layer is ours, above 0, and reaches the masks and the classes."""
    import torch
    from mmengine.registry import MODELS, init_default_scope
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    from cvplugins.openmmlab.run.config import load_config

    model = load_config(root / "tests/integration/tiny_mask2former.py").model
    replaced = load_config("configs/ade20k_mask2former_r50_dice_focal.py").model.decode_head
    for name in ("loss_cls", "loss_mask", "loss_dice"):
        model.decode_head[name] = replaced[name]
    init_default_scope("mmseg")
    torch.manual_seed(0)
    model = MODELS.build(model)
    assert {type(getattr(model.decode_head, name)).__name__ for name in ("loss_cls", "loss_mask", "loss_dice")} == {
        "CrossEntropyLoss",
        "FocalLoss",
        "DiceLoss",
    }
    assert type(model.decode_head.loss_mask).__module__ == "cvplugins.openmmlab.models.losses"
    labels = torch.arange(64).div(16, rounding_mode="floor").expand(1, 64, 64).contiguous()
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo={"img_shape": (64, 64)})
    found = model.loss(torch.randn(2, 3, 64, 64), [sample, sample])
    assert {f"decode.{layer}loss_{part}" for layer in ("", "d0.") for part in ("cls", "mask", "dice")} == set(found)
    assert all(value.isfinite() and value > 0 for value in found.values())
    (found["decode.loss_mask"] + found["decode.loss_dice"]).backward(retain_graph=True)
    assert model.decode_head.mask_embed[-1].weight.grad.abs().sum() > 0
    assert model.decode_head.cls_embed.weight.grad is None
    found["decode.loss_cls"].backward()
    assert model.decode_head.cls_embed.weight.grad.abs().sum() > 0
