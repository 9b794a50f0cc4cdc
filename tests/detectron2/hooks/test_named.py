"""Hooks from the config, and what they share: steps, state, evaluations."""

import pytest
import torch
from small_detectron2 import small_config
from small_detectron2_trainer import AMP, Net, train, weights

pytestmark = pytest.mark.detectron2


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def config(*hooks, **changes):
    cfg = small_config("fpn")
    cfg.CVPLUGINS.HOOKS = list(hooks)
    cfg.DATASETS.TEST, cfg.TEST.EVAL_PERIOD = ("some",), 10
    cfg.merge_from_list([each for pair in changes.items() for each in pair])
    return cfg


def test_hooks_of_a_config_in_yaml(tmp_path):
    from cvplugins.detectron2 import EMAHook, GradientClippingHook, build_cvplugins_hooks, validate_cvplugins_config

    (tmp_path / "base.yaml").write_text(config().dump())
    (tmp_path / "derived.yaml").write_text("""\
_BASE_: base.yaml
OUTPUT_DIR: somewhere
CVPLUGINS:
  HOOKS:
    - {type: cvplugins.EMAHook, momentum: 0.01}
    - {type: GradientClippingHook, rules: [{pattern: backbone.*, max_norm: 1.0}]}
""")
    cfg = small_config("fpn")
    cfg.merge_from_file(str(tmp_path / "derived.yaml"))
    cfg.freeze()
    validate_cvplugins_config(cfg)
    average, clipping = build_cvplugins_hooks(cfg)
    assert type(average) is EMAHook
    assert average.output_dir == "somewhere"
    assert type(clipping) is GradientClippingHook
    assert clipping.monitor.clipping.rules[0].max_norm == 1.0
    again = type(cfg).load_cfg(cfg.dump())
    assert again.CVPLUGINS.HOOKS == cfg.CVPLUGINS.HOOKS


CLIPPING = {"type": "GradientClippingHook", "max_norm": 1.0}


@pytest.mark.parametrize(
    ("hooks", "changes", "message"),
    [
        ([{"type": "EmaHook"}], {}, r"CVPLUGINS.HOOKS\[0\]: no hook 'EmaHook' here; use .*EMAHook"),
        (["EMAHook"], {}, r"CVPLUGINS.HOOKS\[0\]: expected a hook such as .*, but got 'EMAHook'"),
        ([{"type": "EMAHook", "decay": 0.9}], {}, "EMAHook has no option decay; it has momentum, gamma"),
        ([{"type": "EMAHook", "momentum": 2.0}], {}, "EMAHook: momentum is 2.0; it must be between 0 and 1"),
        ([{"type": "EMAHook", "momentum": "a"}], {}, "EMAHook: "),
        ([{"type": "EMAHook"}, {"type": "EMAHook"}], {}, r"HOOKS\[1\]: a second EMAHook"),
        ([{"type": "GradientClippingHook"}], {}, "GradientClippingHook: nothing would be clipped; give a rule one of"),
        (
            [{"type": "EarlyStoppingHook", "monitor": "val/loss"}],
            {"TEST.EVAL_PERIOD": 0},
            "EarlyStoppingHook: it learns from evaluations during the training, and TEST.EVAL_PERIOD is 0; set it to",
        ),
        (
            [{"type": "ValidationLoss"}],
            {"DATASETS.TEST": ()},
            "ValidationLoss: it needs evaluations, and DATASETS.TEST",
        ),
        (
            [{"type": "BestCheckpointHook", "monitor": "speed"}],
            {},
            "BestCheckpointHook: whether more or less of 'speed'",
        ),
        (
            [{"type": "OptimizerSwitchHook", "optimizer": {"type": "Sgd", "lr": 1.0}, "at": 1}],
            {},
            "OptimizerSwitchHook: torch.optim has no optimizer 'Sgd'; use .*SGD",
        ),
        (
            [{"type": "OptimizerSwitchHook", "optimizer": {"type": "SGD", "lr": 1.0, "betas": []}, "at": 1}],
            {},
            "OptimizerSwitchHook: SGD has no option betas; it has params, lr",
        ),
        (
            [{"type": "OptimizerSwitchHook", "optimizer": {"type": "SGD", "lr": 1.0}, "at": 1}],
            {"SOLVER.CLIP_GRADIENTS.ENABLED": True},
            "OptimizerSwitchHook: SOLVER.CLIP_GRADIENTS would end with the first optimizer; set",
        ),
        ([CLIPPING], {"SOLVER.CLIP_GRADIENTS.ENABLED": True}, "set SOLVER.CLIP_GRADIENTS.ENABLED to False"),
    ],
)
def test_a_mistake_is_one_line_with_what_is_accepted(hooks, changes, message):
    from cvplugins.detectron2 import validate_cvplugins_config
    from cvplugins.errors import UserError

    with pytest.raises(UserError, match=message) as caught:
        validate_cvplugins_config(config(*hooks, **changes))
    assert "\n" not in str(caught.value)


def test_hooks_that_is_no_list():
    from cvplugins.detectron2 import build_cvplugins_hooks
    from cvplugins.errors import UserError

    for wrong in ("EMAHook", {"type": "EMAHook"}):
        with pytest.raises(UserError, match=r"CVPLUGINS.HOOKS is .*; give a list"):
            build_cvplugins_hooks({"CVPLUGINS": {"HOOKS": wrong}})


