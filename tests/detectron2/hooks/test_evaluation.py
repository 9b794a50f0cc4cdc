"""Hooks that learn from evaluations: they decide by what EvalHook found, and a resumed run as a straight one."""

import contextlib
import json

import pytest
import torch
from small_detectron2_trainer import train, weights

pytestmark = pytest.mark.detectron2


def losses(*values):
    """Return an evaluation that finds one value after another, by the iteration."""

    def evaluate(trainer):
        done = min(trainer.iter + 1, trainer.max_iter)
        return {"val": {"loss": values[done // 2 - 1]}}

    return evaluate


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def stopping(folder, **options):
    from cvplugins.detectron2 import EarlyStoppingHook

    return EarlyStoppingHook("val/loss", output_dir=str(folder), **{"patience": 2, **options})


def stopped(*args, **options):
    from cvplugins.detectron2 import TrainingStopped

    with pytest.raises(TrainingStopped) as caught:
        train(*args, **options)
    assert caught.value.code == 0  # of a program that does not catch it
    return caught.value


class Weights:
    """The weights at each evaluation."""

    def __init__(self, evaluate):
        self.evaluate, self.seen, self.trainer = evaluate, [], None

    def __call__(self, trainer):
        self.trainer = trainer
        self.seen.append(weights(trainer))
        return self.evaluate(trainer)


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_stopping_and_the_best_weights(tmp_path):
    """Oracle: by hand, 0.5 after four iterations is the best and two worse ones follow."""
    from detectron2.checkpoint import DetectionCheckpointer
    from small_detectron2_trainer import Net

    evaluate = Weights(losses(0.7, 0.5, 0.6, 0.55, 0.1, 0.1))
    error = stopped(tmp_path, [stopping(tmp_path)], iterations=12, evaluate=evaluate)
    assert error.reason == "no progress in 2 evaluations: 0.55 after a best of 0.5 at iteration 4"
    assert len(evaluate.seen) == 4
    assert evaluate.trainer.iter == 8
    assert same(weights(evaluate.trainer), evaluate.seen[1])
    model = Net()
    DetectionCheckpointer(model, str(tmp_path)).load(str(tmp_path / "best_weights.pth"))
    assert same(model.state_dict(), evaluate.seen[1])


def test_a_run_to_its_end_has_the_best_weights_too(tmp_path):
    """The last evaluation comes after every hook's last chance to act, and counts."""
    evaluate = Weights(losses(0.7, 0.5, 0.6))
    trainer = train(tmp_path, [stopping(tmp_path)], iterations=6, evaluate=evaluate)
    assert same(weights(trainer), evaluate.seen[1])
    last = lines(tmp_path / "early_stopping.jsonl")[-1]
    assert (last["iteration"], last["value"], last["waited"]) == (6, 0.6, 1)


def test_averaged_weights_are_kept_and_put_back(tmp_path):
    from cvplugins.detectron2 import EMAHook

    evaluate = Weights(losses(0.5, 0.6))
    trainer = train(tmp_path, [stopping(tmp_path), EMAHook(0.5)], iterations=4, evaluate=evaluate)
    assert same(weights(trainer), evaluate.seen[0])


@pytest.mark.parametrize("kill", [4, 5])
def test_a_resumed_run_stops_where_a_straight_one_does(tmp_path, kill):
    """Killed in the evaluation after four iterations, which is made up for, or in the iteration after it."""
    values = losses(0.7, 0.5, 0.6, 0.55, 0.1)

    def killed(trainer):
        if kill == 4 and trainer.iter + 1 == 4:
            raise KeyboardInterrupt
        return values(trainer)

    def interrupt(iteration, batch):
        if kill == 5 and iteration == 4:
            raise KeyboardInterrupt
        return batch

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [stopping(tmp_path)], iterations=10, evaluate=killed, change=interrupt)
    error = stopped(tmp_path, [stopping(tmp_path)], iterations=10, evaluate=values, resume=True)
    assert error.reason == "no progress in 2 evaluations: 0.55 after a best of 0.5 at iteration 4"
    found = [(line["iteration"], line["value"]) for line in lines(tmp_path / "early_stopping.jsonl")]
    assert found == [(2, 0.7), (4, 0.5), (6, 0.6), (8, 0.55)]
    again = stopped(tmp_path, [stopping(tmp_path)], iterations=10, evaluate=values, resume=True)
    assert "no progress in 2 evaluations" in again.reason


@pytest.mark.parametrize("kill", [None, 6])
def test_the_last_evaluation_counts_once(tmp_path, kill):
    """Killed in it, or not at all, and resumed until after the end; oracle: straight."""
    from cvplugins.detectron2 import BestCheckpointHook

    values = losses(0.7, 0.5, 0.4)

    def hooks(folder):
        return [stopping(folder, patience=5), BestCheckpointHook("val/loss", output_dir=str(folder))]

    def killed(trainer):
        if min(trainer.iter + 1, trainer.max_iter) == kill:
            raise KeyboardInterrupt
        return values(trainer)

    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train(straight, hooks(straight), iterations=6, evaluate=values)
    with pytest.raises(KeyboardInterrupt) if kill else contextlib.nullcontext():
        train(resumed, hooks(resumed), iterations=6, evaluate=killed)
    for _ in range(2):
        train(resumed, hooks(resumed), iterations=6, evaluate=values, resume=True)
        for name in ("early_stopping", "best_checkpoint"):
            assert lines(resumed / f"{name}.jsonl") == lines(straight / f"{name}.jsonl")
        best = [torch.load(folder / "model_best.pth") for folder in (straight, resumed)]
        assert best[0]["meta"] == best[1]["meta"] == {"iteration": 6, "val/loss": 0.4}
        assert same(best[0]["model"], best[1]["model"])


def test_the_best_checkpoint_and_the_last_one_are_two(tmp_path):
    """Oracle: Detectron2's BestCheckpointer would make the best one the last, and forget it when resumed."""
    from detectron2.checkpoint import DetectionCheckpointer

    from cvplugins.detectron2 import BestCheckpointHook

    def best():
        return BestCheckpointHook("val/loss", output_dir=str(tmp_path))

    values = losses(0.5, 0.6, 0.4, 0.7)
    train(tmp_path, [best()], iterations=4, evaluate=values)
    assert DetectionCheckpointer(torch.nn.Identity(), str(tmp_path)).get_checkpoint_file().endswith("model_final.pth")
    assert torch.load(tmp_path / "model_best.pth")["meta"] == {"iteration": 2, "val/loss": 0.5}
    train(tmp_path, [best()], iterations=8, evaluate=values, resume=True)
    assert torch.load(tmp_path / "model_best.pth")["meta"] == {"iteration": 6, "val/loss": 0.4}


def test_a_trainer_without_evaluations(tmp_path):
    from cvplugins.errors import UserError

    with pytest.raises(UserError, match=r"EarlyStoppingHook needs evaluations, .* register an EvalHook"):
        train(tmp_path, [stopping(tmp_path)], eval_period=0)


def test_over_and_underfitting(tmp_path):
    """Oracle: the mean of the losses that Detectron2 logged in the interval."""
    from detectron2.engine import HookBase

    from cvplugins.detectron2 import GeneralizationHook

    logged = []

    class Look(HookBase):
        def after_step(self):
            logged.append(self.trainer.storage.latest()["total_loss"][0])

    def hook():
        return GeneralizationHook(output_dir=str(tmp_path))

    values = losses(*(0.5 + 0.01 * index for index in range(8)))
    train(tmp_path, [hook()], iterations=6, evaluate=values, others=[Look()])
    train(tmp_path, [hook()], iterations=16, evaluate=values, others=[Look()], resume=True)
    found = lines(tmp_path / "generalization.jsonl")
    assert [line["iteration"] for line in found] == [2, 4, 6, 8, 10, 12, 14, 16]
    expected = [sum(logged[index : index + 2]) / 2 for index in range(0, 16, 2)]
    assert [line["train_loss"] for line in found] == pytest.approx(expected, rel=1e-5)
    assert (tmp_path / "generalization.png").exists()
