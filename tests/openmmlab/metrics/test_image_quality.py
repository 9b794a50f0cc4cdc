"""Image quality as mmengine's evaluator calls it, on samples like mmagic's; the core is the oracle."""

import json
import math

import pytest
import torch
from helpers import run_ranks

pytestmark = pytest.mark.openmmlab

COUNT = 7


def images(index):
    generator = torch.Generator().manual_seed(index)
    target = torch.randint(0, 256, (3, 20, 24 + index % 3), generator=generator).float()
    return (target + 20 * torch.randn(target.shape, generator=generator)).clamp(0, 255), target


def data_sample(index, named=True, nested=False):
    """A sample with tensors, or with a nested sample of pixel data, as mmagic's models have given them."""
    from mmengine.structures import BaseDataElement, PixelData

    image, target = images(index)
    sample = BaseDataElement(metainfo=dict(gt_path=f"{index}.png") if named else {})
    if nested:
        sample.output = BaseDataElement(pred_img=PixelData(data=image))
        sample.gt_img = PixelData(data=target)
    else:
        sample.pred_img, sample.gt_img = image, target
    return sample


def expected(count=COUNT, **options):
    from cvplugins.metrics import ImageQualityMetric

    core = ImageQualityMetric(255, **options)
    for index in range(count):
        core.update(index, *images(index))
    return {f"image/{name}": value for name, value in core.compute().scalars().items()}


def evaluate(samples, size=None, batch=3, **options):
    from mmengine.evaluator import Evaluator
    from mmengine.logging import MMLogger

    MMLogger.get_instance("test")
    evaluator = Evaluator(dict(type="cvplugins.ImageQualityMetric", **{"data_range": 255, **options}))
    for start in range(0, len(samples), batch):
        evaluator.process(samples[start : start + batch])
    return evaluator.evaluate(len(samples) if size is None else size), evaluator.metrics[0]


@pytest.mark.parametrize("batch", [1, 3, 7])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_equals_the_core(batch, named, nested):
    samples = [data_sample(index, named, nested) for index in range(COUNT)]
    assert evaluate(samples, batch=batch)[0] == expected()


def test_options_and_keys():
    samples = [data_sample(index) for index in range(COUNT)]
    for sample in samples:
        sample.ema = type(sample)(fake_img=sample.pop("pred_img"))
    options = dict(measures=["PSNR"], crop_border=2, luminance="bgr")
    assert evaluate(samples, pred_key="ema.fake_img", **options)[0] == expected(**options)


def on_a_rank(kind, named):
    from cvplugins.distributed import rank

    shares = {"padded": (range(0, 8, 2), range(1, 8, 2)), "idle": (range(COUNT), ())}[kind]
    return evaluate([data_sample(index % COUNT, named) for index in shares[rank()]], COUNT)[0]


@pytest.mark.distributed
@pytest.mark.parametrize(("kind", "named"), [("padded", True), ("padded", False), ("idle", True)])
def test_two_ranks_give_the_same(kind, named):
    assert run_ranks(on_a_rank, 2, kind, named) == [expected()] * 2


def test_files(tmp_path):
    samples = [data_sample(index) for index in range(COUNT)]
    samples[2].pred_img = samples[2].gt_img
    found, metric = evaluate(samples, out_dir=tmp_path, prefix="restored")
    assert found["restored/PSNR"] == math.inf
    written = json.loads(metric.written["results"].read_text())
    assert written["mean"]["PSNR"] == "inf"
    assert written["mean"]["SSIM"] == found["restored/SSIM"]
    assert written["settings"]["data_range"] == 255
    assert list(written["per_image"]) == [f"{index}.png" for index in range(COUNT)]
    names = ["restored_figure.png", "restored_figure.svg", "restored_results.json"]
    assert sorted(each.name for each in tmp_path.iterdir()) == names


def test_wrong_samples_are_named():
    samples = [data_sample(index) for index in range(2)]
    samples[1].pred_img[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"image 1\.png: a value .* NaN"):
        evaluate(samples)
    del samples[1].pred_img
    with pytest.raises(ValueError, match=r"image 1\.png: its data sample has no 'pred_img'; it has gt_img, gt_path"):
        evaluate(samples)
    samples = [data_sample(index, named=False) for index in range(2)]
    samples[1].gt_img = samples[1].gt_img[:, 1:]
    with pytest.raises(ValueError, match=r"image number 1 of this process: the image has shape \(3, 20, 25\), but its"):
        evaluate(samples)
    with pytest.raises(ValueError, match=r"image 0\.png was added twice"):
        evaluate([data_sample(0), data_sample(0)])
    with pytest.raises(ValueError, match="layout is 'CWH'"):
        evaluate([], layout="CWH")
