"""Whole runs that stop and keep the best weights by their validation loss."""

import json

import pytest
import torch
from devkits import small_devkit

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]

BY_LOSS = [
    dict(type="cvplugins.ValidationLoss"),
    # No loss falls by 100: stops at the second validation.
    dict(type="EarlyStoppingHook", monitor="val/loss", min_delta=100.0, patience=1),
]


@pytest.fixture
def run(tmp_path, request):
    """Train a config to its end and return the runner and the metrics of its validations."""
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    class Metrics(Hook):
        priority = "LOWEST"

        def __init__(self):
            self.found = []

        def after_val_epoch(self, runner, metrics=None):
            self.found.append(metrics)

    def _run(config, name):
        config.work_dir = str(tmp_path / name)
        config.experiment_name = f"{request.node.name}_{name}"
        if "visualizer" in config:
            config.visualizer.name = config.experiment_name  # mmengine gives out an older one of the same name
        runner = Runner.from_cfg(config)
        seen = Metrics()
        runner.register_hook(seen)
        runner.train()
        return runner, seen.found

    return _run


def detection(devkit, hooks):
    from cvplugins.openmmlab.run.config import load_config

    config = load_config("tests/integration/tiny.py", {"data_root": str(devkit)})
    config.train_cfg.update(max_epochs=3, val_interval=1)
    config.val_dataloader.dataset.pipeline[1].scale = (100, 100)  # half: annotations are loaded behind it
    config.custom_hooks += hooks
    if hooks:
        config.default_hooks.checkpoint.update(save_best="val/loss", rule="less")
    else:
        config.train_cfg.max_epochs = 2
    return config


def logged(work_dir):
    """Return the validation losses in the log that is made for machines."""
    (path,) = work_dir.glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["val/loss"] for line in lines if "val/loss" in line]


def weights(runner):
    return torch.cat([value.detach().flatten() for value in runner.model.state_dict().values() if value.dim()])


def test_detection_stops_and_keeps_the_best_and_trains_as_without(run, sample, tmp_path, monkeypatch, root):
    monkeypatch.chdir(root)
    devkit = small_devkit(sample, tmp_path / "VOCdevkit")
    runner, found = run(detection(devkit, BY_LOSS), "with")
    assert runner.epoch == 2
    parts = [name for name in found[0] if name.startswith("val/loss_") or "rpn" in name]
    assert set(parts) == {"val/loss_rpn_cls", "val/loss_rpn_bbox", "val/loss_cls", "val/loss_bbox"}
    for metrics in found:
        assert metrics["val/loss"] == pytest.approx(sum(metrics[name] for name in parts), rel=1e-6)
    assert logged(tmp_path / "with") == [metrics["val/loss"] for metrics in found]
    best = min(range(2), key=lambda index: found[index]["val/loss"])
    assert [path.name for path in (tmp_path / "with").glob("best_*")] == [f"best_val_loss_epoch_{best + 1}.pth"]
    assert runner.message_hub.get_info("best_score") == found[best]["val/loss"]
    plain, expected = run(detection(devkit, []), "without")
    assert torch.equal(weights(runner), weights(plain))
    for metrics, others in zip(found, expected, strict=True):
        assert {name: value for name, value in metrics.items() if not name.startswith("val/")} == others


def test_segmentation_in_half_precision_with_a_metric_that_sees_the_original(run, tmp_path):
    import numpy as np
    from mmengine.config import Config
    from PIL import Image

    generator = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for index in range(3):
            shape = (80, 96 + 16 * index, 3) if folder == "images" else (80, 96 + 16 * index)
            pixels = generator.integers(0, 3, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{index}.png")
    load, resize = dict(type="LoadImageFromFile"), dict(type="Resize", scale=(64, 32), keep_ratio=True)
    data = dict(
        type="BaseSegDataset",
        data_root=str(tmp_path),
        img_suffix=".png",
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        metainfo=dict(classes=("a", "b", "c")),
    )
    labels, pack = dict(type="LoadAnnotations"), dict(type="PackSegInputs")
    loader = dict(batch_size=2, sampler=dict(type="DefaultSampler", shuffle=True))
    config = Config(
        dict(
            default_scope="mmseg",
            model=dict(
                type="EncoderDecoder",
                data_preprocessor=dict(type="SegDataPreProcessor", size=(32, 64)),
                backbone=dict(type="ResNetV1c", depth=18, base_channels=8),
                decode_head=dict(type="FCNHead", in_channels=64, channels=8, num_classes=3),
                train_cfg=dict(),
                test_cfg=dict(mode="whole"),
            ),
            train_dataloader=dict(dataset=dict(data, pipeline=[load, labels, resize, pack]), **loader),
            train_cfg=dict(by_epoch=True, max_epochs=3),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01)),
            val_dataloader=dict(dataset=dict(data, pipeline=[load, resize, labels, pack]), batch_size=1),
            val_cfg=dict(fp16=True),
            val_evaluator=dict(type="cvplugins.SegmentationMetric"),
            custom_hooks=BY_LOSS,
            default_hooks=dict(checkpoint=dict(type="CheckpointHook", save_best="val/loss", rule="less")),
        )
    )
    runner, found = run(config, "work")
    assert runner.epoch == 2
    assert [0 < metrics["val/loss"] < 10 for metrics in found] == [True, True]
    assert logged(tmp_path / "work") == [metrics["val/loss"] for metrics in found]
    assert "sem_seg/mIoU" in found[0]
    assert len(list((tmp_path / "work").glob("best_val_loss_epoch_*.pth"))) == 1