def test_the_average_is_that_of_the_weights_after_each_step(tmp_path):
    """Oracle: the rule written out, over the weights that another hook saw."""
    from detectron2.engine import HookBase

    from cvplugins.detectron2 import EMAHook

    seen, evaluated = [], []

    class Look(HookBase):
        def after_step(self):
            seen.append(self.trainer.model.head.weight.detach().clone())

    def evaluate(trainer):
        evaluated.append(trainer.model.head.weight.detach().clone())
        return {"val": {"loss": 1.0}}

    hook = EMAHook(momentum=0.25, output_dir=str(tmp_path))
    trainer = train(tmp_path, [hook], iterations=5, evaluate=evaluate, others=[Look()])
    expected = seen[0]
    averages = [expected]
    for weight in seen[1:]:
        expected = expected + 0.25 * (weight - expected)
        averages.append(expected)
    torch.testing.assert_close(torch.stack(evaluated), torch.stack([averages[1], averages[3], averages[4]]))
    assert torch.equal(trainer.model.head.weight, seen[-1])
    written = torch.load(tmp_path / "model_ema.pth")["model"]
    torch.testing.assert_close(written["head.weight"], averages[-1])
    assert not trainer.optimizer._optimizer_step_post_hooks


def test_a_resumed_run_has_the_average_of_a_straight_one(tmp_path):
    from cvplugins.detectron2 import EMAHook

    train(tmp_path / "straight", [EMAHook(0.1, output_dir=tmp_path / "straight")], iterations=8)
    train(tmp_path / "resumed", [EMAHook(0.1)], iterations=4)
    train(tmp_path / "resumed", [EMAHook(0.1, output_dir=tmp_path / "resumed")], iterations=8, resume=True)
    first, second = (torch.load(tmp_path / name / "model_ema.pth") for name in ("straight", "resumed"))
    assert equal(first["model"], second["model"])
    assert first["meta"] == second["meta"] == {"updates": 8}


@pytest.mark.parametrize("amp", AMP)
def test_clipping_between_backward_and_step(tmp_path, amp, monkeypatch):
    """Oracle: torch's own clip_grad_norm_ in a loop of its own; with AMP the scale is a power of two."""
    from cvplugins.detectron2 import GradientClippingHook

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # AMPTrainer asks; everything stays on the CPU
    hook = GradientClippingHook(max_norm=0.05, interval=4)
    trainer = train(tmp_path, [hook], iterations=4, amp=amp, eval_period=0)
    assert equal(weights(trainer), by_hand(clip=0.05))
    assert not equal(weights(trainer), by_hand(clip=None))
    latest = trainer.storage.latest()
    assert latest["gradient/clipped"] == (1.0, 3)
    assert latest["gradient/norm_before_clipping"][0] > 0.05


def by_hand(clip, iterations=4):
    from small_detectron2_trainer import Batches

    model = Net().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    from detectron2.solver import LRMultiplier
    from fvcore.common.param_scheduler import CosineParamScheduler

    scheduler = LRMultiplier(optimizer, CosineParamScheduler(1.0, 0.1), max_iter=100)
    for _, batch in zip(range(iterations), Batches(), strict=False):
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        scheduler.step()
    return dict(model.state_dict())


def test_the_yaml_of_the_documents_validates(root, tmp_path):
    """And shows every hook that there is."""
    import re

    from cvplugins.detectron2 import build_cvplugins_hooks, validate_cvplugins_config
    from cvplugins.detectron2.hooks.named import HOOKS

    pages = [*(root / "docs" / "hooks").glob("*.md"), root / "docs" / "normalization.md"]
    text = "\n".join(page.read_text() for page in pages)
    shown = set()
    for block in re.findall(r"```yaml\n(CVPLUGINS:.*?)```", text, re.DOTALL):
        (tmp_path / "page.yaml").write_text(block)
        cfg = config()
        cfg.merge_from_file(str(tmp_path / "page.yaml"))
        validate_cvplugins_config(cfg)
        shown.update(type(hook).__name__ for hook in build_cvplugins_hooks(cfg))
    assert shown == {name for name, _ in HOOKS}


def test_every_hook_can_be_imported_from_the_package():
    import cvplugins.detectron2
    from cvplugins.detectron2.hooks.named import HOOKS

    for name, hook in HOOKS:
        assert getattr(cvplugins.detectron2, name) is hook
        assert name in cvplugins.detectron2.__all__


def test_hooks_act_in_the_order_that_they_need():
    """The guard names a NaN before clipping spreads it; throughput counts what others do."""
    from detectron2.engine.hooks import EvalHook, IterationTimer, LRScheduler, PeriodicWriter

    from cvplugins.detectron2 import build_cvplugins_hooks, insert_hooks

    guard = {"type": "NonFiniteGuardHook"}
    ours = build_cvplugins_hooks(config({"type": "ThroughputHook"}, CLIPPING, {"type": "EMAHook"}, guard))
    theirs = [IterationTimer(), LRScheduler(), None, EvalHook(1, dict), PeriodicWriter([])]
    names = [type(hook).__name__ for hook in insert_hooks(theirs, ours)]
    assert names[:3] == ["IterationTimer", "LRScheduler", "NoneType"]
    assert names[3:7] == ["NonFiniteGuardHook", "GradientClippingHook", "EMAHook", "ThroughputHook"]
    assert names[7:] == ["EvalHook", "PeriodicWriter"]
