"""SegmentationMetric as the evaluator of a real run: a tiny FCN of mmseg, two images, beside mmseg's IoUMetric."""

import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]

CLASSES = ("wall", "sky", "tree", "never")
MEASURES = ["mIoU", "mDice", "mFscore"]


@pytest.fixture
def folder(tmp_path):
    """Two images whose label maps use 0 for unlabelled pixels, as ADE20K's."""
    image = pytest.importorskip("PIL.Image")
    generator = np.random.default_rng(0)
    for place in ("images", "labels"):
        (tmp_path / place).mkdir()
    for index, size in enumerate([(64, 64), (64, 96)]):
        coarse = generator.integers(0, 4, (size[0] // 16, size[1] // 16), dtype=np.uint8)
        label = np.kron(coarse, np.ones((16, 16), np.uint8))
        pixels = 60 * label[..., None] + generator.integers(0, 40, (*size, 3), dtype=np.uint8)
        image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
        image.fromarray(label).save(tmp_path / "labels" / f"{index}.png")
    return tmp_path


def runner(folder, metric):
    from mmengine.config import Config
    from mmengine.runner import Runner

    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", reduce_zero_label=True),
        dict(type="PackSegInputs"),
    ]
    norm = dict(type="BN")
    config = dict(
        default_scope="mmseg",
        experiment_name=folder.name,
        work_dir=str(folder / "work"),
        model=dict(
            type="EncoderDecoder",
            data_preprocessor=dict(
                type="SegDataPreProcessor", mean=[127.5] * 3, std=[127.5] * 3, test_cfg=dict(size_divisor=32)
            ),
            backbone=dict(type="ResNetV1c", depth=18, base_channels=8, norm_cfg=norm),
            decode_head=dict(type="FCNHead", in_channels=64, channels=8, num_classes=len(CLASSES), norm_cfg=norm),
            train_cfg=dict(),
            test_cfg=dict(mode="whole"),
        ),
        val_dataloader=dict(
            batch_size=1,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=False),
            dataset=dict(
                type="BaseSegDataset",
                data_root=str(folder),
                img_suffix=".png",
                reduce_zero_label=True,
                pipeline=pipeline,
                data_prefix=dict(img_path="images", seg_map_path="labels"),
                metainfo=dict(classes=CLASSES),
            ),
        ),
        val_cfg=dict(),
        val_evaluator=[metric, dict(type="IoUMetric", iou_metrics=MEASURES)],
        custom_hooks=[dict(type="cvplugins.ResultFilesHook")],
        randomness=dict(seed=1),
    )
    return Runner.from_cfg(Config(config))


def test_a_run_logs_writes_and_equals_mmseg(folder):
    run = runner(folder, dict(type="cvplugins.SegmentationMetric", boundary=True))
    found = run.val()
    ours, theirs = run.val_loop.evaluator.metrics
    for name in ("aAcc", "mIoU", "mAcc", "mDice", "mPrecision", "mRecall"):
        assert 100 * found[f"sem_seg/{name}"] == pytest.approx(found[name], abs=0.0051), name  # two digits there
    assert 0 < found["sem_seg/mIoU"] < 1
    log = next(Path(run.log_dir).glob("*.log")).read_text()
    assert f"sem_seg/mIoU: {found['sem_seg/mIoU']:.4f}" in log
    table = [line.split() for line in log.splitlines() if line.split()[:1] == ["wall"]]
    assert table[0][2] == f"{100 * found['sem_seg/IoU/wall']:.2f}"
    assert {path.parent for path in ours.written.values()} == {Path(run.log_dir)}
    written = json.loads(ours.written["results"].read_text())
    assert written["num_images"] == 2
    assert written["per_class"]["never"]["labelled_pixels"] == 0
    assert {f"sem_seg/{name}": value for name, value in written["mean"].items()} == found_of(found, "sem_seg/")
    for suffix in (".png", ".svg"):
        assert ours.written["figure"].with_suffix(suffix).stat().st_size > 10_000
    assert sum(map(sum, written["confusion_matrix"])) == labelled_pixels(folder)
    assert theirs.results == []


def found_of(found, prefix):
    return {name: value for name, value in found.items() if name.startswith(prefix)}


def labelled_pixels(folder):
    image = pytest.importorskip("PIL.Image")
    return sum(int((np.asarray(image.open(path)) > 0).sum()) for path in (folder / "labels").iterdir())
