"""Test batches of images of several sizes: refused for mmseg, which dies at them, and warned of for mmdet."""

import pytest
from devkits import small_devkit
from PIL import Image
from scenes import first_image, label_map, small_scenes

from cvplugins.errors import UserError

pytestmark = pytest.mark.openmmlab


def turned(image):
    """Turn an image by a right angle, so that its size is another one, and its label map with it."""
    for path in (image, label_map(image)):
        if path.exists():
            with Image.open(path) as opened:
                opened.transpose(Image.Transpose.ROTATE_90).save(path)


def runner(config, folder, tmp_path, **options):
    from cvplugins.openmmlab.run.building import build_runner
    from cvplugins.openmmlab.run.config import load_config

    cfg = load_config(config, {"data_root": str(folder), **options})
    cfg.work_dir = str(tmp_path / "work")
    cfg.experiment_name = tmp_path.name  # keeps the global instances of mmengine apart
    return build_runner(cfg, "val_loop")


def test_mmseg(tmp_path, scenes, root, monkeypatch):
    """Oracle: mmseg's preprocessor, which refuses the batch that the loader makes."""
    from cvplugins.openmmlab.data.batch_sizes import check_batch_sizes

    monkeypatch.chdir(root)
    folder = small_scenes(scenes, tmp_path / "ADEChallengeData2016", (("training", 1), ("validation", 3)))
    turned(first_image(folder, "validation"))
    run = runner("ade20k_mask2former_sample", folder, tmp_path, **{"val_dataloader.batch_size": 3})
    with pytest.raises(UserError, match=r"val_dataloader\.batch_size is 3, .* set val_dataloader\.batch_size=1"):
        check_batch_sizes(run, "val_loop")
    with pytest.raises(AssertionError, match="image size in a batch should be the same"):
        run.model.data_preprocessor(next(iter(run.val_dataloader)), False)
    # A pipeline that makes all of one size is fine, whatever the files are.
    resize = dict(type="Resize", scale=(64, 48), keep_ratio=False)
    options = {"val_dataloader.batch_size": 3, "val_dataloader.dataset.pipeline.1": resize}
    (tmp_path / "again").mkdir()
    run = runner("ade20k_mask2former_sample", folder, tmp_path / "again", **options)
    check_batch_sizes(run, "val_loop")
    assert len(run.model.data_preprocessor(next(iter(run.val_dataloader)), False)["inputs"]) == 3


def test_mmdet(tmp_path, sample, root, monkeypatch, caplog):
    """Oracle: mmdet's preprocessor, which pads the batch."""
    from cvplugins.openmmlab.data.batch_sizes import check_batch_sizes

    monkeypatch.chdir(root)
    folder = small_devkit(sample, tmp_path / "VOCdevkit")
    options = {"val_dataloader.batch_size": 3, "val_dataloader.dataset.pipeline.1.keep_ratio": False}
    with caplog.at_level("WARNING", logger="cvplugins"):
        check_batch_sizes(runner("voc_faster_rcnn_sample", folder, tmp_path, **options), "val_loop")
        assert not caplog.records
        (tmp_path / "again").mkdir()
        options.pop("val_dataloader.dataset.pipeline.1.keep_ratio")
        run = runner("voc_faster_rcnn_sample", folder, tmp_path / "again", **options)
        check_batch_sizes(run, "val_loop")
    assert "val_dataloader.batch_size is 3" in caplog.text
    assert "scores depend on the batch size" in caplog.text
    batch = run.model.data_preprocessor(next(iter(run.val_dataloader)), False)
    shapes = {sample.img_shape for sample in batch["data_samples"]}
    assert len(shapes) > 1
    assert all(shape <= tuple(batch["inputs"].shape[-2:]) for shape in shapes)
