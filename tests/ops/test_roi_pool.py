"""RoIPool against a loop over the pixels."""

import math

import pytest
import torch
from ops.cases_roi_align import ROIS

from cvplugins.ops import roi_pool as module
from cvplugins.ops.roi_pool import roi_pool, roi_pool_backward

SIZE = (3, 2)


def features(dtype=torch.float32):
    return torch.randn(2, 3, 10, 12, generator=torch.Generator().manual_seed(1)).to(dtype)


def regions(dtype=torch.float32):
    return torch.tensor(ROIS, dtype=dtype)


def loop_roi_pool(values, rois, output_size, spatial_scale):
    """Return maxima and indices, bin by bin, as in mmcv/ops/csrc/common/cuda/roi_pool_cuda_kernel.cuh."""
    height, width = values.shape[2:]
    maxima = torch.zeros(len(rois), values.shape[1], *output_size, dtype=values.dtype)
    indices = torch.full(maxima.shape, -1)
    for number, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (edge * spatial_scale for edge in (x1, y1, x2 + 1, y2 + 1))
        if x2 <= x1 or y2 <= y1:
            continue
        high, wide = (y2 - y1) / output_size[0], (x2 - x1) / output_size[1]
        for p in range(output_size[0]):
            for q in range(output_size[1]):
                rows = range(max(0, math.floor(p * high + y1)), min(height, math.ceil((p + 1) * high + y1)))
                columns = range(max(0, math.floor(q * wide + x1)), min(width, math.ceil((q + 1) * wide + x1)))
                for channel in range(values.shape[1]):
                    plane = values[int(image), channel]
                    pixels = [(row, column) for row in rows for column in columns]
                    if pixels:
                        row, column = max(pixels, key=lambda pixel: plane[pixel].item())
                        maxima[number, channel, p, q] = plane[row, column]
                        indices[number, channel, p, q] = row * width + column
    return maxima, indices


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("spatial_scale", [0.25, 0.3])
def test_maxima_equal_a_loop(dtype, spatial_scale):
    values = features(dtype).round(decimals=1)  # equal pixels, of which the first counts
    rois = regions(torch.float64).to(torch.float64 if dtype == torch.float64 else torch.float32)
    maxima, indices = roi_pool(values, rois, output_size=SIZE, spatial_scale=spatial_scale)
    expected, places = loop_roi_pool(values, rois, SIZE, spatial_scale)
    assert maxima.dtype == dtype
    assert indices.dtype == torch.int32
    assert torch.equal(maxima, expected)
    assert torch.equal(indices.long(), places)


def test_many_regions_equal_a_loop():
    generator = torch.Generator().manual_seed(3)
    corner, extent = torch.rand(60, 2, generator=generator) * 50 - 5, torch.rand(60, 2, generator=generator) * 30 - 2
    image = torch.randint(0, 2, (60, 1), generator=generator).float()
    rois = torch.cat([image, corner, corner + extent], 1)
    maxima, indices = roi_pool(features(), rois, output_size=SIZE, spatial_scale=0.25)
    expected, places = loop_roi_pool(features(), rois, SIZE, 0.25)
    assert (places == -1).any()
    assert torch.equal(maxima, expected)
    assert torch.equal(indices.long(), places)


def test_pieces_are_the_whole(monkeypatch):
    whole = roi_pool(features(), regions().repeat(4, 1), output_size=SIZE, spatial_scale=0.25)
    monkeypatch.setattr(module, "values_at_once", lambda values: 1)
    pieces = roi_pool(features(), regions().repeat(4, 1), output_size=SIZE, spatial_scale=0.25)
    assert all(torch.equal(piece, expected) for piece, expected in zip(pieces, whole, strict=True))


def test_the_gradient_goes_to_the_pixels_that_were_taken():
    rois = regions()
    _, indices = roi_pool(features(), rois, output_size=SIZE, spatial_scale=0.25)
    given = torch.randn(len(rois), 3, *SIZE)
    expected = torch.zeros(2, 3, 120)
    for place in (indices >= 0).nonzero().tolist():
        number, channel = place[:2]
        expected[int(rois[number, 0]), channel, indices[tuple(place)]] += given[tuple(place)]
    found = roi_pool_backward(given, rois, indices, (2, 3, 10, 12))
    torch.testing.assert_close(found, expected.reshape(2, 3, 10, 12))
    half = roi_pool_backward(given.bfloat16(), rois, indices, (2, 3, 10, 12))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), found, rtol=2e-2, atol=2e-2)


def test_a_region_that_ends_before_it_begins_is_nothing():
    rois = torch.tensor([[0.0, 8.0, 0.0, 4.0, 20.0]])
    maxima, indices = roi_pool(features().abs() + 1, rois, output_size=SIZE, spatial_scale=0.25)
    assert torch.equal(maxima, torch.zeros(1, 3, *SIZE))
    assert not roi_pool_backward(torch.ones(1, 3, *SIZE), rois, indices, (2, 3, 10, 12)).any()


def test_no_regions_and_memory_in_another_order():
    maxima, indices = roi_pool(features(), regions()[:0], output_size=SIZE, spatial_scale=0.25)
    assert maxima.shape == indices.shape == (0, 3, *SIZE)
    assert not roi_pool_backward(maxima, regions()[:0], indices, (2, 3, 10, 12)).any()
    apart = features().to(memory_format=torch.channels_last)
    found = roi_pool(apart, regions(), output_size=SIZE, spatial_scale=0.25)
    expected = roi_pool(features(), regions(), output_size=SIZE, spatial_scale=0.25)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
