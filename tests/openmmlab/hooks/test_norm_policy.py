"""NormPolicyHook under mmengine's Runner, in one process and in two."""

import copy
import os
import tempfile

import pytest
import torch
from helpers import run_ranks

pytestmark = pytest.mark.openmmlab

FROZEN_BACKBONE = [dict(to="FrozenBN", names=["backbone.*"]), dict(to="SyncBN")]


def make_model():
    """A backbone and a head, each with a batch norm, and a loss."""
    from mmengine.model import BaseModel
    from torch import nn

    class Model(BaseModel):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.backbone = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4))
            self.head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

        def forward(self, inputs, target, mode="tensor"):
            return {"loss": (self.head(self.backbone(inputs / 8)) - target).square().mean()}

    return Model()


def start(work_dir, name, rules, **options):
    from small_runner import runner

    hooks = [*options.pop("hooks", ()), dict(type="cvplugins.NormPolicyHook", rules=rules)]
    return runner(work_dir, name, model=options.pop("model", None) or make_model(), hooks=hooks, **options)


def norms(model):
    return [type(model.backbone[1]).__name__, type(model.head[1]).__name__]


def test_converts_before_training_and_logs_it(tmp_path):
    run = start(tmp_path, "converts", [*FROZEN_BACKBONE, dict(to="GN", names=["neck*"])])
    frozen = {name: value.clone() for name, value in run.model.backbone[1].state_dict().items()}
    assert norms(run.train()) == ["FrozenBatchNorm", "SyncBatchNorm"]
    torch.testing.assert_close(dict(run.model.backbone[1].state_dict()), frozen, rtol=0, atol=0)
    assert not torch.equal(run.model.head[1].running_mean, torch.zeros(4))
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert "torch.BatchNorm1d  cvplugins.FrozenBatchNorm                backbone.1" in log
    assert "WARNING - normalisation policy: rule 2 (GN) decides about no batch norm" in log


def test_in_one_process_a_synchronised_run_is_the_plain_one(tmp_path):
    from small_runner import runner

    plain = runner(tmp_path / "plain", "plain", model=make_model(), randomness=dict(seed=0)).train()
    ours = start(tmp_path / "ours", "ours", [dict(to="SyncBN")], randomness=dict(seed=0)).train()
    torch.testing.assert_close(dict(ours.state_dict()), dict(plain.state_dict()), rtol=0, atol=0)


def test_a_killed_and_resumed_run_is_the_straight_one(tmp_path):
    rules = [dict(to="GN", names=["head.*"], num_groups=2), *FROZEN_BACKBONE]
    options = dict(randomness=dict(seed=0), hooks=[dict(type="cvplugins.IterationSeedHook")])
    straight = start(tmp_path / "straight", "straight", rules, **copy.deepcopy(options)).train()
    load = dict(load_from=str(tmp_path / "straight" / "epoch_1.pth"), resume=True)
    resumed = start(tmp_path / "resumed", "resumed", rules, **load, **copy.deepcopy(options)).train()
    assert norms(resumed) == ["FrozenBatchNorm", "ConvertedGroupNorm"]
    torch.testing.assert_close(dict(resumed.state_dict()), dict(straight.state_dict()), rtol=0, atol=0)
    assert "were trained as another kind" not in next((tmp_path / "resumed").glob("*/*.log")).read_text()


def test_weights_of_another_kind_of_layer_are_warned_of(tmp_path):
    start(tmp_path / "groups", "groups", [dict(to="GN", num_groups=2)], epochs=1).train()
    run = start(tmp_path / "batch", "batch", [dict(to="SyncBN")], load_from=str(tmp_path / "groups" / "epoch_1.pth"))
    run.call_hook("before_run")
    run.load_or_resume()
    log = next((tmp_path / "batch").glob("*/*.log")).read_text()
    assert "2 layers were trained as another kind, such as backbone.1, which was GN and is BN; give the rules" in log


def test_ema_averages_the_converted_model(tmp_path):
    run = start(tmp_path, "ema", FROZEN_BACKBONE, hooks=[dict(type="EMAHook")], epochs=1)
    run.train()
    ema = next(hook for hook in run.hooks if type(hook).__name__ == "EMAHook").ema_model
    assert norms(ema.module) == ["FrozenBatchNorm", "SyncBatchNorm"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(sync_bn="torch"), "sync_bn='torch' and NormPolicyHook both convert batch norms; remove sync_bn"),
        (
            dict(model_wrapper_cfg=dict(type="cvplugins.SyncBatchNormDataParallel")),
            "give the wrapper convert=False",
        ),
    ],
)
def test_two_policies_are_refused(tmp_path, options, message):
    run = start(tmp_path, f"two_{next(iter(options))}", [dict(to="SyncBN")], cfg=options)
    with pytest.raises(ValueError, match=message):
        run.train()


def test_wrong_rules_are_refused_when_the_hook_is_built():
    from mmengine.registry import HOOKS

    with pytest.raises(ValueError, match="rule 0 has no option 'name'; did you mean names"):
        HOOKS.build(dict(type="cvplugins.NormPolicyHook", rules=[dict(to="BN", name=["*"])]))


def train_two(folder):
    os.environ["LOCAL_RANK"] = str(torch.distributed.get_rank())
    wrapper = dict(type="cvplugins.SyncBatchNormDataParallel", convert=False)
    run = start(folder, "two", FROZEN_BACKBONE, cfg=dict(model_wrapper_cfg=wrapper), launcher="pytorch")
    assert type(run.model).__name__ == "SyncBatchNormDataParallel"
    run.train()
    model = run.model.module
    return norms(model), {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.distributed
def test_two_ranks_agree_although_the_policy_changed_what_trains(monkeypatch):
    """DDP built before the policy waits for the frozen layer's gradients and raises in the second iteration."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    with tempfile.TemporaryDirectory() as folder:
        first, second = run_ranks(train_two, 2, folder)
    assert first[0] == second[0] == ["FrozenBatchNorm", "SyncBatchNorm"]
    torch.testing.assert_close(first[1], second[1], rtol=0, atol=0)
    assert int(first[1]["head.1.num_batches_tracked"]) == 4
    assert int(first[1]["backbone.1.num_batches_tracked"]) == 0
