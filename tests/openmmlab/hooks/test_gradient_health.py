"""The gradient health hook under mmengine's Runner: files, figure, backends, resume, several optimizers, two ranks."""

import json

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.openmmlab

HEALTH = dict(type="cvplugins.GradientHealthHook", depth=1)


@pytest.fixture
def start(tmp_path, request):
    from small_runner import runner

    def _start(**options):
        return runner(tmp_path, f"{request.node.name}_{len(list(tmp_path.iterdir()))}", **options)

    return _start


def ill_model(spare=True):
    """Return the small model with a layer that takes no part and, behind the first, a dead activation."""
    from small_runner import SmallModel

    class Ill(SmallModel):
        def __init__(self):
            super().__init__()
            self.dead = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
            nn.init.constant_(self.dead[0].bias, -100.0)
            if spare:
                self.spare = nn.Linear(2, 2)

        def forward(self, inputs, target, mode="tensor"):
            found = self.last(self.dead(self.first(inputs / 8)))
            loss = (found - target).square().mean()
            return {"loss": loss} if mode == "loss" else [{"loss": loss}]

    return Ill()


def lines(run):
    from pathlib import Path

    return [json.loads(line) for line in Path(run.log_dir, "gradient_health.jsonl").read_text().splitlines()]


def verdicts(records):
    return [
        (each["verdict"]["kind"], each["verdict"]["layer"], each["verdict"]["since"], each["iteration"])
        for each in records
        if "verdict" in each
    ]


def test_writes_lines_and_a_figure_and_says_each_cause_once(start, tmp_path):
    from pathlib import Path

    hook = dict(HEALTH, detail_interval=2, activations=["dead.1"], limits=dict(patience=5))
    run = start(hooks=[hook], model=ill_model(), epochs=3)
    run.train()
    records = lines(run)
    observed = [each for each in records if "layers" in each]
    assert [each["iteration"] for each in observed] == [0, 2, 4, 6, 8, 10]
    assert set(observed[0]["layers"]) == {"first", "last", "dead.0"}
    assert set(observed[0]["layers"]["last"]) == {"norm", "zeros", "update_ratio"}
    assert observed[0]["activations"]["dead.1"]["dead"] == 1
    assert sorted(verdicts(records)) == [
        ("dead", "dead.0", 0, 4),
        ("dead", "dead.1", 0, 4),
        ("unused", "spare.bias", 0, 4),
    ]
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert log.count("gradients: dead at dead.0 (and first) since iteration 0") == 1
    for suffix in (".png", ".svg"):
        assert Path(run.log_dir, f"gradient_health{suffix}").stat().st_size > 5000
    assert not run.model.dead[1]._forward_hooks
    assert not run.optim_wrapper.optimizer._optimizer_step_post_hooks


def test_every_visualizer_backend_gets_the_numbers(start):
    from mmengine.registry import VISBACKENDS
    from mmengine.visualization import BaseVisBackend

    seen = []

    @VISBACKENDS.register_module(name="Recorder", force=True)
    class Recorder(BaseVisBackend):
        experiment = None

        def _init_env(self):
            pass

        def add_scalars(self, scalar_dict, step=0, file_path=None, **kwargs):
            seen.append((self._save_dir, step, dict(scalar_dict)))

    try:
        backends = [dict(type="Recorder", name=name, save_dir=name) for name in ("a", "b")]
        visualizer = dict(type="Visualizer", vis_backends=backends, name="test_backends")
        start(hooks=[dict(HEALTH, detail_interval=2)], epochs=1, visualizer=visualizer).train()
    finally:
        VISBACKENDS.module_dict.pop("Recorder")
    names = {"gradient/norm", *(f"gradient/{kind}/{block}" for kind in ("norm", "zeros", "update_ratio")
                                for block in ("first", "last"))}  # fmt: skip
    for backend in ("a", "b"):
        own = [(step, scalars) for folder, step, scalars in seen if folder == backend and names <= set(scalars)]
        assert [step for step, _ in own] == [0, 2]


