"""The guard under mmengine's Runner: poisoned batches, rollback, accumulation, AMP, resume, replay, two ranks."""

import copy
import importlib.util
import math
import os
import sys

import pytest
import torch
from helpers import needs_torch, run_ranks

from cvplugins.monitors import NonFiniteError

pytestmark = pytest.mark.openmmlab

GUARD = dict(type="cvplugins.NonFiniteGuardHook")
CONSTANT = {"optimizer": {"type": "SGD", "lr": 0.01}}


def model():
    """The small model with a batch norm, whose statistics a NaN reaches in the forward pass."""
    from small_runner import SmallModel
    from torch import nn

    class Normed(SmallModel):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(1)

        def forward(self, inputs, target, mode="tensor"):
            return super().forward(self.norm(inputs), target, mode)

    return Normed()


def poisoned(*iterations, length=16):
    """Options of a run whose data is NaN at the given iterations of an epoch of so many."""
    from small_runner import Numbers

    class Poisoned(Numbers):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            return {**item, "inputs": item["inputs"] * math.nan} if index // 2 in iterations else item

    loader = {"sampler": {"type": "DefaultSampler", "shuffle": False}}
    return {"model": model(), "dataset": Poisoned(2 * length), "loader": loader, "epochs": 1}


@pytest.fixture
def start(tmp_path, request):
    from small_runner import runner

    def _start(**options):
        return runner(tmp_path, f"{request.node.name}_{len(list(tmp_path.iterdir()))}", **options)

    return _start


def is_finite(model):
    return all(value.isfinite().all() for value in model.state_dict().values())


def guard_of(run):
    return next(hook for hook in run.hooks if type(hook).__name__ == "NonFiniteGuardHook")


def log(tmp_path):
    return "\n".join(path.read_text() for path in sorted(tmp_path.glob("*/*.log")))


def test_raises_before_weights_and_statistics_are_spoilt(start):
    run = start(**poisoned(2), hooks=[GUARD])
    with pytest.raises(NonFiniteError) as caught:
        run.train()
    for part in [
        "iteration 2",
        "loss loss",
        "statistic norm.running_mean",
        "first layer: data_preprocessor",
        "cvplugins replay",
    ]:
        assert part in str(caught.value)
    assert is_finite(run.model)


def test_gradient_of_one_layer_is_named(start):
    """A finite loss with an infinite gradient: only the backward pass goes wrong."""
    run = start(hooks=[GUARD])
    run.model.last.bias.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(
        NonFiniteError, match=r"iteration 0: not finite: gradient last.bias \(last.bias: 0 NaN and 1 inf"
    ):
        run.train()


def test_skips_and_goes_on(start, tmp_path):
    run = start(**poisoned(1, 2), hooks=[dict(GUARD, policy="skip", max_skips=2)])
    run.train()
    assert is_finite(run.model)
    assert guard_of(run).monitor.guard.skips == 2
    assert "skipped (number 2 in a row)" in log(tmp_path)
    assert not run.optim_wrapper.optimizer._optimizer_step_pre_hooks
    assert not run.model._forward_hooks


def test_skipped_iteration_does_not_move_the_weights(start):
    """Weight decay and momentum would move them even with zero gradients."""
    from mmengine.hooks import Hook

    weights = []

    class Record(Hook):
        def after_train_iter(self, runner, *args, **kwargs):
            weights.append(copy.deepcopy(runner.model.state_dict()))

    sgd = {"type": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}
    hooks = [dict(GUARD, policy="skip"), Record()]
    start(**poisoned(2, length=4), hooks=hooks, optim_wrapper={"optimizer": sgd}).train()
    torch.testing.assert_close(weights[2], weights[1], rtol=0, atol=0)
    assert not torch.equal(weights[3]["first.weight"], weights[2]["first.weight"])


def test_gives_up_after_so_many_skips(start):
    run = start(**poisoned(*range(1, 8)), hooks=[dict(GUARD, policy="skip", max_skips=3)])
    with pytest.raises(NonFiniteError, match="max_skips=3 iterations in a row were skipped before"):
        run.train()
    assert run.iter == 4
    assert is_finite(run.model)


def test_healthy_run_raises_no_alarm(start, tmp_path):
    run = start(hooks=[GUARD], train_cfg={"by_epoch": False, "max_iters": 500}, loader=INFINITE)
    run.train()
    assert run.iter == 500
    assert not (tmp_path / "replay").exists()


INFINITE = {"sampler": {"type": "InfiniteSampler", "shuffle": True}}


