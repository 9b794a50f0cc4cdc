"""Hard example mining in whole runs of mmdet and mmseg, and by upstream's own tools."""

import json
from pathlib import Path

import numpy as np
import pytest
from devkits import small_devkit
from tool_runs import start

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]


def found(work_dir):
    (path,) = work_dir.glob("*/hard_examples.json")
    return json.loads(path.read_text())


def test_detection_by_epochs(sample, tmp_path, monkeypatch, root, request):
    """Concatenated datasets, batches by aspect ratio, and the loss of each image alone."""
    from mmengine.runner import Runner

    from cvplugins.openmmlab.run.config import load_config

    monkeypatch.chdir(root)
    devkit = small_devkit(sample, tmp_path / "VOCdevkit")
    config = load_config("tests/integration/tiny.py", {"data_root": str(devkit)})
    config.train_cfg.update(max_epochs=2, val_interval=9)
    config.train_dataloader.batch_size = 2
    config.train_dataloader.dataset.times = 2
    config.train_dataloader.sampler = dict(type="cvplugins.HardExampleSampler", shuffle=True)
    mining = dict(type="cvplugins.HardExampleMiningHook", min_hardness=0, capacity=3, exact_interval=1)
    config.custom_hooks += [mining]
    config.update(work_dir=str(tmp_path / "work"), experiment_name=request.node.name)
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    runner = Runner.from_cfg(config)
    runner.train()
    result = found(tmp_path / "work")
    assert result["seen"] == 6  # images, though each is twice in the dataset
    assert len({each["img_path"] for each in result["images"]}) == 3
    assert all(Path(each["img_path"]).is_file() for each in result["images"])
    assert runner.iter == 12


def test_upstream_mmseg_by_iterations(root, tmp_path):
    import mmseg
    from PIL import Image

    generator = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for index in range(4):
            pixels = generator.integers(0, 3, (64, 64, 3) if folder == "images" else (64, 64), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{index}.png")
    path = tmp_path / "config.py"
    path.write_text(
        f"""
default_scope = 'mmseg'
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)),
    backbone=dict(type='ResNetV1c', depth=18, base_channels=8),
    decode_head=dict(type='FCNHead', in_channels=64, channels=8, num_classes=3),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
train_dataloader = dict(
    batch_size=2, num_workers=1, persistent_workers=True,
    sampler=dict(type='cvplugins.InfiniteHardExampleSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset', data_root={str(tmp_path)!r}, img_suffix='.png', pipeline=pipeline,
        data_prefix=dict(img_path='images', seg_map_path='labels'), metainfo=dict(classes=('a', 'b', 'c'))))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=9)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
custom_hooks = [dict(type='cvplugins.HardExampleMiningHook', interval=3, capacity=2, min_hardness=0)]
default_hooks = dict(logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='CheckpointHook', interval=9))
"""
    )
    tool = Path(mmseg.__file__).parent / ".mim" / "tools" / "train.py"
    done = start(root, tool, path, "--work-dir", tmp_path / "work")
    assert done.returncode == 0, done.stderr
    assert "hard examples: 2 of 4 images seen" in done.stdout + done.stderr
    assert found(tmp_path / "work")["iteration"] == 9


def test_losses_of_images_alone_leave_the_training_as_it_was(sample, tmp_path, monkeypatch, root, request):
    import torch
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    from cvplugins.openmmlab.run.config import load_config

    class Losses(Hook):
        def __init__(self):
            self.values = []

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            self.values.append(outputs["loss"].item())

    monkeypatch.chdir(root)
    devkit = small_devkit(sample, tmp_path / "VOCdevkit")
    trained = []
    for exact in (0, 1):
        config = load_config("tests/integration/tiny.py", {"data_root": str(devkit)})
        config.train_cfg.update(max_epochs=1, val_interval=9)
        config.train_dataloader.update(batch_size=2, sampler=dict(type="cvplugins.HardExampleSampler", shuffle=True))
        config.custom_hooks += [dict(type="cvplugins.HardExampleMiningHook", exact_interval=exact)]
        config.update(work_dir=str(tmp_path / str(exact)), experiment_name=f"{request.node.name}{exact}")
        config.val_dataloader = config.val_cfg = config.val_evaluator = None
        runner, losses = Runner.from_cfg(config), Losses()
        runner.register_hook(losses)
        runner.train()
        weights = torch.cat([value.detach().flatten().double() for value in runner.model.state_dict().values()])
        trained.append((losses.values, weights))
    assert trained[0][0] == trained[1][0]
    assert torch.equal(trained[0][1], trained[1][1])
