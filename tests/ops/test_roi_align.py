"""RoIAlign against a loop over the samples; its gradients against the forward pass, which is linear."""

import math

import pytest
import torch
from ops.cases_roi_align import ROIS

from cvplugins.ops import roi_align as module
from cvplugins.ops.roi_align import RoIGrid, roi_align, roi_align_backward, roi_align_max, roi_align_max_backward

GRIDS = [RoIGrid(3, 2, 0.25, samples, aligned) for samples in (0, 2) for aligned in (True, False)]


def features(dtype=torch.float64, channels=3):
    return torch.randn(2, channels, 10, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)


def rois(dtype=torch.float64):
    return torch.tensor(ROIS, dtype=dtype)


def value_at(plane, y, x):
    """Return the bilinear value of a plane ``(H, W)``."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    low_y, low_x = int(y), int(x)
    total = 0.0
    for row in {low_y, min(low_y + 1, height - 1)}:
        for column in {low_x, min(low_x + 1, width - 1)}:
            total += plane[row][column].item() * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def loop_samples(region, grid):
    """Return the places ``(y, x)`` of the samples of each bin."""
    shift = 0.5 if grid.aligned else 0.0
    x1, y1, x2, y2 = (edge * grid.spatial_scale - shift for edge in region[1:].tolist())
    high, wide = y2 - y1, x2 - x1
    if not grid.aligned:
        high, wide = max(high, 1.0), max(wide, 1.0)
    high, wide = high / grid.height, wide / grid.width
    rows, columns = grid.sampling_ratio or math.ceil(high), grid.sampling_ratio or math.ceil(wide)
    return {
        (p, q): [
            (y1 + p * high + (i + 0.5) * high / rows, x1 + q * wide + (j + 0.5) * wide / columns)
            for i in range(rows)
            for j in range(columns)
        ]
        for p in range(grid.height)
        for q in range(grid.width)
    }


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_both_kinds_equal_a_loop_over_the_samples(grid):
    values, regions = features(), rois()
    average = roi_align(values, regions, grid)
    maxima, rows, columns = roi_align_max(values, regions, grid)
    for number, region in enumerate(regions):
        for (p, q), places in loop_samples(region, grid).items():
            for channel, plane in enumerate(values[int(region[0])]):
                samples = [value_at(plane, y, x) for y, x in places]
                here = (number, channel, p, q)
                assert average[here].item() == pytest.approx(sum(samples) / max(1, len(samples)), abs=1e-9)
                best = max(range(len(samples)), key=samples.__getitem__, default=None)
                assert maxima[here].item() == pytest.approx(-10000 if best is None else samples[best], abs=1e-9)
                place = (rows[here].item(), columns[here].item())
                assert place == pytest.approx((-1, -1) if best is None else places[best], abs=1e-9)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("backward", [roi_align_backward, module._backward_by_products])
def test_the_gradient_of_the_average_is_the_transpose_of_the_forward_pass(grid, backward):
    values, regions = features(), rois()
    given = torch.randn(len(regions), 3, 3, 2, dtype=torch.float64)
    forward = (roi_align(values, regions, grid) * given).sum()
    torch.testing.assert_close((values * backward(given, regions, values.shape, grid)).sum(), forward)
    other = features().flip(0)
    forward = (roi_align(other, regions, grid) * given).sum()
    torch.testing.assert_close((other * backward(given, regions, values.shape, grid)).sum(), forward)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_products_equal_the_kernel_in_float32(grid):
    regions, given = rois(torch.float32), torch.randn(len(ROIS), 3, 3, 2)
    kernel = roi_align_backward(given, regions, (2, 3, 10, 12), grid)
    torch.testing.assert_close(module._backward_by_products(given, regions, (2, 3, 10, 12), grid), kernel)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_products_of_half_precision_are_computed_in_float32(dtype, autocast):
    """Reference: the same numbers in float32, rounded once."""
    regions, given = rois(dtype), torch.randn(len(ROIS), 3, 3, 2).to(dtype)
    exact = module._backward_by_products(given.float(), regions.float(), (2, 3, 10, 12), GRIDS[0])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = module._backward_by_products(given, regions, (2, 3, 10, 12), GRIDS[0])
    assert found.dtype == dtype
    assert torch.equal(found, exact.to(dtype))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_gradient_of_the_maximum_is_that_of_its_samples(grid):
    torch.manual_seed(0)
    values, regions = features(), rois()
    values[0, 0, 0, 0] += 5
    given = torch.randn(len(regions), 3, 3, 2, dtype=torch.float64)

    def total(at):
        maxima, _, _ = roi_align_max(at, regions, grid)
        return (maxima * given).sum()

    _, rows, columns = roi_align_max(values, regions, grid)
    gradient = roi_align_max_backward(given, regions, rows, columns, values.shape)
    step = 1e-6 * torch.randn_like(values)  # so small that the same samples stay the greatest
    change = (total(values + step) - total(values - step)) / 2
    torch.testing.assert_close((gradient * step).sum(), change, rtol=1e-5, atol=1e-12)


def test_of_equal_samples_the_first_counts():
    _, rows, columns = roi_align_max(torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 4, 4]]), RoIGrid(1, 1))
    assert (rows.item(), columns.item()) == (0.0, 0.0)


def test_nan_is_no_maximum():
    values = torch.tensor([[[[math.nan, 1.0], [2.0, 0.0]]]])
    maxima, rows, columns = roi_align_max(values, torch.tensor([[0.0, 0, 0, 2, 2]]), RoIGrid(1, 1))
    # The other three samples lie on pixels; a share of 0 of the NaN would make them NaN too.
    assert (maxima.item(), rows.item(), columns.item()) == (2.0, 1.0, 0.0)


def test_pieces_are_the_whole(monkeypatch):
    regions = rois().repeat(4, 1)
    whole = roi_align_max(features(), regions, GRIDS[0])
    monkeypatch.setattr(module, "values_at_once", lambda values: 1)
    for piece, expected in zip(roi_align_max(features(), regions, GRIDS[0]), whole, strict=True):
        assert torch.equal(piece, expected)


@pytest.mark.parametrize("feature_type", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("roi_type", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_that_of_float32_rounded(feature_type, roi_type):
    values, regions, grid = features(feature_type), rois(roi_type)[:2].round(), RoIGrid(3, 2, 0.25, 2)
    average = roi_align(values, regions, grid)
    assert average.dtype == feature_type
    torch.testing.assert_close(average.float(), roi_align(values.float(), regions.float(), grid), rtol=2e-2, atol=2e-2)
    gradient = roi_align_backward(average, regions, values.shape, grid)
    assert gradient.dtype == feature_type
    expected = roi_align_backward(average.float(), regions.float(), values.shape, grid)
    torch.testing.assert_close(gradient.float(), expected, rtol=2e-2, atol=2e-2)
    maxima, rows, columns = roi_align_max(values, regions, grid)
    exact = [found.to(feature_type) for found in roi_align_max(values.float(), regions.float(), grid)]
    assert all(torch.equal(found, other) for found, other in zip((maxima, rows, columns), exact, strict=True))


def test_memory_in_another_order_changes_nothing():
    values, regions, grid = features(), rois(), GRIDS[0]
    apart = values.to(memory_format=torch.channels_last)
    assert torch.equal(roi_align(apart, regions, grid), roi_align(values, regions, grid))
    assert torch.equal(roi_align_max(apart, regions, grid)[0], roi_align_max(values, regions, grid)[0])
    given = torch.ones(1, 1, 1, 1, dtype=torch.float64).expand(len(regions), 3, 3, 2)
    expected = roi_align_backward(given.clone(), regions, values.shape, grid)
    assert torch.equal(roi_align_backward(given, regions, values.shape, grid), expected)


def test_no_regions():
    values, none, grid = features(), rois()[:0], GRIDS[0]
    assert roi_align(values, none, grid).shape == (0, 3, 3, 2)
    maxima, rows, columns = roi_align_max(values, none, grid)
    assert maxima.shape == rows.shape == columns.shape == (0, 3, 3, 2)
    zero = torch.zeros(values.shape, dtype=torch.float64)
    assert torch.equal(roi_align_backward(maxima, none, values.shape, grid), zero)
    assert torch.equal(roi_align_max_backward(maxima, none, rows, columns, values.shape), zero)
