"""Hooks on a real detector, named in a config, under mmdet's own train script."""

import json
from pathlib import Path

import pytest
from devkits import small_devkit
from tool_runs import start

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]

HOOKS = """
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='cvplugins.EarlyStoppingHook', monitor='bbox/AP50', patience=2),
    dict(type='cvplugins.GeneralizationHook', val_loss=None, val_metric='bbox/AP50', train_metric='acc'),
    dict(type='cvplugins.WeightPenaltyHook', l1=1.0, form='proximal', interval=5),
    dict(type='cvplugins.LayerFreezeHook', frozen=[dict(layers=['backbone'], until=3)], lr_factors={'backbone': 0.1}),
    dict(type='cvplugins.OptimizerSwitchHook', optimizer=dict(type='SGD', lr=0.01, momentum=0.9), at=8),
    dict(type='EMAHook'),
]
"""


def test_all_of_them_at_once(root, sample, tmp_path):
    import mmdet
    import torch

    devkit = small_devkit(sample, tmp_path / "VOCdevkit")
    path = tmp_path / "config.py"
    path.write_text(f"_base_ = {str(root / 'tests/integration/tiny.py')!r}\n{HOOKS}")
    sets = [f"{name}.dataset.data_root={devkit}" for name in ("val_dataloader", "test_dataloader")]
    sets += [f"train_dataloader.dataset.dataset.datasets.{index}.data_root={devkit}" for index in (0, 1)]
    tool = Path(mmdet.__file__).parent / ".mim" / "tools" / "train.py"
    command = [tool, path, "--work-dir", tmp_path / "work", "--cfg-options", *sets, "train_cfg.val_interval=1"]
    finished = start(root, *command)
    output = finished.stdout + finished.stderr
    assert finished.returncode == 0, output[-5000:]
    for text in (
        "early stopping by bbox/AP50: no progress in 2 evaluations",  # such a model stays at 0
        "the model has the weights after iteration 6 again",
        "generalization at the end: too early",
        "iteration 0: 60 parameters frozen (backbone.conv1.weight",
        "iteration 3: 60 parameters released",
        "iteration 8: SGD follows AdamW, with 20 times the learning rate",
        "of the penalised weights are 0; most in ",
        "weight_sparsity: 0.",
    ):
        assert text in output
    work_dir = tmp_path / "work"
    assert "state_dict" in torch.load(work_dir / "best_weights.pth", weights_only=True)
    lines = [json.loads(line) for line in (work_dir / "generalization.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [6, 12, 18]
    assert all(line["train_loss"] > 0 and line["train_metric"] > 0 for line in lines)
    assert (work_dir / "generalization.png").is_file()
