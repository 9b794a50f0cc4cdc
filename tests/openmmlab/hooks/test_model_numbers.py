"""ModelNumbersHook: heads of mmdet that count in attributes, runs that are resumed, and ranks."""

import os

import pytest
import torch
from helpers import run_ranks

pytestmark = pytest.mark.openmmlab

HOOK = dict(type="cvplugins.ModelNumbersHook")
SEEDED = dict(type="cvplugins.IterationSeedHook")


def running_mean_model():
    from small_runner import SmallModel

    class RunningMean(SmallModel):
        """Divides its loss by a running mean, as RetinaNet does."""

        normalizer = 100.0

        def forward(self, inputs, target, mode="tensor"):
            found = super().forward(inputs, target, mode)
            if mode == "loss":
                self.normalizer = 0.9 * self.normalizer + 0.1 * float(target.sum() + 1)
                found["loss"] = found["loss"] / self.normalizer
            return found

    return RunningMean()


def trained(work_dir, name, hooks=(SEEDED, HOOK), **options):
    from small_runner import runner

    found = runner(work_dir, name, model=running_mean_model(), hooks=hooks, randomness=dict(seed=0), **options)
    found.train()
    return found


@pytest.mark.parametrize("plan", ["epochs", "iterations"])
def test_a_resumed_run_repeats_the_straight_one(tmp_path, request, plan):
    """Oracle: the run that nobody stopped, to the last bit."""
    name = request.node.name
    options, checkpoint = {}, "epoch_1.pth"
    if plan == "iterations":
        options = dict(
            train_cfg=dict(by_epoch=False, max_iters=8),
            loader=dict(sampler=dict(type="InfiniteSampler", shuffle=True)),
            default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=3, by_epoch=False)),
        )
        checkpoint = "iter_3.pth"
    straight = trained(tmp_path / "straight", f"{name}_straight", **options)
    load = dict(load_from=str(tmp_path / "straight" / checkpoint), resume=True)
    resumed = trained(tmp_path / "resumed", f"{name}_resumed", **options, **load)
    assert resumed.model.normalizer == straight.model.normalizer != 100.0
    torch.testing.assert_close(dict(resumed.model.state_dict()), dict(straight.model.state_dict()), rtol=0, atol=0)
    without = trained(tmp_path / "without", f"{name}_without", hooks=[SEEDED], **options, **load)
    assert without.model.normalizer != straight.model.normalizer


def test_a_checkpoint_between_two_steps_of_accumulated_gradients(tmp_path, request):
    """Steps after the third and the sixth iteration, a checkpoint after the fourth; oracle: the straight run."""
    options = dict(
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1), accumulative_counts=3),
        train_cfg=dict(by_epoch=False, max_iters=6),
        loader=dict(sampler=dict(type="InfiniteSampler", shuffle=True)),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=2, by_epoch=False)),
    )
    name = request.node.name
    straight = trained(tmp_path / "straight", f"{name}_straight", **options)
    for first in (2, 4):
        load = dict(load_from=str(tmp_path / "straight" / f"iter_{first}.pth"), resume=True)
        resumed = trained(tmp_path / f"resumed{first}", f"{name}_{first}", **options, **load)
        torch.testing.assert_close(dict(resumed.model.state_dict()), dict(straight.model.state_dict()), rtol=0, atol=0)
    assert "cvplugins_accumulated_gradients" not in torch.load(tmp_path / "straight" / "iter_6.pth", weights_only=False)


def dynamic_rcnn():
    """A small Dynamic R-CNN that moves its thresholds after every second iteration."""
    from small_models import small_faster_rcnn

    dynamic = dict(iou_topk=2, beta_topk=2, update_iter_interval=2, initial_iou=0.1, initial_beta=1.0)
    options = {
        "model.roi_head.type": "DynamicRoIHead",
        "model.roi_head.bbox_head.loss_bbox": dict(_delete_=True, type="SmoothL1Loss", beta=1.0),
        "model.train_cfg.rcnn.dynamic_rcnn": dynamic,
    }
    return small_faster_rcnn(None, None, options)


def losses(model, seed):
    from small_models import batch

    torch.manual_seed(seed)
    data = model.data_preprocessor(batch(), training=True)
    found = model(**data, mode="loss")
    return {name: float(sum(value) if isinstance(value, list) else value) for name, value in found.items()}


def test_thresholds_and_histories_of_dynamic_rcnn():
    """Oracle: the model that goes on. Its assigner is no module, and its histories are lists."""
    from cvplugins.model_numbers import ModelNumbers

    straight, resumed = dynamic_rcnn(), dynamic_rcnn()
    resumed.load_state_dict(straight.state_dict())
    numbers, again = ModelNumbers(straight), ModelNumbers(resumed)
    for seed in range(3):
        losses(straight, seed)
    changed = numbers.changed()
    assert len(changed["roi_head"]["iou_history"]) == 1
    assert set(changed["roi_head.bbox_assigner"]) == {"pos_iou_thr", "neg_iou_thr", "min_pos_iou"}
    assert "beta" in changed["roi_head.bbox_head.loss_bbox"]
    again.restore(changed)
    assert losses(resumed, 3) == losses(straight, 3)
    assert resumed.roi_head.bbox_assigner.pos_iou_thr == straight.roi_head.bbox_assigner.pos_iou_thr


def test_counts_of_ddod_and_dropblock():
    """Oracle: the numbers themselves, after a forward pass of DropBlock and a count as DDOD makes it."""
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    from cvplugins.model_numbers import ModelNumbers

    init_default_scope("mmdet")
    block = MODELS.build(dict(type="DropBlock", drop_prob=0.1, block_size=3, warmup_iters=10))
    numbers = ModelNumbers(block)
    block(torch.rand(1, 2, 8, 8))
    assert numbers.changed() == {"": {"iter_cnt": 1}}
    head = MODELS.build(
        dict(
            type="DDODHead",
            num_classes=2,
            in_channels=32,
            feat_channels=32,
            stacked_convs=1,
            anchor_generator=dict(
                type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8]
            ),
            train_cfg=dict(assigner=dict(type="ATSSAssigner", topk=9), reg_assigner=dict(type="ATSSAssigner", topk=9)),
        )
    )
    numbers = ModelNumbers(head)
    head.calc_reweight_factor([torch.tensor([0, 1, 2])])
    assert numbers.changed() == {"": {"cls_num_pos_samples_per_level": [2]}}


def resumed_on_ranks(folder):
    """Each rank sees other images, and so has another mean; returns those of the straight and of the resumed run."""
    import mmengine.runner.runner as module

    module.init_dist = lambda *_, **__: None  # a process group is there already
    os.environ["LOCAL_RANK"] = str(torch.distributed.get_rank())
    options = dict(
        launcher="pytorch",
        cfg=dict(model_wrapper_cfg=dict(type="cvplugins.SyncBatchNormDataParallel")),
    )
    straight = trained(folder, "straight", **options)
    again = trained(folder, "resumed", load_from=f"{folder}/epoch_1.pth", resume=True, **options)
    return straight.model.module.normalizer, again.model.module.normalizer


@pytest.mark.distributed
def test_each_rank_gets_its_own_back(tmp_path):
    first, second = run_ranks(resumed_on_ranks, 2, str(tmp_path), timeout=90)
    assert first[0] == first[1]
    assert second[0] == second[1]
    assert first[0] != second[0]
