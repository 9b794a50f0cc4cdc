"""RoIAlign: averages and maxima, both alignments, given and adaptive samples, regions in and out of the map."""

from __future__ import annotations

import numpy as np
from ops.cases import Case

ROIS = [
    [0, 2.0, 3.0, 40.0, 30.5],
    [1, -9.0, -7.0, 21.0, 60.0],  # partly outside
    [0, 10.0, 10.0, 10.0, 10.0],  # without an area
    [1, 0.0, 0.0, 47.0, 39.0],  # the whole image
    [0, 100.0, 100.0, 120.0, 110.0],  # outside
    [1, 20.3, 11.7, 23.1, 37.9],  # narrow
]


def inputs(dtype: str, rois: list[list[float]], seed: int = 1) -> dict[str, np.ndarray]:
    """Return features of an image of 40 x 48 pixels at a quarter of its size, and regions."""
    features = np.random.RandomState(seed).randn(2, 3, 10, 12).astype(dtype)
    return {"features": features, "rois": np.array(rois, dtype=dtype).reshape(-1, 5)}


def call_roi_align(**options):
    def call(features, rois):
        from mmcv.ops import RoIAlign

        return RoIAlign(spatial_scale=0.25, **options)(features, rois)

    return call


def case(name: str, arrays: dict[str, np.ndarray], rtol: float = 1e-5, atol: float = 1e-6, **options) -> Case:
    return Case("roi_align", name, arrays, call_roi_align(**options), ("features",), rtol, atol)


CASES = [
    case(
        f"{mode}_{samples}_{'aligned' if aligned else 'legacy'}_{dtype}",
        inputs(dtype, ROIS),
        output_size=(3, 2),
        sampling_ratio=samples,
        pool_mode=mode,
        aligned=aligned,
    )
    for mode in ("avg", "max")
    for samples in (0, 2)
    for aligned in (True, False)
    for dtype in ("float32", "float64")
]
CASES += [
    case(f"{mode}_without_regions", inputs("float32", []), output_size=2, pool_mode=mode) for mode in ("avg", "max")
]
# The compiled operator rounds each step to half precision.
CASES += [
    case(f"{mode}_float16", inputs("float16", ROIS[:2]), 2e-2, 2e-2, output_size=3, sampling_ratio=2, pool_mode=mode)
    for mode in ("avg", "max")
]
