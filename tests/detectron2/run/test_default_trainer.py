"""All hooks at once in a DefaultTrainer with a real Faster R-CNN, and a resumed run that is the straight one."""

import json
from pathlib import Path

import pytest
import torch
from small_detectron2 import batch, small_config

pytestmark = pytest.mark.detectron2

HOOKS = [
    {"type": "ThroughputHook", "interval": 2},
    {"type": "ValidationLoss"},
    {"type": "EMAHook", "momentum": 0.1},
    {"type": "BestCheckpointHook", "monitor": "val/loss"},
    {"type": "EarlyStoppingHook", "monitor": "bbox/AP50", "restore_best": False},
    {"type": "GeneralizationHook", "train_metric": "fast_rcnn/cls_accuracy", "figure": False},
    {"type": "GradientHealthHook", "detail_interval": 0},
    {"type": "GradientClippingHook", "max_norm": 1.0, "interval": 2},
    {
        "type": "LayerFreezeHook",
        "frozen": [{"layers": ["backbone.bottom_up"], "until": 2}],
        "lr_factors": {"backbone": 0.5},
    },
    {"type": "NonFiniteGuardHook", "policy": "skip"},
    {"type": "OptimizerSwitchHook", "optimizer": {"type": "AdamW", "lr": 0.001}, "at": 3},
    {"type": "WeightPenaltyHook", "l2": 1e-4, "interval": 2},
]


def config(folder):
    cfg = small_config("fpn")
    folder.mkdir(exist_ok=True)
    cfg.OUTPUT_DIR = str(folder)
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.DATASETS.TEST, cfg.TEST.EVAL_PERIOD = ("unread",), 2
    cfg.SOLVER.update(MAX_ITER=6, CHECKPOINT_PERIOD=2, BASE_LR=0.01)
    cfg.CVPLUGINS.HOOKS = HOOKS
    cfg.CVPLUGINS.NORM.rules = [{"to": "SyncBN"}]
    return cfg


class Seeded:
    """The same two images in every iteration, and samples of the heads that depend on the iteration alone."""

    def __init__(self):
        self.start = 0

    def __iter__(self):
        iteration = self.start
        while True:
            torch.manual_seed(iteration)
            yield batch()
            iteration += 1


def run(cfg, until=None):
    """Train, or die in the iteration ``until``; return the trainer."""
    from detectron2.engine import DefaultTrainer
    from detectron2.utils.events import JSONWriter

    from cvplugins.detectron2 import ValidationLoss, apply_norm_policy, build_cvplugins_hooks, insert_hooks

    class Trainer(DefaultTrainer):
        @classmethod
        def build_model(cls, cfg):
            torch.manual_seed(0)
            model = super().build_model(cfg)
            apply_norm_policy(cfg, model)
            return model

        @classmethod
        def build_train_loader(cls, cfg):
            return Seeded()

        @classmethod
        def test(cls, cfg, model, evaluators=None):
            return {"bbox": {"AP50": model.proposal_generator.rpn_head.conv.weight.abs().mean().item()}}

        def build_hooks(self):
            hooks = build_cvplugins_hooks(self.cfg)
            for hook in hooks:
                if isinstance(hook, ValidationLoss):
                    hook._loader = [[record] for record in batch()]
            return insert_hooks(super().build_hooks(), hooks)

        def build_writers(self):
            return [JSONWriter(str(Path(self.cfg.OUTPUT_DIR, "metrics.json")))]

        def run_step(self):
            if self.iter == until:
                raise KeyboardInterrupt
            super().run_step()

    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.data_loader.start = trainer.start_iter
    try:
        trainer.train()
    except KeyboardInterrupt:
        assert trainer.iter == until
    return trainer


def test_all_hooks_together_in_a_straight_and_in_a_resumed_run(tmp_path):
    from cvplugins.detectron2 import validate_cvplugins_config

    for name in ("straight", "resumed"):
        validate_cvplugins_config(config(tmp_path / name))
    straight = run(config(tmp_path / "straight"))
    run(config(tmp_path / "resumed"), until=5)
    resumed = run(config(tmp_path / "resumed"))
    assert resumed.start_iter == 4
    for file in ("model_final.pth", "model_ema.pth", "model_best.pth"):
        first, second = (torch.load(tmp_path / name / file)["model"] for name in ("straight", "resumed"))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first), file
    for file in ("best_checkpoint.jsonl", "early_stopping.jsonl", "generalization.jsonl"):
        first, second = (
            [json.loads(line) for line in (tmp_path / name / file).read_text().splitlines()]
            for name in ("straight", "resumed")
        )
        assert [line["iteration"] for line in first] == [2, 4, 6]
        assert first == second, file
    assert type(straight.optimizer).__name__ == type(resumed.optimizer).__name__ == "AdamW"
    assert straight.storage.latest().keys() >= {"val/loss_cls", "generalization/gap", "gradient/norm", "weight_penalty"}
    assert not straight.model._forward_hooks
    assert not straight.optimizer._optimizer_step_pre_hooks
    written = [json.loads(line) for line in (tmp_path / "straight" / "metrics.json").read_text().splitlines()]
    assert {"val/loss", "throughput/images_per_second"} <= set().union(*written)