def test_a_killed_and_resumed_run_judges_as_the_straight_one(start, tmp_path):
    hook = dict(HEALTH, detail_interval=3, limits=dict(patience=6, plateau=4))
    run = start(hooks=[hook], model=ill_model(), epochs=3)
    run.train()
    written = lines(run)
    straight = [each for each in verdicts(written) if each[0] != "plateau"]  # the data come in another order
    assert [each[0] for each in straight] == ["dead", "unused"]
    again = start(hooks=[hook], model=ill_model(), epochs=3, load_from=str(tmp_path / "epoch_1.pth"), resume=True)
    again.train()
    # Log folders are named after the second: both runs may have had the same.
    new = lines(again)[len(written) if again.log_dir == run.log_dir else 0 :]
    assert [each for each in verdicts(new) if each[0] != "plateau"] == [each for each in straight if each[3] >= 4]


def test_stops_with_a_figure_of_what_led_there(start):
    from pathlib import Path

    from small_runner import SmallModel

    run = start(hooks=[dict(HEALTH, detail_interval=1)], model=SmallModel(poison=3))
    with pytest.raises(FloatingPointError, match="iteration 3"):
        run.train()
    assert len(lines(run)) == 3
    assert Path(run.log_dir, "gradient_health.png").exists()


def test_each_optimizer_of_several_is_observed(start):
    from mmengine.optim import OptimWrapper, OptimWrapperDict
    from small_runner import SmallModel

    class Two(SmallModel):
        def train_step(self, data, optim_wrapper):
            losses = self(**self.data_preprocessor(data, True), mode="loss")
            losses["loss"].backward()
            for wrapper in optim_wrapper.values():
                wrapper.step()
            for wrapper in optim_wrapper.values():
                wrapper.zero_grad()
            return {"loss": losses["loss"].detach()}

    model = Two()
    wrappers = OptimWrapperDict(
        **{
            name: OptimWrapper(torch.optim.SGD(getattr(model, name).parameters(), lr=0.01))
            for name in ("first", "last")
        }
    )
    run = start(hooks=[dict(HEALTH, detail_interval=2)], model=model, optim_wrapper=wrappers, epochs=1)
    run.train()
    assert [(each["iteration"], each["part"], list(each["layers"])) for each in lines(run)] == [
        (0, "first", ["first"]),
        (0, "last", ["last"]),
        (2, "first", ["first"]),
        (2, "last", ["last"]),
    ]


def test_wrong_options_are_named_before_training(start):
    from mmengine.registry import HOOKS

    with pytest.raises(ValueError, match="limits has no 'patient'"):
        HOOKS.build(dict(HEALTH, limits=dict(patient=3)))
    run = start(hooks=[dict(HEALTH, activations=["backbone.*"])], epochs=1)
    with pytest.raises(ValueError, match="no module is named 'backbone"):
        run.train()


def _run_rank(folder):
    import torch.distributed as dist
    from small_runner import runner

    run = runner(
        folder, f"rank{dist.get_rank()}", model=ill_model(spare=False), epochs=2,
        hooks=[dict(HEALTH, detail_interval=1, activations=["dead.1"], limits=dict(patience=2))],
    )  # fmt: skip
    run.model = nn.parallel.DistributedDataParallel(run.model)
    run.model.train_step = lambda data, optim_wrapper: _step(run.model, data, optim_wrapper)
    told = []
    hook = next(hook for hook in run.hooks if type(hook).__name__ == "GradientHealthHook")
    tell = hook.monitor._tell
    hook.monitor._tell = lambda run, found: (told.extend((each.kind, each.layer) for each in found), tell(run, found))
    run.train()
    return told


def _step(model, data, optim_wrapper):
    loss = model(**data, mode="loss")["loss"]
    optim_wrapper.update_params(loss)
    return {"loss": loss.detach()}


@pytest.mark.distributed
def test_two_ranks_judge_alike_and_one_writes(tmp_path):
    from helpers import run_ranks

    first, second = run_ranks(_run_rank, 2, str(tmp_path), timeout=60)
    assert first == second == [("dead", "dead.0"), ("dead", "dead.1")]
    assert len(list(tmp_path.glob("*/gradient_health.jsonl"))) == 1
