"""PreciseBNHook under mmengine's Runner. Oracle: the same run without the hook, and the statistics of the data."""

import tempfile

import pytest
import torch
from helpers import run_ranks

pytestmark = pytest.mark.openmmlab

SEEDED = dict(type="cvplugins.IterationSeedHook")


def make_model():
    from mmengine.model import BaseModel
    from torch import nn

    class Model(BaseModel):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.norm = nn.BatchNorm1d(1, momentum=0.01)
            self.layers = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.1), nn.BatchNorm1d(4), nn.Linear(4, 1))

        def forward(self, inputs, target, mode="tensor"):
            loss = (self.layers(self.norm(inputs / 8)) - target).square().mean()
            return {"loss": loss} if mode == "loss" else [{"loss": loss}]

    return Model()


class Numbers(torch.utils.data.Dataset):
    """0 to 15, without augmentation, so that the statistics of an epoch are known."""

    def __init__(self, noise=0.0):
        self.noise = noise

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return {
            "inputs": torch.tensor([float(index)]) + self.noise * torch.rand(1),
            "target": torch.tensor([float(index)]),
        }


def start(work_dir, name, *, hooks=(), noise=1.0, val=False, **options):
    from small_runner import runner

    if val:
        loader = dict(dataset=Numbers(), batch_size=4, num_workers=0, sampler=dict(type="DefaultSampler"))
        loader["collate_fn"] = dict(type="default_collate")
        options |= dict(
            val_dataloader=loader,
            val_cfg={},
            val_evaluator=dict(type="mmengine.DumpResults", out_file_path=f"{work_dir}/out.pkl"),
        )
    return runner(
        work_dir, name, model=make_model(), hooks=hooks, dataset=Numbers(noise), randomness=dict(seed=1), **options
    )


PRECISE = dict(type="cvplugins.PreciseBNHook", num_batches=100)


def logged(folder):
    return next(folder.glob("*/*.log")).read_text().count("precise statistics: 2 batch norms from 8 batches")


def test_statistics_are_those_of_the_data_in_the_checkpoint(tmp_path):
    start(tmp_path, "data", hooks=[PRECISE], noise=0.0, epochs=1).train()
    weights = torch.load(tmp_path / "epoch_1.pth", weights_only=False)["state_dict"]
    values = torch.arange(16.0) / 8
    torch.testing.assert_close(weights["norm.running_mean"], values.mean().view(1))
    torch.testing.assert_close(weights["norm.running_var"], values.var().view(1))
    assert int(weights["norm.num_batches_tracked"]) == 8  # those of training
    assert logged(tmp_path) == 1


@pytest.mark.parametrize("seeded", [False, True])
@pytest.mark.parametrize("by_epoch", [False, True])
def test_training_is_the_same_with_the_hook_and_without(tmp_path, seeded, by_epoch):
    """Loader, sampler, generators and modes: any change would show in the weights."""
    options = dict(hooks=[SEEDED] if seeded else [], epochs=3)
    if not by_epoch:
        options["train_cfg"] = dict(by_epoch=False, max_iters=20, val_interval=5)
        options["default_hooks"] = dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=4))
        options["loader"] = dict(sampler=dict(type="InfiniteSampler"))
    names = [f"{seeded}{by_epoch}{kind}" for kind in ("plain", "precise")]
    plain = start(tmp_path / "plain", names[0], val=True, **options).train()
    options["hooks"] = [*options["hooks"], PRECISE]
    precise = start(tmp_path / "precise", names[1], val=True, **options).train()
    for (name, expected), (_, found) in zip(plain.named_parameters(), precise.named_parameters(), strict=True):
        assert torch.equal(found, expected), name
    # After 4, 5, 8, 10, 12, 15, 16 and 20 iterations, once where both are due; or after each epoch.
    assert logged(tmp_path / "precise") == (3 if by_epoch else 8)


def test_a_resumed_run_has_the_statistics_of_the_straight_one(tmp_path):
    straight = start(tmp_path / "a", "straight", hooks=[SEEDED, PRECISE], epochs=2).train()
    load = dict(load_from=str(tmp_path / "a" / "epoch_1.pth"), resume=True)
    resumed = start(tmp_path / "b", "resumed", hooks=[SEEDED, PRECISE], epochs=2, **load).train()
    torch.testing.assert_close(dict(resumed.state_dict()), dict(straight.state_dict()), rtol=0, atol=0)


def test_validation_outside_of_training_leaves_the_model_alone(tmp_path):
    run = start(tmp_path, "val", hooks=[PRECISE], val=True)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.val()
    torch.testing.assert_close(dict(run.model.state_dict()), before, rtol=0, atol=0)


def test_options_are_checked_when_the_hook_is_built(tmp_path):
    from mmengine.registry import HOOKS

    with pytest.raises(ValueError, match="num_batches is 0; it must be at least 1"):
        HOOKS.build(dict(PRECISE, num_batches=0))
    with pytest.raises(ValueError, match="num_workers is -1"):
        HOOKS.build(dict(PRECISE, num_workers=-1))


def test_the_batch_sampler_of_mmdet_is_kept():
    from mmdet.datasets.samplers import AspectRatioBatchSampler
    from mmengine.dataset import DefaultSampler
    from torch.utils.data import BatchSampler

    from cvplugins.openmmlab.hooks.precise_bn import _like

    sampler = DefaultSampler(Numbers(), seed=0)
    assert type(_like(AspectRatioBatchSampler(sampler, 2), sampler)) is AspectRatioBatchSampler
    assert type(_like(BatchSampler(sampler, 3, True), sampler)) is BatchSampler


def two(folder):
    wrapper = dict(type="cvplugins.SyncBatchNormDataParallel")
    run = start(
        folder, "two", hooks=[PRECISE], noise=0.0, epochs=1, launcher="pytorch", cfg=dict(model_wrapper_cfg=wrapper)
    )
    run.train()
    return {name: value.clone() for name, value in run.model.module.state_dict().items()}


@pytest.mark.distributed
def test_two_ranks_have_the_statistics_of_all_data(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    with tempfile.TemporaryDirectory() as folder:
        first, second = run_ranks(two, 2, folder)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    values = torch.arange(16.0) / 8
    torch.testing.assert_close(first["norm.running_mean"], values.mean().view(1))
    torch.testing.assert_close(first["norm.running_var"], values.var().view(1))
