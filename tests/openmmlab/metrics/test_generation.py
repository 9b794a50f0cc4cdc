"""FID and inception score as mmengine's evaluator calls them; the core is the oracle."""

import json

import numpy as np
import pytest
import torch
from helpers import run_ranks

pytestmark = pytest.mark.openmmlab

COUNT = 9


def numbers(index):
    generator = np.random.default_rng(index)
    fake, real = generator.normal(size=(2, 4)).astype(np.float32)
    return fake, generator.dirichlet(np.ones(3)), real + 1


def data_sample(index, named=True):
    from mmengine.structures import BaseDataElement

    fake, shares, real = (torch.from_numpy(each) for each in numbers(index))
    sample = BaseDataElement(metainfo=dict(img_path=f"{index}.png") if named else {})
    sample.output = BaseDataElement(fake_features=fake, fake_probabilities=shares)
    sample.gt_features = real
    return sample


def core_result(count=COUNT, splits=3):
    from cvplugins.metrics import GenerationMetric

    core = GenerationMetric(splits=splits)
    fake, shares, real = (np.stack(each) for each in zip(*map(numbers, range(count)), strict=True))
    core.update(range(count), fake, shares)
    core.update(range(count), real, real=True)
    return core


def keyed(result):
    return {f"generation/{name}": value for name, value in result.scalars().items()}


def evaluate(samples, size=None, batch=2, **options):
    from mmengine.evaluator import Evaluator
    from mmengine.logging import MMLogger

    MMLogger.get_instance("test")
    evaluator = Evaluator(dict(type="cvplugins.GenerationMetric", **{"splits": 3, **options}))
    for start in range(0, len(samples), batch):
        evaluator.process(samples[start : start + batch])
    return evaluator.evaluate(len(samples) if size is None else size), evaluator.metrics[0]


@pytest.mark.parametrize("batch", [1, 4, 9])
@pytest.mark.parametrize("named", [True, False])
def test_equals_the_core(batch, named, tmp_path):
    result = core_result().compute()
    found, metric = evaluate([data_sample(index, named) for index in range(COUNT)], batch=batch, out_dir=tmp_path)
    assert found == keyed(result)
    assert {"generation/FID", "generation/IS", "generation/IS_std"} == found.keys()
    written = json.loads(metric.written["results"].read_text())
    assert {key: written[key] for key in result.as_dict()} == result.as_dict()


def on_a_rank(kind):
    from cvplugins.distributed import rank

    shares = {"padded": (range(0, 10, 2), range(1, 10, 2)), "idle": (range(COUNT), ())}[kind]
    return evaluate([data_sample(index % COUNT) for index in shares[rank()]], COUNT)[0]


@pytest.mark.distributed
@pytest.mark.parametrize("kind", ["padded", "idle"])
def test_two_ranks_give_the_same(kind):
    assert run_ranks(on_a_rank, 2, kind) == [keyed(core_result().compute())] * 2


def test_statistics_of_real_images(tmp_path):
    core = core_result()
    core.statistics().save(tmp_path / "real.npz")
    samples = [data_sample(index) for index in range(COUNT)]
    for sample in samples:
        del sample.gt_features
    found = evaluate(samples, statistics=tmp_path / "real.npz")[0]
    assert found["generation/FID"] == pytest.approx(core.compute().scalars()["FID"], rel=1e-12)
    assert "generation/FID" not in evaluate(samples)[0]


@pytest.mark.slow
def test_images_go_through_inception(tmp_path):
    from mmengine.structures import BaseDataElement

    from cvplugins.metrics import GenerationMetric, InceptionFeatures

    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    torch.save(models.inception_v3(weights=None, init_weights=False).state_dict(), tmp_path / "inception.pth")
    network, core = InceptionFeatures(tmp_path / "inception.pth"), GenerationMetric(splits=1)
    samples = []
    for index in range(3):
        fake, real = torch.randint(0, 256, (2, 3, 40, 30), dtype=torch.uint8)
        samples.append(BaseDataElement(fake_img=fake, gt_img=real))
        for image, kind in ((fake, False), (real, True)):
            features, shares = network(image.flip(0), 255)
            core.update([index], features[None], None if kind else shares[None], real=kind)
    options = dict(weights=tmp_path / "inception.pth", splits=1, channel_order="bgr")
    assert evaluate(samples, **options)[0] == keyed(core.compute())
    samples[1].fake_img = samples[1].fake_img[:1]
    with pytest.raises(ValueError, match=r"image number 1 of this process: Inception needs an image of shape"):
        evaluate(samples, **options)


def test_wrong_samples_and_options_are_named(tmp_path):
    sample = data_sample(1)
    sample.output.fake_features[0] = torch.nan
    with pytest.raises(ValueError, match=r"generated image 1\.png: features hold a number that is not finite"):
        evaluate([sample])
    with pytest.raises(ValueError, match=r"inception\.pth: there is no such file"):
        evaluate([], weights=tmp_path / "inception.pth")
    with pytest.raises(ValueError, match=r"real\.npz: there is no such file"):
        evaluate([], statistics=tmp_path / "real.npz")
    for options, message in (
        (dict(channel_order="gbr"), "channel_order is 'gbr'"),
        (dict(data_range=0), "data_range is 0"),
        (dict(splits=0), "splits is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate([], **options)
