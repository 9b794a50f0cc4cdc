"""Upstream's own train scripts take a config that names our plugins."""

from pathlib import Path

import pytest
from devkits import small_devkit
from tool_runs import TINY, run

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]


def test_upstream_mmdet_takes_a_config_that_names_our_plugins(root, sample, tmp_path):
    import mmdet

    devkit = small_devkit(sample, tmp_path / "VOCdevkit")
    tool = Path(mmdet.__file__).parent / ".mim" / "tools" / "train.py"
    path = tmp_path / "config.py"
    sets = [f"{name}.dataset.data_root={devkit}" for name in ("val_dataloader", "test_dataloader")]
    sets += [f"train_dataloader.dataset.dataset.datasets.{index}.data_root={devkit}" for index in (0, 1)]
    path.write_text(
        f"_base_ = {str(root / TINY)!r}\n"
        "model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(_delete_=True, type='cvplugins.FocalLoss'))))\n"
    )
    sets += ["train_cfg.max_epochs=1", "train_cfg.val_interval=1"]
    output = run(root, tool, path, "--work-dir", tmp_path / "work", "--cfg-options", *sets)
    assert "bbox/AP50_11point: " in output
    assert "training plan" in output
    assert "normalisation policy:\nlayers" in output


def test_upstream_mmseg_takes_a_config_that_names_our_plugins(root, tmp_path):
    import mmseg
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for name, folder, channels in (("a", "images", 3), ("a", "labels", 1)):
        (tmp_path / folder).mkdir()
        pixels = generator.integers(0, 3, (64, 64, channels), dtype=np.uint8).squeeze()
        Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
    path = tmp_path / "config.py"
    path.write_text(
        f"""
default_scope = 'mmseg'
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)),
    backbone=dict(type='ResNetV1c', depth=18, base_channels=8, norm_cfg=dict(type='cvplugins.SyncBatchNorm')),
    decode_head=dict(
        type='FCNHead', in_channels=64, channels=8, num_classes=3, loss_decode=dict(type='cvplugins.FocalLoss')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
train_dataloader = dict(
    batch_size=2, sampler=dict(type='InfiniteSampler'),
    dataset=dict(
        type='BaseSegDataset', data_root={str(tmp_path)!r}, img_suffix='.png', pipeline=pipeline,
        data_prefix=dict(img_path='images', seg_map_path='labels'), metainfo=dict(classes=('a', 'b', 'c'))))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
custom_hooks = [dict(type='cvplugins.GradientHealthHook'), dict(type='cvplugins.ThroughputHook', interval=1)]
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
"""
    )
    tool = Path(mmseg.__file__).parent / ".mim" / "tools" / "train.py"
    output = run(root, tool, path, "--work-dir", tmp_path / "work")
    assert "decode.loss_focal: " in output
    assert "gradient/norm: " in output
    assert "throughput: " in output
