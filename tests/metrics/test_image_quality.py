"""Image quality against scikit-image, formulas by loop in float64, and the SSIM losses."""

import itertools
import json
import math
import pickle

import numpy as np
import pytest
import torch
from helpers import run_ranks

from cvplugins.losses import ms_ssim_loss, ssim_loss
from cvplugins.metrics import ImageQualityMetric
from cvplugins.metrics.image_similarity import (
    luminance,
    mean_absolute_error,
    mean_squared_error,
    multi_scale_structural_similarity,
    peak_signal_noise_ratio,
    structural_similarity,
)

ALL = ("MSE", "MAE", "PSNR", "SSIM", "MS-SSIM")
SHAPES = [(1, 11, 11), (3, 12, 40), (1, 26, 27), (2, 75, 74), (1, 11, 300), (3, 100, 13)]


def pair(seed=0, shape=(3, 40, 50), noise=12.0, dtype=np.uint8):
    """A smooth image with edges and its noisy copy, 0 to 255."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (shape[0], *(-(-side // 8) for side in shape[1:])))
    target = np.kron(coarse, np.ones((8, 8)))[:, : shape[1], : shape[2]]
    image = np.clip(target + generator.normal(0, noise, shape), 0, 255)
    return (image.round() if np.dtype(dtype).kind == "u" else image).astype(dtype), target.astype(dtype)


def pairs(count=7):
    return [(f"{index}.png", *pair(index, (3, 30 + index, 41))) for index in range(count)]


def evaluate(images, **options):
    metric = ImageQualityMetric(**{"data_range": 255, **options})
    for image in images:
        metric.update(*image)
    return metric.compute()


def similarity_by_loop(image, target, data_range, contrast_only=False, window=11, sigma=1.5):
    """The formulas of the paper, a window at a time."""
    place = np.arange(window) - window // 2
    weights = np.exp(-(place[:, None] ** 2 + place**2) / (2 * sigma**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    found = []
    for x, y in zip(image.astype(np.float64), target.astype(np.float64), strict=True):
        for top, left in itertools.product(*(range(side - window + 1) for side in x.shape)):
            p, q = (each[top : top + window, left : left + window] for each in (x, y))
            mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
            var_p, var_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
            covariance = (weights * (p - mean_p) * (q - mean_q)).sum()
            similarity = (2 * covariance + c2) / (var_p + var_q + c2)
            if not contrast_only:
                similarity *= (2 * mean_p * mean_q + c1) / (mean_p**2 + mean_q**2 + c1)
            found.append(similarity)
    return np.mean(found)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, np.int32])
def test_errors_equal_their_definitions(shape, dtype):
    image, target = pair(1, shape, dtype=dtype)
    difference = image.astype(np.float64) - target
    tolerance = 0 if np.dtype(dtype).kind in "iu" else 1e-6
    for crop in (slice(None), slice(1, -1)):
        one, other, exact = image[:, crop], target[:, crop], difference[:, crop]
        np.testing.assert_allclose(mean_squared_error(one, other), (exact**2).mean(), rtol=tolerance)
        np.testing.assert_allclose(mean_absolute_error(one, other), np.abs(exact).mean(), rtol=tolerance)


def test_errors_of_8_bits_are_exact_at_any_size():
    """In float32, a sum of 3 million squares would be off by thousandths."""
    generator = np.random.default_rng(0)
    image, target = generator.choice(np.array([0, 1, 254, 255], np.uint8), (2, 3, 1009, 1013))
    difference = image.astype(np.int64) - target
    assert mean_squared_error(image, target) == (difference**2).sum() / image.size
    assert mean_absolute_error(image, target) == np.abs(difference).sum() / image.size
    ones = np.full((1, 700, 700), 255, np.uint8)
    assert mean_squared_error(ones, 0 * ones) == 255**2


def test_psnr_of_formulas():
    assert peak_signal_noise_ratio(1.0, 255) == pytest.approx(20 * math.log10(255), abs=1e-12)
    assert peak_signal_noise_ratio(0.0, 255) == math.inf


@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_equals_a_loop(shape):
    image, target = pair(2, shape)
    expected = similarity_by_loop(image, target, 255)
    assert structural_similarity(image, target, 255) == pytest.approx(expected, abs=1e-6)
    assert structural_similarity(image * 1.0, target * 1.0, 255) == pytest.approx(expected, abs=1e-13)
    scaled = (each.astype(np.float32) / 255 * 2 - 1 for each in (image, target))
    shifted = similarity_by_loop(*(each / 255 * 2 - 1 for each in (image, target)), 2)
    assert structural_similarity(*scaled, 2) == pytest.approx(shifted, abs=1e-6)


def hard_pairs():
    """Images that rounding hurts most: saturated, dark, shifted, with negative similarity."""
    generator = np.random.default_rng(0)
    row, column = np.mgrid[:120, :130]
    halves, noise = np.where(column < 60, 0, 255), generator.integers(0, 4, row.shape)
    found = {
        "saturated": (np.full(row.shape, 255), 255 - noise // 2),
        "dark": (0 * row, noise // 2),
        "halves": (halves, np.abs(halves - noise)),
        "shifted": (np.full(row.shape, 10), np.full(row.shape, 250)),
        "gradients": (column, (row + column) // 2),
        "opposite": ((row + column) % 2 * 255, (row + column + 1) % 2 * 255),
    }
    return {name: tuple(each.astype(np.uint8)[None] for each in images) for name, images in found.items()}


@pytest.mark.parametrize("name", hard_pairs())
def test_ssim_of_hard_images(name):
    image, target = hard_pairs()[name]
    expected = similarity_by_loop(image, target, 255)
    assert structural_similarity(image, target, 255) == pytest.approx(expected, abs=1e-6)
    assert structural_similarity(image * 1.0, target * 1.0, 255) == pytest.approx(expected, abs=1e-11)
    assert structural_similarity(image, image, 255) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 64, 50), (3, 200, 181)])
def test_scikit_image_agrees(dtype, shape):
    peer = pytest.importorskip("skimage.metrics")
    for seed in range(3):
        image, target = pair(seed, shape, dtype=dtype)
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0}
        expected = peer.structural_similarity(target, image, data_range=255, **options)
        found = evaluate([("a", image, target)]).scalars()
        assert found["SSIM"] == pytest.approx(expected, abs=1e-12 if dtype is np.float64 else 1e-6)
        assert found["MSE"] == pytest.approx(peer.mean_squared_error(target, image), rel=1e-6)
        assert found["PSNR"] == pytest.approx(peer.peak_signal_noise_ratio(target, image, data_range=255), abs=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_agree(dtype):
    image, target = pair(3, (3, 181, 190), dtype=dtype)
    tensors = [torch.from_numpy(each)[None].double() for each in (image, target)]
    tolerance = 1e-12 if dtype is np.float64 else 1e-6
    found = structural_similarity(image, target, 255)
    assert found == pytest.approx(1 - ssim_loss(*tensors, value_range=255).item(), abs=tolerance)
    found = multi_scale_structural_similarity(image, target, 255)
    assert found == pytest.approx(1 - ms_ssim_loss(*tensors, value_range=255).item(), abs=tolerance)


def test_ms_ssim_equals_a_loop():
    image, target = pair(4, (2, 45, 47), dtype=np.float64)
    weights, products = (0.2, 0.3, 0.5), np.ones(2)
    planes = [image, target]
    for scale, weight in enumerate(weights):
        for channel in range(2):
            one, other = (each[channel : channel + 1] for each in planes)
            products[channel] *= similarity_by_loop(one, other, 255, contrast_only=scale < 2) ** weight
        cut = [each[:, : each.shape[1] // 2 * 2, : each.shape[2] // 2 * 2] for each in planes]
        planes = [each.reshape(2, each.shape[1] // 2, 2, -1, 2).mean((2, 4)) for each in cut]
    found = multi_scale_structural_similarity(image, target, 255, scale_weights=weights)
    assert found == pytest.approx(products.mean(), abs=1e-13)


def test_a_negative_scale_makes_ms_ssim_zero():
    image, target = hard_pairs()["opposite"]
    assert multi_scale_structural_similarity(image, target, 255, scale_weights=[0.5, 0.5]) == 0


def test_luminance_is_that_of_bt601():
    """By MATLAB's documentation: black 16, white 235, and the weights of the three channels."""
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    expected = [16, 235, 81.481, 144.553, 40.966]
    np.testing.assert_allclose(luminance(colours.T[..., None], "rgb", 255)[0, :, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(luminance(colours[:, ::-1].T[..., None], "bgr", 255)[0, :, 0], expected, rtol=1e-6)
    small = luminance(colours.T[..., None] / 255, "rgb", 1.0)
    np.testing.assert_allclose(255 * small[0, :, 0], expected, rtol=1e-14)


@pytest.mark.openmmlab
def test_luminance_of_mmcv():
    mmcv = pytest.importorskip("mmcv")
    image = pair(5)[0]
    expected = mmcv.bgr2ycbcr(image.transpose(1, 2, 0).astype(np.float32) / 255, y_only=True) * 255
    np.testing.assert_allclose(luminance(image, "bgr", 255)[0], expected, rtol=1e-5)


def test_options_select_what_is_compared():
    image, target = pair(6, (3, 60, 70))
    cut = slice(None), slice(4, -4), slice(4, -4)
    plain = evaluate([("a", image[cut], target[cut])])
    cropped = evaluate([("a", image, target)], crop_border=4)
    np.testing.assert_array_equal(cropped.values, plain.values)
    turned = evaluate([("a", *(each.transpose(1, 2, 0) for each in (image, target)))], layout="HWC", crop_border=4)
    np.testing.assert_array_equal(turned.values, plain.values)
    grey = evaluate([("a", luminance(image, "rgb", 255)[0], luminance(target, "rgb", 255)[0])], layout="HW")
    bright = evaluate([("a", image, target)], luminance="rgb")
    np.testing.assert_array_equal(bright.values, grey.values)
    some = evaluate([("a", image[cut], target[cut])], measures=["SSIM", "MSE"])
    np.testing.assert_array_equal(some.values, plain.values[:, [3, 0]])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_are_taken_as_they_come(dtype):
    image, target = (torch.from_numpy(each).to(dtype) for each in pair(7))
    arrays = [each.float().numpy().astype(np.float64) for each in (image, target)]
    found, expected = evaluate([("a", image, target)]), evaluate([("a", *arrays)])
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-6)
    assert found.values.dtype == np.float64
    mixed = evaluate([("a", image, target.double())])
    np.testing.assert_allclose(mixed.values, expected.values, rtol=1e-12)


@pytest.mark.gpu
def test_images_on_a_gpu():
    image, target = (torch.from_numpy(each) for each in pair(7))
    expected = evaluate([("a", image, target)]).values
    np.testing.assert_array_equal(evaluate([("a", image.cuda(), target.cuda())]).values, expected)


def test_equal_images():
    image = pair(8)[1]
    first = pairs(1)[0]
    result = evaluate([first, ("same", image, image)])
    assert result.values[1].tolist() == [0, 0, math.inf, 1]
    assert result.scalars()["PSNR"] == math.inf
    assert result.as_dict()["mean"]["PSNR"] == "inf"
    json.dumps(result.as_dict(), allow_nan=False)
    alone = evaluate([first]).scalars()["PSNR"]
    assert evaluate([first, ("same", image, image)], psnr_of_equal=math.nan).scalars()["PSNR"] == alone
    found = evaluate([first, ("same", image, image)], psnr_of_equal=100).scalars()["PSNR"]
    assert found == math.fsum([alone, 100]) / 2
    assert "PSNR" not in evaluate([("same", image, image)], psnr_of_equal=math.nan).scalars()


def test_psnr_is_the_mean_over_images():
    result = evaluate(pairs())
    each = [10 * math.log10(255**2 / mean_squared_error(*images)) for _, *images in pairs()]
    assert result.scalars()["PSNR"] == pytest.approx(np.mean(each), rel=1e-14)
    assert result.scalars()["PSNR"] != pytest.approx(10 * math.log10(255**2 / result.scalars()["MSE"]), rel=1e-6)


def test_order_and_split_do_not_matter():
    images = pairs(20)
    expected = evaluate(images).as_dict()
    for seed in range(5):
        generator = np.random.default_rng(seed)
        parts = [ImageQualityMetric(data_range=255, psnr_of_equal=math.inf) for _ in range(4)]  # one stays empty
        for index in generator.permutation(len(images)):
            parts[generator.integers(3)].update(*images[index])
        merged = parts.pop(generator.integers(4))
        for part in parts:
            merged.merge(pickle.loads(pickle.dumps(part)))
        assert merged.compute().as_dict() == expected


def metric_on_a_rank(share):
    from cvplugins.distributed import gather_objects, rank

    metric = ImageQualityMetric(data_range=255)
    for image in share[rank()]:
        metric.update(*image)
    parts = gather_objects(list(metric.images.values()))
    merged = ImageQualityMetric(data_range=255)
    for image in itertools.chain.from_iterable(parts):
        merged.add(image)
    return merged.compute().as_dict()


@pytest.mark.distributed
@pytest.mark.parametrize("uneven", [5, 0], ids=["uneven", "idle"])
def test_two_ranks_give_the_same(uneven):
    images = pairs()
    found = run_ranks(metric_on_a_rank, 2, [images[uneven:], images[:uneven]])
    assert found[0] == found[1] == evaluate(images).as_dict()


def test_worst_images_come_first():
    image = pair(9)[1]
    generator = np.random.default_rng(0)
    noisy = [
        (name, image + generator.normal(0, level, image.shape), image)
        for name, level in zip("abc", (5, 20, 10), strict=True)
    ]
    result = evaluate(noisy)
    for measure in result.measures:
        assert [result.image_ids[index] for index in result.worst(measure)] == ["b", "c", "a"]


def test_nothing_seen():
    result = evaluate([])
    assert result.scalars() == {}
    assert result.as_dict()["num_images"] == 0


def changed(value):
    image, target = pair(0, dtype=np.float32)
    image[1, 2, 3] = value
    return image, target


@pytest.mark.parametrize(
    ("options", "images", "message"),
    [
        ({}, changed(np.nan), "image a.png: a value of the image or of its target is NaN or infinite"),
        ({}, changed(np.inf), "image a.png: a value of the image or of its target is NaN or infinite"),
        ({}, changed(np.nan)[::-1], "image a.png: .* NaN"),
        ({}, (np.zeros((3, 20, 20)), np.zeros((3, 20, 21))), r"shape \(3, 20, 20\), but its target \(3, 20, 21\)"),
        ({}, (np.zeros((20, 20)),) * 2, r"image a.png: it has shape \(20, 20\); layout 'CHW' has 3 dimensions"),
        ({}, (np.zeros((3, 20, 10)),) * 2, "image a.png: a window of 11 pixels does not fit into an image of 20 x 10"),
        ({"measures": ALL}, (np.zeros((3, 175, 200)),) * 2, "at scale 5: both sides have to be at least 176"),
        ({"crop_border": 10}, (np.zeros((3, 20, 40)),) * 2, "nothing is left .* without borders of 10 pixels"),
        ({"crop_border": 30}, (np.zeros((3, 40, 40)),) * 2, "nothing is left .* without borders of 30 pixels"),
        ({}, (np.zeros((3, 0, 40)),) * 2, "image a.png: nothing is left"),
        ({"luminance": "rgb"}, (np.zeros((1, 40, 40)),) * 2, "luminance needs 3 channels, not 1"),
        ({"data_range": 1}, pair(0), "it holds uint8, and differs from its target by more than data_range=1"),
    ],
)
def test_wrong_images_are_named(options, images, message):
    with pytest.raises(ValueError, match=message):
        evaluate([("a.png", *images)], **options)


def test_a_wild_prediction_is_no_error():
    image, target = pair(0, dtype=np.float32)
    assert evaluate([("a", image * 1000, target)]).scalars()["PSNR"] < 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_range": 0}, "data_range is 0; give"),
        ({"data_range": math.nan}, "data_range is nan"),
        ({"measures": ["LPIPS"]}, r"measures are \('LPIPS',\); give some of MSE, MAE"),
        ({"measures": []}, "measures are"),
        ({"layout": "CWH"}, "layout is 'CWH'; there are: CHW, HWC, HW"),
        ({"crop_border": -1}, "crop_border is -1"),
        ({"luminance": "y"}, "luminance is 'y'; give the order"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate([], **options)


def test_images_count_once_and_metrics_have_to_fit():
    images = pairs(2)
    with pytest.raises(ValueError, match=r"image 0\.png was added twice"):
        evaluate([images[0], images[0]])
    one, other = ImageQualityMetric(255), ImageQualityMetric(1)
    with pytest.raises(ValueError, match="cannot merge metrics of different measures or options"):
        one.merge(other)
    one, other = (ImageQualityMetric(255, psnr_of_equal=math.nan) for _ in range(2))
    other.update(*images[0])
    one.merge(other)
    assert len(one.compute().image_ids) == 1
