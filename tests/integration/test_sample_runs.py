"""The tools on the embedded sample and on real photographs: what is learnt, and what an untrained model scores."""

import json
from pathlib import Path

import pytest
from tool_runs import TINY, logged_losses, printed_metrics, run, summary

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]


def test_the_sample_is_learnt(root, tmp_path):
    """Three of the sample config's 16 epochs, which reach 0.195; all of them, 4 minutes, reach 0.727 (README)."""
    options = ["--work-dir", tmp_path, "--cfg-options", "train_cfg.max_epochs=3", "train_cfg.val_interval=3"]
    output = run(root, "tools/train.py", "configs/voc_faster_rcnn_sample.py", *options)
    assert float(printed_metrics(output)["bbox/AP50_11point"]) > 0.1


def test_an_untrained_model_scores_nothing_on_the_sample(root, tmp_path):
    import torch
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    from cvplugins.openmmlab.run.config import load_config

    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(load_config(root / "configs/voc_faster_rcnn_sample.py").model)
    model.init_weights()
    torch.save(model.state_dict(), tmp_path / "untrained.pth")
    options = ["--work-dir", tmp_path, "--out", tmp_path / "metrics.json"]
    run(root, "tools/test.py", "configs/voc_faster_rcnn_sample.py", tmp_path / "untrained.pth", *options)
    assert json.loads((tmp_path / "metrics.json").read_text())["bbox/AP50_11point"] < 0.02


def test_real_photographs_train_and_report_like_the_sample(root, real_voc, tmp_path):
    options = ["--work-dir", tmp_path, "--cfg-options", f"data_root={real_voc / 'VOCdevkit'}", "train_cfg.max_epochs=1"]
    output = run(
        root,
        "tools/train.py",
        TINY,
        *options,
        "train_cfg.val_interval=1",
        "train_dataloader.batch_size=4",
    )
    assert "training plan: 60 images" in output
    written = json.loads(Path(summary(output)["results"]).read_text())
    assert written["num_images"] == 20
    assert sum(each["num_truths"] for each in written["per_class"].values()) > 20
    assert len(logged_losses(tmp_path)) == 15
