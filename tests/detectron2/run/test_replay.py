"""Iterations that failed in Detectron2, run again from their file: a real model, accumulation, and mistakes."""

import math
import runpy
import sys

import pytest
import torch
from small_detectron2 import batch, small_config
from small_detectron2_trainer import Batches, Net, train

pytestmark = pytest.mark.detectron2


@pytest.fixture
def tool(monkeypatch, capsys, root):
    """Run tools/replay.py and return its exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["replay.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(root / "tools" / "replay.py"), run_name="__main__")
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


def fail(folder, cfg):
    """Train a real model until one of its weights breaks one loss; return the message."""
    from detectron2.modeling import build_model

    from cvplugins.detectron2 import NonFiniteGuardHook
    from cvplugins.monitors import NonFiniteError

    model = build_model(cfg)
    torch.nn.init.constant_(model.roi_heads.box_predictor.bbox_pred.weight[5, 1].data, math.inf)
    hook = NonFiniteGuardHook(output_dir=str(folder))
    with pytest.raises(NonFiniteError) as caught:
        train(folder, [hook], iterations=1, eval_period=0, model=model, data=[batch()])
    return str(caught.value)


def test_tool_replays_a_mask_rcnn_from_the_config_of_the_run(tool, tmp_path):
    """Oracle: the faults that the run itself found, in a fresh model; masks and boxes are plain data to the loader."""
    cfg = small_config("mask")
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.CVPLUGINS.NORM.rules = [{"to": "SyncBN"}]
    (tmp_path / "config.yaml").write_text(cfg.dump())
    message = fail(tmp_path, cfg)
    path = tmp_path / "replay" / "iter_0_rank0.pt"
    assert message.endswith(f"to repeat it: cvplugins replay {path}")
    code, out, err = tool(path)
    assert (code, err) == (0, "")
    assert "again: parameter roi_heads.box_predictor.bbox_pred.weight: 0 NaN and 1 infinite" in out
    assert "again: loss loss_box_reg" in out
    assert "again: loss loss_mask" not in out
    assert out.strip().endswith("\nreproduced")


def test_tool_answers_mistakes(tool, tmp_path):
    fail(tmp_path, small_config("fpn"))
    path = tmp_path / "replay" / "iter_0_rank0.pt"
    code, _, err = tool(path)
    assert (code, "config.yaml does not exist; add --config" in err) == (2, True)
    for text, part in (
        ("MODEL: {}", "has no MODEL.META_ARCHITECTURE"),
        ("3", "expected keys and values in it"),
        ("a: [", "is no YAML: while parsing"),
        ("MODEL: {META_ARCHITECTURE: Mine}", "call cvplugins.cli.replay_files.replay"),
        ("!!python/object/apply:os.system [exit]", "tags that run code are not read"),
        (small_config("retinanet").dump(), "is of another model than the config"),
        ("_BASE_: cvplugins::detectron2/voc_faster_rcnn_R_50_FPN.yaml", "is of another model than the config"),
    ):
        (tmp_path / "config.yaml").write_text(text)
        code, _, err = tool(path)
        assert (code, part in err) == (2, True), err


@pytest.mark.parametrize("policy", ["skip", "rollback", "raise"])
def test_what_the_rpn_raises_is_answered_like_any_other_fault(tool, tmp_path, policy):
    """A NaN in an image, or for the rollback in a weight; Detectron2 alone ends the training in its RPN."""
    from detectron2.modeling import build_model

    from cvplugins.detectron2 import NonFiniteGuardHook
    from cvplugins.monitors import NonFiniteError

    cfg = small_config("fpn")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    bad = batch()
    bad[0]["image"] = bad[0]["image"].float()
    bad[0]["image"][0, 3, 4] = math.nan
    model = build_model(cfg)

    def batches():
        for number in range(4):
            if policy == "rollback" and number == 1:
                torch.nn.init.constant_(model.backbone.fpn_lateral3.weight, math.nan)
            yield bad if policy != "rollback" and number == 1 else batch()

    hook = NonFiniteGuardHook(policy, output_dir=str(tmp_path))
    rates = dict(optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-4))
    if policy == "raise":
        with pytest.raises(NonFiniteError, match=r"loss loss_cls, .*first layer: "):
            train(tmp_path, [hook], iterations=4, eval_period=0, model=model, data=batches(), **rates)
        code, out, _ = tool(tmp_path / "replay" / "iter_1_rank0.pt")
        assert (code, "again: activation backbone.bottom_up.stem.conv1" in out) == (0, True)
    else:
        train(tmp_path, [hook], iterations=4, eval_period=0, model=model, data=batches(), **rates)
        assert (hook.monitor.guard.skips, hook.monitor.guard.rollbacks) == ((1, 0) if policy == "skip" else (0, 1))
        assert all(value.isfinite().all() for value in model.state_dict().values())
    assert "forward" not in vars(model)


@pytest.mark.parametrize("max_replays", [0, 1])
def test_accumulated_batches_are_replayed_together(tmp_path, max_replays):
    """The second of two batches is bad; the first draws from the same random generator."""
    from detectron2.engine import SimpleTrainer

    from cvplugins.cli.replay_files import replay
    from cvplugins.detectron2 import NonFiniteGuardHook

    class Twice(SimpleTrainer):
        def run_step(self):
            self.optimizer.zero_grad()
            for _ in range(2):
                sum(self.model(next(self._data_loader_iter)).values()).backward()
            self.optimizer.step()

    class Unlucky(Net):
        def forward(self, batch):
            losses = super().forward(batch)
            return {**losses, "loss_of_chance": torch.rand(()).log2().floor() * batch["scale"] + losses["loss_cls"]}

    change = lambda number, batch: {**batch, "scale": torch.tensor(math.inf if number == 3 else 1.0)}  # noqa: E731
    hook = NonFiniteGuardHook(policy="skip", max_replays=max_replays, output_dir=str(tmp_path))
    train(tmp_path, [hook], iterations=3, eval_period=0, model=Unlucky(), data=Batches(change=change), kind=Twice)
    assert hook.monitor.guard.skips == 1
    assert (tmp_path / "replay").exists() == bool(max_replays)
    if max_replays:
        reproduced, text = replay(tmp_path / "replay" / "iter_1_rank0.pt", model=Unlucky())
        assert reproduced
        assert "again: loss loss_of_chance: 0 NaN and 1 infinite of 1" in text
