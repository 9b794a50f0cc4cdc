"""Hard example mining in mmengine's two training loops; a few of the images are mislabelled."""

import json
from collections import Counter

import pytest
import torch
from helpers import run_ranks
from torch import nn

pytestmark = pytest.mark.openmmlab

SIZE, WRONG = 40, ("7.png", "19.png", "33.png")
MINING = dict(type="cvplugins.HardExampleMiningHook", capacity=4, rate=0.7)


def parts(wrong=WRONG, size=SIZE):
    """A dataset whose targets are the inputs, but for the wrong ones; and a model that could learn it."""
    from mmengine.hooks import Hook
    from mmengine.model import BaseModel
    from mmengine.structures import BaseDataElement
    from torch.utils.data import Dataset

    class Images(Dataset):
        def __len__(self):
            return size

        def get_data_info(self, index):
            return {"img_path": f"{index}.png", "width": 1 + 2 * (index % 2), "height": 2}

        def __getitem__(self, index):
            path = self.get_data_info(index)["img_path"]
            value = torch.tensor([index / size])
            sample = BaseDataElement(metainfo={"img_path": path})
            return {"inputs": value, "data_samples": sample, "target": value + 2.0 * (path in wrong)}

    class Model(BaseModel):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.last = nn.Linear(1, 1)

        def forward(self, inputs, data_samples, target, mode="tensor"):
            # 0.05 is what no model can learn of any image.
            return {"loss": (self.last(torch.stack(inputs)) - torch.stack(target)).square().mean() + 0.05}

    class Drawn(Hook):
        def __init__(self):
            self.batches = []

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            self.batches.append([sample.img_path for sample in data_batch["data_samples"]])

    return Images(), Model(), Drawn()


def train(folder, name, *, wrong=WRONG, iterations=None, epochs=None, sampler=None, loader=None, hook=None, **options):
    """Train; return the runner, its hook and the names of each batch."""
    from small_runner import runner

    dataset, model, drawn = parts(wrong)
    if iterations:
        plan = dict(by_epoch=False, max_iters=iterations)
        sampler = dict(type="cvplugins.InfiniteHardExampleSampler", ratio=0.25, **(sampler or {}))
        last = dict(type="CheckpointHook", by_epoch=False, interval=20)
    else:
        plan = dict(by_epoch=True, max_epochs=epochs)
        sampler = dict(type="cvplugins.HardExampleSampler", ratio=0.25, **(sampler or {}))
        last = dict(type="CheckpointHook", interval=1)
    run = runner(
        folder,
        name,
        model=model,
        dataset=dataset,
        hooks=[{**MINING, "interval": 20, **(hook or {})}, drawn],
        train_cfg=plan,
        default_hooks=dict(checkpoint=last),
        loader=dict(sampler=sampler, collate_fn=dict(type="pseudo_collate"), **(loader or {})),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.02)),
        **options,
    )
    run.train()
    mining = next(each for each in run.hooks if type(each).__name__ == "HardExampleMiningHook")
    return run, mining, drawn.batches


@pytest.mark.parametrize("loader", [dict(), dict(num_workers=2, persistent_workers=True)], ids=["0", "2"])
@pytest.mark.parametrize("plan", [dict(epochs=10), dict(iterations=240)], ids=["epochs", "iterations"])
def test_finds_the_wrong_labels_and_draws_them_at_the_ratio(tmp_path, request, plan, loader):
    run, mining, batches = train(tmp_path, request.node.name, loader=loader, **plan)
    (path,) = tmp_path.glob("*/hard_examples.json")
    found = json.loads(path.read_text())
    assert {each["img_path"] for each in found["images"]} >= set(WRONG)
    assert found["seen"] == SIZE
    assert found["images"][0]["hardness"] > 3
    assert found.get("epoch") == plan.get("epochs")
    assert found["iteration"] == run.max_iters
    last = Counter(name for batch in batches[-20:] for name in batch)  # 40 draws
    hard = {mining.monitor.names[index] for index in mining.sampler.plan.pools[max(mining.sampler.plan.pools) - 1]}
    assert sum(last[name] for name in hard) >= 10 - 2
    assert all(last[name] >= 2 for name in WRONG)
    assert len(batches) == run.max_iters
    if "epochs" in plan:
        assert len(batches) == 10 * SIZE / 2  # no more than without


@pytest.mark.parametrize("plan", [dict(epochs=10), dict(iterations=200)], ids=["epochs", "iterations"])
def test_without_hard_images_the_order_is_mmengines(tmp_path, request, plan):
    seed = dict(randomness=dict(seed=5))
    _, _, batches = train(
        tmp_path / "a", request.node.name + "a", wrong=(), hook=dict(min_hardness=100), **plan, **seed
    )
    from mmengine.dataset import DefaultSampler, InfiniteSampler

    dataset = range(SIZE)
    if "epochs" in plan:
        sampler, expected = DefaultSampler(dataset, seed=5), []
        for epoch in range(10):
            sampler.set_epoch(epoch)
            expected += list(sampler)
    else:
        expected = [index for index, _ in zip(iter(InfiniteSampler(dataset, seed=5)), range(400))]  # noqa: B905
    assert [name for batch in batches for name in batch] == [f"{index}.png" for index in expected]


