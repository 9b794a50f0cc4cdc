"""Masks of point-wise spatial attention: windows larger and smaller than the map, and of even size."""

from __future__ import annotations

import numpy as np
from ops.cases import Case

# name: batch, map, window
SIZES = {
    "covering": (2, (2, 3), (3, 5)),
    "larger": (1, (2, 3), (7, 9)),
    "smaller": (2, (4, 3), (3, 1)),
    "even": (1, (3, 4), (4, 2)),
    "no_image": (0, (2, 2), (3, 3)),
}


def mask_of(size: str, dtype: type = np.float32) -> np.ndarray:
    batch, map_size, window = SIZES[size]
    return np.random.RandomState(len(size)).randn(batch, window[0] * window[1], *map_size).astype(dtype)


def mmcv_psa_mask(kind, window):
    def call(input):
        from mmcv.ops import PSAMask

        return PSAMask(kind, window)(input)

    return call


CASES = [
    Case(
        "psa_mask",
        f"{kind}_{size}_{np.dtype(dtype).name}",
        {"input": mask_of(size, dtype)},
        mmcv_psa_mask(kind, SIZES[size][2]),
        ("input",),
        rtol=0,
        atol=0,
    )
    for kind in ("collect", "distribute")
    for size in SIZES
    for dtype in ((np.float32, np.float64) if size == "covering" else (np.float32,))
]
