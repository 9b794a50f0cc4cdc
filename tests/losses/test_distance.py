"""Distance transforms against SciPy and a search over all pixels; signed maps against Kervadec's code."""

import copy
import itertools
import math
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import ndimage

from cvplugins.losses import DistanceCache, distance, distance_transform, signed_distance_maps


def nearest_false(mask, spacing):
    """The definition: of all elements that are False, the nearest one."""
    places = list(itertools.product(*map(range, mask.shape)))
    zeros = [place for place in places if not mask[place]]
    scaled = [[step * index for step, index in zip(spacing, place, strict=True)] for place in zeros]
    found = torch.full(mask.shape, math.inf)
    for place in places:
        here = [step * index for step, index in zip(spacing, place, strict=True)]
        found[place] = min((math.dist(here, there) for there in scaled), default=math.inf)
    return found


def one_false(*shape):
    mask = torch.ones(shape, dtype=torch.bool)
    mask[(slice(None), *[size // 3 for size in shape[1:]])] = False
    return mask


def some_false(*shape, share=0.1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) >= share


MASKS = {
    "random": some_false(3, 17, 23),
    "dense": some_false(3, 17, 23, share=0.7),
    "rare": some_false(3, 40, 50, share=0.002),
    "one_pixel": one_false(2, 9, 14),
    "one_row": some_false(2, 1, 30),
    "one_column": some_false(2, 30, 1),
    "all_false": torch.zeros(2, 5, 6, dtype=torch.bool),
    "single": torch.zeros(1, 1, 1, dtype=torch.bool),
    "volume": some_false(2, 6, 7, 9, share=0.02),
    "line": some_false(3, 25, share=0.3),
}


@pytest.mark.parametrize("at_once", [1, 200, 1 << 22])
@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_passes_along_axes_equal_scipy(mask, spaced, at_once, monkeypatch):
    """What runs on a GPU, here on the CPU, whole and in portions."""
    monkeypatch.setattr(distance, "VALUES_AT_ONCE", at_once)
    spacing = [0.7, 2.0, 1.3][: mask.ndim - 1] if spaced else [1.0] * (mask.ndim - 1)
    expected = [ndimage.distance_transform_edt(each, sampling=spacing) for each in mask.numpy()]
    expected = torch.from_numpy(np.stack(expected)).float()
    torch.testing.assert_close(distance._by_axes(mask, spacing)[0], expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(distance_transform(mask, spacing=spacing), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("transform", [distance_transform, lambda mask: distance._by_axes(mask, [1.0, 1.0])[0]])
def test_without_a_false_everything_is_infinitely_far(transform):
    mask = torch.ones(3, 4, 5, dtype=torch.bool)
    mask[1, 2, 2] = False
    found = transform(mask)
    assert found[[0, 2]].isinf().all()
    torch.testing.assert_close(found[1], nearest_false(mask[1], [1.0, 1.0]))


def test_equals_a_search():
    mask = some_false(1, 6, 5)
    torch.testing.assert_close(distance_transform(mask, spacing=0.5)[0], nearest_false(mask[0], [0.5, 0.5]))


@pytest.mark.parametrize("at_once", [1, 200, 1 << 22])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_nearest_false_is_as_far_as_the_distance(mask, at_once, monkeypatch):
    monkeypatch.setattr(distance, "VALUES_AT_ONCE", at_once)
    places = torch.from_numpy(np.stack(np.unravel_index(np.arange(mask[0].numel()), mask.shape[1:]), 1)).double()
    expected = distance_transform(mask).flatten(1).double()
    for found in (distance.nearest_false(mask), distance._by_axes(mask, [1.0] * (mask.ndim - 1))[1]):
        assert found.dtype == torch.int64
        flat = found.flatten(1)
        assert not mask.flatten(1).gather(1, flat).any()
        torch.testing.assert_close((places - places[flat]).norm(dim=2), expected)


def test_nearest_false_of_nothing_is_a_place_in_the_sample():
    mask = torch.ones(2, 4, 5, dtype=torch.bool)
    for found in (distance.nearest_false(mask), distance._by_axes(mask, [1.0, 1.0])[1]):
        assert found.min() >= 0
        assert found.max() < 20


@pytest.mark.gpu
def test_the_gpu_gives_the_same():
    for mask in MASKS.values():
        found = distance_transform(mask.cuda())
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), distance_transform(mask), rtol=1e-6, atol=0)


def test_any_memory_format_and_no_elements():
    mask = some_false(4, 5, 6).permute(2, 0, 1)
    torch.testing.assert_close(distance_transform(mask), distance_transform(mask.contiguous()))
    assert distance_transform(mask[:0]).shape == (0, 4, 5)
    assert distance_transform(mask[:, :0]).shape == (6, 0, 5)


def test_wrong_masks_are_named():
    with pytest.raises(TypeError, match=r"mask holds torch\.int64; a distance transform takes booleans"):
        distance_transform(torch.ones(1, 2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"spacing \[1, 2, 3\] does not fit mask \(1, 2, 2\)"):
        distance_transform(torch.ones(1, 2, 2, dtype=torch.bool), spacing=[1, 2, 3])
    with pytest.raises(ValueError, match=r"spacing 1.0 does not fit mask \(2,\)"):
        distance_transform(torch.ones(2, dtype=torch.bool))


def kervadecs(one_hot):
    """``one_hot2dist`` of LIVIAETS/boundary-loss."""
    maps = np.zeros(one_hot.shape)
    for index, inside in enumerate(one_hot):
        if inside.any():
            outside = ~inside
            maps[index] = (
                ndimage.distance_transform_edt(outside) * outside
                - (ndimage.distance_transform_edt(inside) - 1) * inside
            )
    return torch.from_numpy(maps).float()


def blobs(shape=(3, 20, 24), classes=4):
    """Labels with connected regions, as they are drawn."""
    noise = np.random.default_rng(0).standard_normal((classes, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 0, *[3] * (len(shape) - 1)))
    return torch.from_numpy(smooth.argmax(0))


@pytest.mark.parametrize("shape", [(3, 20, 24), (2, 8, 9, 10), (2, 1, 30)])
def test_signed_maps_equal_kervadecs(shape):
    target = blobs(shape)
    target[0][target[0] == 2] = 1  # one class is absent from the first sample
    assert target[0].unique().numel() > 1
    expected = torch.stack([kervadecs(np.stack([label == index for index in range(4)])) for label in target.numpy()])
    torch.testing.assert_close(signed_distance_maps(target, 4), expected)
    assert not signed_distance_maps(target, 4)[0, 2].any()


def test_a_class_that_fills_its_sample_has_no_boundary():
    target = torch.full((2, 4, 5), 1)
    target[1, :2] = 255
    assert not signed_distance_maps(target, 3).any()


def test_ignored_pixels_make_no_boundary():
    """Padding changes nothing, and through an ignored band distances reach to the other side."""
    target = blobs()
    padded = torch.full((3, 27, 30), 255)
    padded[:, 4:24, 5:29] = target
    maps = signed_distance_maps(padded, 4)
    torch.testing.assert_close(maps[:, :, 4:24, 5:29], signed_distance_maps(target, 4))
    maps[:, :, 4:24, 5:29] = 0
    assert not maps.any()
    band = torch.tensor([[0, 0, 255, 255, 1]])
    torch.testing.assert_close(signed_distance_maps(band, 2), torch.tensor([[[-3.0, -2, 0, 0, 3], [4, 3, 0, 0, -2]]]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_any_integers_and_any_ignore_index(dtype):
    target = blobs()
    expected = signed_distance_maps(target, 4)
    torch.testing.assert_close(signed_distance_maps(target.to(dtype), 4), expected)
    target[target == 0] = 255
    without = signed_distance_maps(target, 4, ignore_index=255)
    for ignore_index in (0, 4):
        renamed = target.masked_fill(target == 255, ignore_index).to(dtype)
        torch.testing.assert_close(signed_distance_maps(renamed, 4, ignore_index=ignore_index), without)


def test_threads_may_share_a_cache():
    """As the replicas of nn.DataParallel do; another label is pushed out between any two steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        cache, labels = DistanceCache(1), torch.eye(4, dtype=torch.int64).view(4, 1, 2, 2)
        with ThreadPoolExecutor(4) as threads:
            for regions in threads.map(lambda index: cache(labels[index % 4], 2, 255), range(2000)):
                assert len(regions.rows) == 2
    finally:
        sys.setswitchinterval(before)
    assert cache.hits + cache.misses == 2000


def test_cache_gives_the_same_and_stays_small():
    cache, target = DistanceCache(2), blobs()
    expected = signed_distance_maps(target, 4)
    for order in ([0, 1], [1, 0], [0, 1, 2], [2, 1, 0]):
        torch.testing.assert_close(signed_distance_maps(target[order], 4, cache=cache), expected[order])
    assert len(cache) == 2
    assert (cache.hits, cache.misses) == (6, 4)  # the third image pushed the first one out
    torch.testing.assert_close(signed_distance_maps(target[:0], 4, cache=cache), expected[:0])


def test_cache_drops_what_was_not_used_for_longest():
    cache, target = DistanceCache(2), blobs()
    for image in (0, 1, 0, 2, 0):  # 1 makes room for 2
        cache(target[[image]], 4, 255)
    assert (cache.hits, cache.misses) == (2, 3)


def test_an_ignored_class_does_not_occur():
    target = torch.tensor([[[0, 1, 3]]])
    assert distance.occurring(target, 3, ignore_index=0).tolist() == [[False, True, False]]


def test_cache_tells_apart_what_differs():
    cache, target = DistanceCache(9), blobs()[:1]
    for label, classes, ignore_index in itertools.product((target, target.flip(1)), (4, 5), (255, 3)):
        expected = signed_distance_maps(label, classes, ignore_index=ignore_index)
        found = signed_distance_maps(label, classes, ignore_index=ignore_index, cache=cache)
        torch.testing.assert_close(found, expected)
    square = torch.tensor([[[0, 1], [1, 0]]])
    for label in (square, square.view(1, 1, 4), square.view(1, 4, 1)):
        assert signed_distance_maps(label, 2, cache=cache).shape[2:] == label.shape[1:]
    assert cache.hits == 0


def test_copies_of_a_cache_are_empty():
    cache = DistanceCache(3)
    signed_distance_maps(blobs(), 4, cache=cache)
    for copied in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert (len(copied), copied.size) == (0, 3)
    with pytest.raises(ValueError, match="a cache for 0 images remembers nothing"):
        DistanceCache(0)