@pytest.mark.parametrize(
    ("plan", "last", "seed", "workers"),
    [
        (dict(epochs=6), "epoch_3.pth", None, 0),
        (dict(epochs=4), "epoch_2.pth", 3, 2),
        (dict(iterations=120), "iter_60.pth", None, 2),
        (dict(iterations=120), "iter_80.pth", 3, 0),
    ],
)
def test_killed_and_resumed_equals_straight(tmp_path, request, plan, last, seed, workers):
    """Without a seed mmengine draws another one when it resumes."""
    options = dict(loader=dict(num_workers=workers), randomness=dict(seed=seed), **plan)
    _, mining, straight = train(tmp_path / "straight", request.node.name + "s", **options)
    start = tmp_path / "straight" / last
    _, again, resumed = train(
        tmp_path / "resumed", request.node.name + "r", load_from=str(start), resume=True, **options
    )
    assert resumed == straight[-len(resumed) :]
    assert len(resumed) in (60, 40)
    assert again.monitor.estimates.refresh() == mining.monitor.estimates.refresh()
    assert mining.sampler.plan.pools == again.sampler.plan.pools
    assert any(mining.sampler.plan.pools.values())


def test_resumes_within_an_interval(tmp_path, request):
    """The checkpoint falls between two pools: what was observed since the last one is in it."""
    options = dict(iterations=120, randomness=dict(seed=1), hook=dict(interval=30))
    _, mining, straight = train(tmp_path / "s", request.node.name + "s", **options)
    start = tmp_path / "s" / "iter_80.pth"
    _, again, resumed = train(tmp_path / "r", request.node.name + "r", load_from=str(start), resume=True, **options)
    assert resumed == straight[80:]
    assert again.monitor.estimates.refresh() == mining.monitor.estimates.refresh()


def test_weights_alone_bring_no_state(tmp_path, request):
    train(tmp_path / "a", request.node.name + "a", epochs=3)
    _, mining, _ = train(
        tmp_path / "b", request.node.name + "b", epochs=1, load_from=str(tmp_path / "a" / "epoch_3.pth")
    )
    assert mining.monitor.estimates.state_dict()["observations"] == 20


def test_works_with_a_batch_sampler_that_sorts(tmp_path, request):
    """mmdet's AspectRatioBatchSampler hides the sampler from the loader, and reorders."""
    loader = dict(batch_sampler=dict(type="mmdet.AspectRatioBatchSampler"), num_workers=1, persistent_workers=True)
    _, mining, batches = train(tmp_path, request.node.name, epochs=10, loader=loader)
    assert {mining.monitor.names[index] for index in mining.monitor.estimates.refresh().pool} >= set(WRONG)
    assert all(len({int(name.split(".")[0]) % 2 for name in batch}) == 1 for batch in batches[: SIZE // 2])


def train_on_ranks(folder):
    """Rank 1 sees every wrong label of the first epoch, or not; both have to agree."""
    torch.set_num_threads(1)
    _, mining, batches = train(folder, "ranks", epochs=8, randomness=dict(seed=1))
    names = [name for batch in batches[-10:] for name in batch]
    return mining.sampler.plan.pools, mining.monitor.estimates.refresh(), names


@pytest.mark.distributed
def test_two_ranks_agree_and_share_the_hard_images(tmp_path):
    (pools, report, first), (other_pools, other, second) = run_ranks(train_on_ranks, 2, str(tmp_path), timeout=120)
    assert pools == other_pools
    assert report == other
    wrong = {int(name.split(".")[0]) for name in WRONG}
    assert wrong <= set(report.pool)
    hard = {f"{index}.png" for index in pools[7]}
    for names in (first, second):
        assert len(names) == SIZE / 2
        assert sum(name in hard for name in names) >= 4  # a quarter of 20, but for rounding


def test_what_does_not_fit_is_said(tmp_path, request):
    from mmengine.registry import DATA_SAMPLERS, HOOKS
    from small_runner import runner

    with pytest.raises(ValueError, match=r"exact_interval is -1"):
        HOOKS.build(dict(MINING, exact_interval=-1))
    run = runner(tmp_path / "a", request.node.name + "a", hooks=[MINING])
    with pytest.raises(ValueError, match=r"is DefaultSampler.*set train_dataloader.sampler.type='cvplugins.HardEx"):
        run.train()
    loader = dict(sampler=dict(type="cvplugins.HardExampleSampler"))
    run = runner(tmp_path / "b", request.node.name + "b", hooks=[MINING], loader=loader)
    with pytest.raises(ValueError, match=r"Numbers.get_data_info does not give 'img_path'.*by key="):
        run.train()
    with pytest.raises(ValueError, match="interval is 3; it must be at least 4"):
        train(tmp_path, request.node.name + "c", iterations=9, hook=dict(interval=3), loader=dict(num_workers=2))
    with pytest.raises(ValueError, match="ratio is 2; it must be from 0 to 1"):
        DATA_SAMPLERS.build(dict(type="cvplugins.HardExampleSampler", dataset=range(3), ratio=2))
