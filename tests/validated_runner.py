"""The small runner with a validation after every epoch whose metrics are given, and which can be killed."""

from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from small_runner import Numbers, runner


class Killed(Exception):
    """The process is gone."""


class Given(Hook):
    """Set a metric of each validation to the value given for its epoch; kill before or after the validation."""

    priority = "HIGHEST"

    def __init__(self, metrics, kill=None):
        self.metrics = metrics
        self.kill = kill
        self.validations = 0

    def before_val(self, runner):
        if self.kill == ("before_val", runner.epoch):
            raise Killed

    def after_val_epoch(self, runner, metrics=None):
        self.validations += 1
        metrics.pop("none")
        for name, values in self.metrics.items():
            metrics[name] = values[runner.epoch - 1]

    def before_train_epoch(self, runner):
        if self.kill == ("before_train_epoch", runner.epoch):
            raise Killed


class NoMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {"none": 0.0}


def validated_runner(work_dir, name, metrics, hooks=(), kill=None, epochs=6, **options):
    """Return a Runner of 4 iterations an epoch; ``metrics`` holds a value for each epoch under each name."""
    loader = dict(dataset=Numbers(2), batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False))
    options.setdefault("default_hooks", dict(checkpoint=dict(type="CheckpointHook", interval=1)))
    options.setdefault("randomness", dict(seed=0))
    return runner(
        work_dir,
        name,
        hooks=[Given(metrics, kill), *hooks],
        epochs=epochs,
        val_cfg=options.pop("val_cfg", {}),
        val_dataloader=dict(loader, collate_fn=dict(type="default_collate")),
        val_evaluator=Evaluator(NoMetric()),
        **options,
    )


def hook_of(runner, name):
    return next(hook for hook in runner.hooks if type(hook).__name__ == name)
