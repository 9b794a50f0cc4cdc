"""Runs killed around a validation: when resumed, the best checkpoint, schedules and journals of the straight run."""

import json

import pytest

pytestmark = pytest.mark.openmmlab

SCORES = [0.1, 0.4, 0.6, 0.3, 0.2, 0.5]
HOOKS = [
    dict(type="cvplugins.ValidationsHook"),
    dict(type="cvplugins.EarlyStoppingHook", monitor="bbox/score", rule="greater", patience=9, restore_best=False),
]
PLATEAU = dict(type="ReduceOnPlateauLR", monitor="bbox/score", rule="greater", patience=0, factor=0.5)


class Killed(Exception):
    """The process is gone."""


def killer(event, step):
    from mmengine.hooks import Hook

    class Kill(Hook):
        """Ends the run at an event of a step, before any other hook hears of it, or after all have."""

        priority = "HIGHEST" if event != "after_save" else "LOWEST"

        def before_val(self, runner):
            self.end(runner, "before_val")

        def after_val_epoch(self, runner, metrics=None):
            self.end(runner, "after_val_epoch" if event != "after_save" else "after_save")

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 4 * step + 1:
                self.end(runner, "next_iteration")

        def end(self, runner, now):
            if now == event and (runner.epoch == step or now == "next_iteration"):
                raise Killed

    Kill.__module__ = "cvplugins.tests"  # it adds no numbers
    return Kill()


def run(folder, name, hooks, scores=SCORES, by_epoch=True, **options):
    from mmengine.evaluator import BaseMetric, Evaluator
    from small_runner import Numbers, runner

    class Given(BaseMetric):
        default_prefix = "bbox"
        runner = None

        def process(self, data_batch, data_samples):
            self.results.append(0)

        def compute_metrics(self, results):
            return {"score": scores[self.runner.iter // 4 - 1]}

    given = Given()
    loader = dict(dataset=Numbers(2), batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False))
    checkpoint = dict(
        type="cvplugins.AtomicCheckpointHook",
        interval=1 if by_epoch else 4,
        by_epoch=by_epoch,
        save_best="bbox/score",
        rule="greater",
    )
    if not by_epoch:
        options["train_cfg"] = dict(by_epoch=False, max_iters=4 * len(scores), val_interval=4)
        options["loader"] = dict(sampler=dict(type="InfiniteSampler", shuffle=True))
    found = runner(
        folder,
        name,
        hooks=[dict(type="cvplugins.IterationSeedHook"), *HOOKS, *hooks],
        epochs=len(scores),
        val_cfg={},
        val_dataloader=dict(loader, collate_fn=dict(type="default_collate")),
        val_evaluator=Evaluator(given),
        default_hooks=dict(checkpoint=checkpoint),
        param_scheduler=[dict(PLATEAU)],
        randomness=dict(seed=0),
        **options,
    )
    given.runner = found
    return found


def outcome(folder, found):
    """What has to be the same: the best checkpoint, the rate, the journals."""
    journals = {path.name: path.read_text() for path in sorted(folder.glob("*.jsonl"))}
    best = sorted(path.name for path in folder.glob("best_*"))
    return journals, best, found.optim_wrapper.get_lr()["lr"], found.message_hub.get_info("best_score")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    found = run(folder, "straight_validations", [])
    found.train()
    result = outcome(folder, found)
    assert result[1] == ["best_bbox_score_epoch_3.pth"]  # by hand: 0.6
    assert result[2] == [0.0025]  # halved after 0.3 and after 0.2; the schedule ends before the last
    assert [json.loads(line)["metrics"]["bbox/score"] for line in result[0]["validations.jsonl"].splitlines()] == SCORES
    return result


@pytest.mark.parametrize(
    ("event", "step"),
    [
        ("before_val", 3),
        ("after_val_epoch", 3),
        ("after_save", 3),
        ("next_iteration", 3),
        ("before_val", 4),
        ("next_iteration", 4),
    ],
)
def test_killed_and_resumed_is_the_straight_run(tmp_path, request, straight, event, step):
    """Killed in the validation of the best weights, or of others; before, within or after it, or in the next epoch."""
    from cvplugins.openmmlab.run.checkpoint import find_checkpoint

    name = request.node.name
    with pytest.raises(Killed):
        run(tmp_path, f"{name}_killed", [killer(event, step)]).train()
    load = dict(load_from=str(find_checkpoint(tmp_path)), resume=True)
    assert load["load_from"].endswith(f"epoch_{step}.pth")
    again = run(tmp_path, f"{name}_again", [], **load)
    again.train()
    assert outcome(tmp_path, again) == straight


def test_killed_in_the_last_validation(tmp_path, request, straight):
    with pytest.raises(Killed):
        run(tmp_path, f"{request.node.name}_killed", [killer("before_val", 6)]).train()
    for number in range(2):  # a finished run that is resumed counts nothing twice
        load = dict(load_from=str(tmp_path / "epoch_6.pth"), resume=True)
        again = run(tmp_path, f"{request.node.name}_{number}", [], **load)
        again.train()
        assert outcome(tmp_path, again) == straight


def test_iterations(tmp_path, request):
    name = request.node.name
    found = run(tmp_path / "straight", f"{name}_straight", [], by_epoch=False)
    found.train()
    expected = outcome(tmp_path / "straight", found)
    assert expected[1] == ["best_bbox_score_iter_12.pth"]
    from mmengine.hooks import Hook

    class Kill(Hook):
        priority = "HIGHEST"

        def before_val(self, runner):
            if runner.iter == 12:
                raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "killed", f"{name}_killed", [Kill()], by_epoch=False).train()
    load = dict(load_from=str(tmp_path / "killed" / "iter_12.pth"), resume=True)
    again = run(tmp_path / "killed", f"{name}_again", [], by_epoch=False, **load)
    again.train()
    assert outcome(tmp_path / "killed", again) == expected