def test_rolls_back_with_a_smaller_learning_rate(start, tmp_path):
    """The learning rate explodes for one step, so that the weights are bad at the next iteration."""
    from mmengine.hooks import Hook

    class Explode(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter in (4, 5):
                runner.optim_wrapper.optimizer.param_groups[0]["lr"] = 0.01 if runner.iter == 5 else math.inf

    schedule = [{"type": "MultiStepLR", "milestones": [100], "by_epoch": False}]
    guard = dict(GUARD, policy="rollback", snapshot_interval=2)
    run = start(hooks=[guard, Explode()], param_scheduler=schedule, epochs=3)
    run.train()
    assert is_finite(run.model)
    assert guard_of(run).monitor.guard.rollbacks >= 1
    text = log(tmp_path)
    assert "not finite: parameter first.weight" in text
    assert "rolled back to iteration 4 (rollback 1)" in text
    assert run.optim_wrapper.optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    assert run.param_schedulers[0].base_values == pytest.approx([0.005])


@pytest.mark.parametrize("by_epoch", [False, True])
@pytest.mark.parametrize("policy", ["raise", "rollback"])
def test_weights_that_a_step_broke_are_never_saved(start, tmp_path, by_epoch, policy):
    """The step before the checkpoint breaks them, so that no forward pass could tell."""
    from mmengine.hooks import Hook

    class Explode(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            runner.optim_wrapper.optimizer.param_groups[0]["lr"] = math.inf if runner.iter == 3 else 0.01

    saving = {"checkpoint": {"type": "CheckpointHook", "by_epoch": by_epoch, "interval": 1 if by_epoch else 4}}
    length = {"by_epoch": True, "max_epochs": 2} if by_epoch else {"by_epoch": False, "max_iters": 6}
    loader = None if by_epoch else INFINITE
    run = start(hooks=[dict(GUARD, policy=policy), Explode()], default_hooks=saving, train_cfg=length, loader=loader)
    if policy == "raise":
        with pytest.raises(NonFiniteError, match=r"iteration [34]: not finite: parameter"):
            run.train()
    else:
        run.train()
    saved = [torch.load(path, weights_only=False)["state_dict"] for path in tmp_path.glob("*.pth")]
    assert len(saved) == (0 if policy == "raise" else 2)
    assert all(value.isfinite().all() for state in saved for value in state.values())


def test_accumulated_iterations_are_guarded_one_by_one(start, tmp_path):
    """The oracle: the bad iteration is the first of its window, and the one of the step is good."""
    wrapper = {**CONSTANT, "accumulative_counts": 2}
    run = start(**poisoned(2), hooks=[dict(GUARD, policy="skip")], optim_wrapper=wrapper)
    run.train()
    assert is_finite(run.model)
    assert "iteration 2: not finite: " in log(tmp_path)
    assert guard_of(run).monitor.guard.skips == 1


def with_grad_scaler(fused=False):
    """mmengine's AMP wrapper, which refuses to be built without a GPU, on torch's scaler for the CPU."""
    from mmengine.optim import AmpOptimWrapper, OptimWrapper

    class CpuAmp(AmpOptimWrapper):
        def __init__(self, optimizer):
            OptimWrapper.__init__(self, optimizer)
            self._scale_update_param, self.cast_dtype = None, torch.bfloat16
            self.loss_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

        optim_context = OptimWrapper.optim_context

    return CpuAmp


@needs_torch(2, 3, "no GradScaler for the CPU before")
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_that_the_grad_scaler_skips_are_no_fault(start, fused, accumulate):
    """A scale of 2^127 overflows every gradient until the scaler has halved it often enough."""
    from small_runner import SmallModel

    model = SmallModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=fused)
    wrapper = with_grad_scaler()(optimizer)
    wrapper._accumulative_counts = accumulate
    run = start(model=model, hooks=[GUARD], optim_wrapper=wrapper, epochs=8)
    run.train()
    assert wrapper.loss_scaler.get_scale() < 2.0**125  # it did skip
    assert guard_of(run).monitor.guard.skips == 0


@needs_torch(2, 3, "no GradScaler for the CPU before")
@pytest.mark.parametrize("fused", [False, True])
def test_a_bad_loss_is_a_fault_although_the_grad_scaler_skips_the_step(start, fused):
    options = poisoned(2)
    optimizer = torch.optim.SGD(options["model"].parameters(), lr=0.01, fused=fused)
    run = start(**options, hooks=[GUARD], optim_wrapper=with_grad_scaler()(optimizer))
    run.optim_wrapper.loss_scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    with pytest.raises(NonFiniteError, match=r"iteration 2: not finite: .*loss loss"):
        run.train()
    assert is_finite(run.model)


def test_state_is_in_the_checkpoint(start, tmp_path):
    """Killed after iteration 3, a bad one, and resumed, the guard gives up where the straight run does.

    Iterations 0, 1 and 3 of an epoch of four are bad; two in a row are skipped, so that 5, the third, is too much.
    """
    bad, guard = (0, 1, 3), dict(GUARD, policy="skip", max_skips=2)
    with pytest.raises(NonFiniteError, match="iteration 5: "):
        start(**{**poisoned(*bad, length=4), "epochs": 2}, hooks=[guard]).train()
    start(**poisoned(*bad, length=4), hooks=[guard]).train()
    options = {**poisoned(*bad, length=4), "epochs": 2}
    again = start(**options, hooks=[guard], load_from=str(tmp_path / "epoch_1.pth"), resume=True)
    with pytest.raises(NonFiniteError, match="iteration 5: "):
        again.train()


def test_a_skipped_iteration_counts_once_where_a_checkpoint_follows(start):
    run = start(**poisoned(3, 15), hooks=[dict(GUARD, policy="skip", max_skips=1)], default_hooks=SAVING)
    run.train()
    assert guard_of(run).monitor.guard.skips == 2


SAVING = {"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 4}}


def test_replay_files_are_limited(start, tmp_path):
    run = start(**poisoned(0, 2, 4, 6), hooks=[dict(GUARD, policy="skip", max_replays=2)])
    run.train()
    assert sorted(path.name for path in (tmp_path / "replay").iterdir()) == ["iter_0_rank0.pt", "iter_2_rank0.pt"]


def test_a_file_that_cannot_be_written_does_not_hide_the_fault(start, tmp_path):
    (tmp_path / "replay").write_text("a file where the folder should be")
    run = start(**poisoned(1), hooks=[GUARD])
    with pytest.raises(NonFiniteError, match=r"loss loss.*no replay file: FileExistsError"):
        run.train()


def test_replay_of_a_given_model(start, tmp_path):
    from cvplugins.cli.replay_files import replay

    run = start(**poisoned(2), hooks=[GUARD])
    with pytest.raises(NonFiniteError):
        run.train()
    path = tmp_path / "replay" / "iter_2_rank0.pt"
    reproduced, text = replay(path, model=model())
    assert reproduced
    assert "again: activation data_preprocessor" in text
    mended = model()
    mended.data_preprocessor.register_forward_pre_hook(
        lambda module, args: ({**args[0], "inputs": args[0]["inputs"].nan_to_num()}, *args[1:])
    )
    reproduced, text = replay(path, model=mended)
    assert not reproduced
    assert "everything is finite" in text


@pytest.mark.parametrize("options", [{"policy": "stop"}, {"max_skips": 0}, {"max_replays": -1}])
def test_wrong_options_are_refused_at_construction(options):
    from mmengine.registry import HOOKS

    with pytest.raises(ValueError, match=next(iter(options))):
        HOOKS.build(dict(GUARD, **options))


def _run_rank(folder, policy):
    """Two ranks under DDP; the second batch of rank 1 alone is bad."""
    from small_runner import runner

    number = torch.distributed.get_rank()
    os.environ["LOCAL_RANK"] = str(number)  # as torchrun does
    wrapper = {"type": "cvplugins.SyncBatchNormDataParallel"}
    run = runner(
        folder,
        f"two_ranks_{policy}",
        **poisoned(*([2] if number == 1 else [])),  # items 5 and 7 of all, the second batch of rank 1
        hooks=[dict(GUARD, policy=policy)],
        cfg={"model_wrapper_cfg": wrapper},
        launcher="pytorch",
        env_cfg={"dist_cfg": {"backend": "gloo"}},
    )
    try:
        run.train()
    except NonFiniteError as error:
        return str(error)
    return guard_of(run).monitor.state_dict(), [value.tolist() for value in run.model.state_dict().values()]


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("policy", ["raise", "skip", "rollback"])
def test_a_fault_on_one_of_two_ranks(tmp_path, policy):
    """SyncBatchNorm hands rank 1's NaN to rank 0 within the forward pass, and DDP does in the backward pass."""
    first, second = run_ranks(_run_rank, 2, str(tmp_path), policy)
    if policy == "raise":
        assert first.split("; first layer")[0] == second.split("; first layer")[0]
        assert "iteration 1: not finite" in first
    else:
        assert first == second
        assert first[0]["skips" if policy == "skip" else "rollbacks"] == 1
    assert (tmp_path / "replay" / "iter_1_rank1.pt").exists()


# -- a real detector --------------------------------------------------------------------------------------------------


@pytest.fixture
def tool(root, monkeypatch, capfd):
    def _tool(name, *arguments):
        spec = importlib.util.spec_from_file_location(f"tool_{name}", root / "tools" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.chdir(root)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        code = module.main()
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return _tool


@pytest.mark.slow
def test_tool_replays_a_faster_rcnn_that_met_a_nan(tool, tmp_path, sample):
    """From the config alone: train, fail in one loss component, replay from the file in a fresh model."""
    from devkits import small_devkit
    from mmengine.hooks import Hook
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    from cvplugins.openmmlab.run.config import load_config

    devkit = small_devkit(sample, tmp_path / "VOCdevkit")
    cfg = load_config("tests/integration/tiny.py", {"data_root": str(devkit)})
    cfg.work_dir = str(tmp_path / "work")
    cfg.custom_hooks = [GUARD]
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    init_default_scope("mmdet")
    run = Runner.from_cfg(cfg)

    class Break(Hook):
        def before_train(self, runner):
            runner.model.roi_head.bbox_head.fc_cls.weight.data[3, 1] = math.inf

    run.register_hook(Break())
    with pytest.raises(NonFiniteError) as caught:
        run.train()
    message = str(caught.value)
    for part in ["parameter roi_head.bbox_head.fc_cls.weight", "loss loss_cls", "iteration 0", ".jpg"]:
        assert part in message
    path = tmp_path / "work" / "replay" / "iter_0_rank0.pt"
    code, out, _ = tool("replay", path)
    assert code == 0
    assert "again: parameter roi_head.bbox_head.fc_cls.weight: 0 NaN and 1 infinite" in out
    assert "again: loss loss_cls" in out
    assert "again: loss loss_rpn" not in out
    assert out.strip().endswith("\nreproduced")


def test_tool_answers_mistakes(tool, tmp_path):
    code, _, err = tool("replay", tmp_path / "none.pt")
    assert (code, "does not exist" in err) == (2, True)
    torch.save({"state_dict": {}}, tmp_path / "checkpoint.pth")
    code, _, err = tool("replay", tmp_path / "checkpoint.pth")
    assert (code, "it is no replay file" in err) == (2, True)
    torch.save({"format": Evil()}, tmp_path / "evil.pt")
    code, _, err = tool("replay", tmp_path / "evil.pt")
    assert (code, "add --trust-replay" in err) == (2, True)


class Evil:
    def __reduce__(self):
        return print, ("code has run",)


def test_batches_of_detectors_are_loaded_without_running_code(tmp_path):
    import numpy as np
    from small_models import batch

    from cvplugins import safe_loading as core
    from cvplugins.cli import replay_files

    images = batch(masks=True)
    meta = {"img_path": "a.jpg", "scale_factor": (1.0, 1.0), "homography_matrix": np.eye(3, dtype=np.float32)}
    images["data_samples"][0].set_metainfo(meta)
    torch.save(images, tmp_path / "batch.pt")
    loaded = core.load_plain(tmp_path / "batch.pt", replay_files._data_classes(tmp_path / "batch.pt"))
    sample, expected = loaded["data_samples"][0], images["data_samples"][0]
    assert sample.metainfo["img_path"] == "a.jpg"
    assert np.array_equal(sample.gt_instances.masks.masks, expected.gt_instances.masks.masks)
    torch.testing.assert_close(sample.gt_instances.bboxes, expected.gt_instances.bboxes)
    assert all(torch.equal(*pair) for pair in zip(loaded["inputs"], images["inputs"], strict=True))


def test_a_skipped_loss_does_not_spoil_the_mean_of_the_log(start, tmp_path):
    """Oracle: the mean of the finite losses of the window, which the history has."""
    import json

    options = dict(log_processor=dict(window_size=4), default_hooks=dict(logger=dict(type="LoggerHook", interval=1)))
    run = start(**poisoned(2, length=8), hooks=[dict(GUARD, policy="skip")], **options)
    run.train()
    (path,) = tmp_path.glob("*/vis_data/scalars.json")
    logged = [json.loads(line)["loss"] for line in path.read_text().splitlines() if '"loss"' in line]
    values, counts = run.message_hub.get_scalar("train/loss").data
    assert counts.tolist() == [1, 1, 0, 1, 1, 1, 1, 1]
    windows = [slice(max(0, end - 4), end) for end in range(1, 9)]
    assert logged == pytest.approx([values[window].sum() / counts[window].sum() for window in windows])
    assert all(map(math.isfinite, logged))
