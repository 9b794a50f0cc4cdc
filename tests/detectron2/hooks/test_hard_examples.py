"""Hard example mining; a few of the images are mislabelled."""

import itertools
import json
from collections import Counter

import pytest
import torch
from small_detectron2_trainer import train
from torch import nn

pytestmark = pytest.mark.detectron2

SIZE, WRONG = 40, ("7.png", "19.png", "33.png")


class Model(nn.Module):
    """It could learn that targets are inputs, but for the wrong ones."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(1, 1)

    def forward(self, batch):
        inputs, targets = (torch.tensor([[record[key]] for record in batch]) for key in ("x", "y"))
        # 0.05 is what no model can learn of any image.
        return {
            "loss_size": (self.last(inputs) - targets).square().mean(),
            "loss_rest": self.last.bias.sum() * 0 + 0.05,
        }


class Loader:
    """What the hook needs of CvpluginsTrainer's loader: batches of a sampler's indices, from any of them on."""

    def __init__(self, num_workers=0):
        from detectron2.data import DatasetFromList, MapDataset
        from detectron2.data.samplers import TrainingSampler

        records = [
            {"file_name": f"{i}.png", "x": i / SIZE, "y": i / SIZE + 2.0 * (f"{i}.png" in WRONG)} for i in range(SIZE)
        ]
        self.images = MapDataset(DatasetFromList(records), dict)
        self.sampler = TrainingSampler(SIZE, seed=3)
        self.batch_size, self.num_workers, self.seed, self.start = 2, num_workers, 3, 0
        self.drawn = []

    def __iter__(self):
        indices = iter(self.sampler)
        for number in itertools.count():
            batch = [self.images[index] for index in itertools.islice(indices, self.batch_size)]
            if number >= self.start:
                self.drawn.append([record["file_name"] for record in batch])
                yield batch


def mine(folder, iterations, resume=False, loader=None, **options):
    from cvplugins.detectron2 import HardExampleMiningHook

    options = {"capacity": 4, "rate": 0.7, "interval": 20, **options}
    loader, hook = loader or Loader(), HardExampleMiningHook(output_dir=str(folder), **options)

    def optimizer(model):
        return torch.optim.SGD(model.parameters(), lr=0.02)

    train(
        folder,
        [hook],
        iterations=iterations,
        resume=resume,
        data=loader,
        model=Model(),
        optimizer=optimizer,
        eval_period=0,
        checkpoint_period=30,
    )
    return loader.drawn, hook


def test_it_finds_the_wrong_labels_and_draws_them_at_the_ratio(tmp_path):
    batches, _ = mine(tmp_path, 240)
    found = json.loads((tmp_path / "hard_examples.json").read_text())
    assert {each["file_name"] for each in found["images"]} >= set(WRONG)
    assert (found["iteration"], found["seen"]) == (240, SIZE)
    last = Counter(name for batch in batches[-20:] for name in batch)  # 40 draws, a quarter of them hard
    assert sum(last[each["file_name"]] for each in found["images"]) >= 10 - 2
    assert all(last[name] >= 2 for name in WRONG)


def test_without_a_ratio_the_order_is_the_samplers(tmp_path):
    batches, hook = mine(tmp_path, 60, ratio=0.0)
    plain = [each for _, each in zip(range(60), Loader(), strict=False)]
    assert batches == [[record["file_name"] for record in batch] for batch in plain]
    assert hook.plan.pools.keys() == {2, 3, 4}


def test_a_resumed_run_draws_as_a_straight_one(tmp_path):
    straight, first = mine(tmp_path / "straight", 120, min_hardness=0.0)
    mine(tmp_path / "resumed", 90, min_hardness=0.0)
    resumed, second = mine(tmp_path / "resumed", 120, resume=True, min_hardness=0.0)
    assert resumed == straight[90:]
    assert first.plan.pools == second.plan.pools
    assert any(first.plan.pools.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loader": [[]]}, "list gives its sampler away; train with CvpluginsTrainer"),
        ({"loader": Loader, "interval": 9}, "interval is 9; it must be at least 10, the iterations"),
        ({"loss": "loss_cls"}, "the model has no loss 'loss_cls'; it has loss, loss_rest, loss_size"),
    ],
)
def test_mistakes(tmp_path, options, message):
    from cvplugins.errors import UserError

    if options.get("loader") is Loader:
        options = {**options, "loader": Loader(num_workers=4)}
    with pytest.raises(UserError, match=message):
        mine(tmp_path, 20, **options)
