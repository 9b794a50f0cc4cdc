"""Numbers that hooks and schedules monitor: undefined ones are no value yet, names that never come are refused."""

import json

import pytest

pytestmark = pytest.mark.openmmlab

STOP = dict(type="cvplugins.EarlyStoppingHook", monitor="bbox/precision", patience=5, restore_best=False)
SWITCH = dict(
    type="cvplugins.OptimizerSwitchHook",
    optimizer=dict(type="SGD", lr=0.001),
    plateau=dict(monitor="bbox/precision", patience=5),
)
UNDEFINED = dict(type="cvplugins.UndefinedNumbersHook")


def evaluator(values):
    """An evaluator of a metric whose precision is undefined where ``values`` has None."""
    from mmengine.evaluator import Evaluator

    from cvplugins.openmmlab.metrics.base import PluginMetric

    class Sometimes(PluginMetric):
        default_prefix = "bbox"

        def names(self):
            return ["AP50", "precision"]

        def process(self, data_batch, data_samples):
            self.results.append(0)

        def compute_metrics(self, results):
            value = next(iterator)
            return {"AP50": 0.1} if value is None else {"AP50": 0.1, "precision": value}

    iterator = iter(values)
    return Evaluator(Sometimes())


def validated(work_dir, name, values, hooks=(), checkpoint="CheckpointHook", save_best="bbox/precision", **options):
    from small_runner import Numbers, runner

    loader = dict(dataset=Numbers(2), batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False))
    hook = dict(type=checkpoint, interval=1, save_best=save_best, rule="greater")
    return runner(
        work_dir,
        name,
        hooks=hooks,
        epochs=len(values),
        val_cfg={},
        val_dataloader=dict(loader, collate_fn=dict(type="default_collate")),
        val_evaluator=evaluator(values),
        default_hooks=dict(checkpoint=hook),
        randomness=dict(seed=0),
        **options,
    )


@pytest.mark.parametrize("checkpoint", ["CheckpointHook", "cvplugins.AtomicCheckpointHook"])
def test_undefined_is_no_value_yet(tmp_path, request, checkpoint):
    """Oracle: by hand. The third validation has the first value and the fourth the best; nothing counts before."""
    schedule = dict(type="ReduceOnPlateauLR", monitor="bbox/precision", rule="greater", patience=0, factor=0.5)
    hooks = [STOP, SWITCH, UNDEFINED]
    values = [None, None, 0.2, 0.4, None, 0.3, 0.35]
    run = validated(tmp_path, request.node.name, values, hooks, checkpoint, param_scheduler=[schedule])
    run.train()
    assert [path.name for path in tmp_path.glob("best_*")] == ["best_bbox_precision_epoch_4.pth"]
    assert run.message_hub.get_info("best_score") == 0.4
    records = [json.loads(line) for line in (tmp_path / "early_stopping.jsonl").read_text().splitlines()]
    assert [record["value"] for record in records] == values
    assert [record.get("waited") for record in records] == [None, None, 0, 0, None, 1, 2]
    assert len((tmp_path / "optimizer_switch.jsonl").read_text().splitlines()) == 7
    assert run.optim_wrapper.get_lr()["lr"] == [0.005]  # halved after the sixth
    assert "no value yet: bbox/precision is undefined" in next(tmp_path.glob("*/*.log")).read_text()


def test_the_checkpoint_hook_needs_no_other_hook(tmp_path, request):
    run = validated(tmp_path, request.node.name, [None, 0.5], checkpoint="cvplugins.AtomicCheckpointHook")
    run.train()
    assert [path.name for path in tmp_path.glob("best_*")] == ["best_bbox_precision_epoch_2.pth"]


@pytest.mark.parametrize(
    ("options", "place"),
    [
        (
            dict(hooks=[dict(STOP, monitor="bbox/precison", rule="greater")]),
            "EarlyStoppingHook: monitor is 'bbox/precison'",
        ),
        (
            dict(hooks=[dict(SWITCH, plateau=dict(monitor="bbox/AP5", patience=1))]),
            "OptimizerSwitchHook: plateau.monitor is 'bbox/AP5'",
        ),
        (
            dict(hooks=[dict(type="cvplugins.GeneralizationHook", val_metric="bbox/AP")]),
            "GeneralizationHook: val_loss is 'val/loss'",
        ),
        (dict(save_best="bbox/AP75"), "CheckpointHook: save_best is 'bbox/AP75'"),
        (dict(save_best=["bbox/AP50", "bbox/AR"]), "CheckpointHook: save_best is 'bbox/AR'"),
        (dict(hooks=[dict(type="EarlyStoppingHook", monitor="coco/bbox_mAP")]), "monitor is 'coco/bbox_mAP'"),
        (
            dict(param_scheduler=[dict(type="ReduceOnPlateauLR", monitor="loss")]),
            "ReduceOnPlateauLR: monitor is 'loss'",
        ),
    ],
)
def test_names_that_never_come(tmp_path, request, options, place):
    from cvplugins.errors import UserError
    from cvplugins.openmmlab.run.metric_names import check_monitors

    run = validated(tmp_path, request.node.name, [None], **options)
    with pytest.raises(UserError) as caught:
        check_monitors(run)
    message = str(caught.value)
    assert place in message
    assert "no validation of this config gives" in message
    assert "There are bbox/AP50, bbox/precision" in message


def test_names_that_may_come(tmp_path, request):
    from cvplugins.openmmlab.run.metric_names import check_monitors

    hooks = [dict(type="cvplugins.ValidationLoss"), dict(type="cvplugins.GeneralizationHook", val_metric="bbox/AP50")]
    check_monitors(validated(tmp_path, request.node.name, [None], hooks, save_best="auto"))


def test_a_hook_refuses_before_training_with_any_runner(tmp_path, request):
    from cvplugins.errors import UserError

    run = validated(tmp_path, request.node.name, [0.5], [dict(STOP, monitor="bbox/precison", rule="greater")])
    with pytest.raises(UserError, match="did you mean bbox/precision"):
        run.train()
    assert run.iter == 0


def test_what_the_usual_metrics_of_mmdet_and_mmseg_give():
    """Oracle: the keys of the results that VOCMetric and IoUMetric compute."""
    import torch
    from mmdet.evaluation import VOCMetric
    from mmseg.evaluation import IoUMetric

    from cvplugins.openmmlab.run.metric_names import _of_metric

    voc = VOCMetric(iou_thrs=[0.5, 0.75])
    voc.dataset_meta = {"classes": ("cat", "dog"), "dataset_type": "VOC2012"}
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    truth = dict(bboxes=boxes, labels=torch.tensor([0]))
    none = dict(bboxes=boxes[:0], labels=torch.tensor([], dtype=torch.long))
    found = dict(bboxes=boxes, labels=torch.tensor([0]), scores=torch.tensor([0.9]))
    voc.process({}, [dict(gt_instances=truth, ignored_instances=none, pred_instances=found)])
    assert set(voc.evaluate(1)) == set(_of_metric(voc).names)
    seg = IoUMetric(iou_metrics=["mIoU", "mFscore"])
    seg.dataset_meta = {"classes": ("cat", "dog")}
    label = torch.tensor([[0, 1], [1, 1]])
    seg.process({}, [dict(pred_sem_seg=dict(data=label), gt_sem_seg=dict(data=label))])
    assert set(seg.evaluate(1)) == set(_of_metric(seg).names)
