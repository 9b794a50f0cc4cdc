"""Hooks under mmengine's Runner with a small model."""

from itertools import pairwise

import pytest
import torch

pytestmark = pytest.mark.openmmlab


@pytest.fixture
def start(tmp_path, request):
    from small_runner import runner

    def _start(**options):
        return runner(tmp_path, f"{request.node.name}_{len(list(tmp_path.iterdir()))}", **options)

    return _start


HEALTH = dict(type="cvplugins.GradientHealthHook", interval=1, depth=1)


def test_gradient_health_sees_what_the_step_uses(start):
    """The oracle is the change of the weights: SGD moves them by lr times the gradient."""
    from mmengine.optim import OptimWrapper
    from small_runner import SmallModel

    model = SmallModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    weights = [flat(model)]
    optimizer.register_step_post_hook(lambda *_: weights.append(flat(model)))
    run = start(hooks=[HEALTH], model=model, optim_wrapper=OptimWrapper(optimizer), epochs=1)
    run.train()
    moved = [(after - before).norm() / 0.01 for before, after in pairwise(weights)]
    assert len(moved) == 4
    norms = torch.tensor(run.message_hub.get_scalar("train/gradient/norm").data[0])
    torch.testing.assert_close(norms, torch.stack(moved).double(), rtol=1e-3, atol=0)


def flat(model):
    return torch.cat([value.detach().flatten() for value in model.parameters()])


def test_gradient_health_stops_before_the_weights_are_spoilt(start):
    from small_runner import SmallModel

    run = start(hooks=[HEALTH], model=SmallModel(poison=2))
    with pytest.raises(FloatingPointError, match=r"iteration 2: 4 gradients are not finite: first.weight, first.bias"):
        run.train()
    assert all(value.isfinite().all() for value in run.model.parameters())


def test_gradient_health_can_go_on(start):
    from small_runner import SmallModel

    run = start(hooks=[dict(HEALTH, stop_on_nonfinite=False)], model=SmallModel(poison=2), epochs=1)
    run.train()
    assert run.iter == 4


def test_gradient_health_state_is_in_the_checkpoint(start, tmp_path):
    from small_runner import SmallModel

    run = start(hooks=[dict(HEALTH, stop_on_nonfinite=False)], model=SmallModel(poison=0), epochs=1)
    run.train()
    again = start(hooks=[HEALTH], epochs=1, load_from=str(tmp_path / "epoch_1.pth"), resume=True)
    again.load_or_resume()
    health = next(hook for hook in again.hooks if type(hook).__name__ == "GradientHealthHook")
    assert health.monitor.health.first_nonfinite["first.weight"] == 0


def test_gradient_health_observes_when_steps_are_rarer_than_iterations(start):
    """With two iterations a step, and an interval of two, no step falls on an even iteration."""
    wrapper = dict(optimizer=dict(type="SGD", lr=0.01), accumulative_counts=2)
    run = start(hooks=[dict(HEALTH, interval=2)], optim_wrapper=wrapper, epochs=2)
    run.train()
    assert len(run.message_hub.get_scalar("train/gradient/norm").data[0]) == 4


def test_gradient_health_leaves_scaled_and_skipped_steps_of_amp_right(start):
    """GradScaler hands its scale to fused optimizers, which unscale, or skip, within their step."""
    from cvplugins.monitors import Step

    run = start(hooks=[HEALTH], epochs=1)
    run.train()
    hook = next(hook for hook in run.hooks if type(hook).__name__ == "GradientHealthHook")
    optimizer = run.optim_wrapper.optimizer
    for parameter in run.model.parameters():
        parameter.grad = torch.full_like(parameter, 64.0)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(64.0), torch.tensor(0.0)
    hook.monitor.before_step(hook.run, Step(optimizer))
    count = sum(parameter.numel() for parameter in run.model.parameters())
    assert run.message_hub.get_scalar("train/gradient/norm").current() == pytest.approx(count**0.5)
    run.model.first.weight.grad[:] = torch.inf
    optimizer.found_inf = torch.tensor(1.0)
    hook.monitor.before_step(hook.run, Step(optimizer))  # a skipped step: nothing is wrong


def test_training_plan_counts_what_is_accumulated(start, tmp_path):
    wrapper = dict(optimizer=dict(type="SGD", lr=0.01), accumulative_counts=4)
    plan = dict(type="cvplugins.TrainingPlanHook")
    start(hooks=[plan], optim_wrapper=wrapper, auto_scale_lr=dict(base_batch_size=8)).train()
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert "batch 2 (1 processes), 4 of them accumulated a step" in log
    assert "the learning rate is meant" not in log


def test_training_plan_counts_repeats_repeats_and_warns_of_the_learning_rate(start, tmp_path):
    from small_runner import Numbers

    class Repeated(Numbers):  # as mmengine's RepeatDataset
        times = 3
        dataset = Numbers()

    run = start(
        hooks=[dict(type="cvplugins.TrainingPlanHook")],
        dataset=Repeated(24),
        auto_scale_lr=dict(base_batch_size=16),
    )
    run.train()
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert "training plan: 8 images, 3 times an epoch, 2 epochs = 6.0 effective epochs; batch 2 (1 processes)" in log
    assert "the learning rate is meant for a batch of 16, but this run's is 2; add --auto-scale-lr" in log


def test_result_files_lie_beside_the_log(start):
    from mmengine.registry import METRICS

    from cvplugins.openmmlab.hooks.result_files import ResultFilesHook

    unset, own = (
        METRICS.build(dict(type="cvplugins.VOCDetectionMetric", out_dir=out_dir)) for out_dir in (None, "own")
    )
    run = start(epochs=1)

    class Evaluator:
        metrics = (unset, own)

    ResultFilesHook._tell(Evaluator, run.log_dir)
    assert unset.out_dir == run.log_dir
    assert own.out_dir == "own"
